from pathlib import Path

import dspy
import numpy as np
import pytest
from support.arms import arm_named
from support.openai_server import OpenAIServer, user_text

from divcon.benchmarks import (
    Arm,
    accuracy_interval,
    differences,
    evaluate_arm,
    evaluate_arms,
    mean_interval,
    summarize_arm,
)
from divcon.benchmarks._tables import wall_seconds
from divcon.distill import Key, LMBackend, RunStore, StoredEngine, role_lm
from divcon.programs import Direct, DivideAndConquer, Item


def lm(server: OpenAIServer, store: RunStore, role: str = "solver") -> dspy.LM:
    inner = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, num_retries=0)
    engine = StoredEngine(LMBackend(inner), role, "openai/m", store)
    return role_lm(engine, temperature=None, max_tokens=None)


def number_of(body: dict) -> int:
    return int(user_text(body).split("What is ")[1].split()[0])


def test_rate_limits_are_failures_and_never_wrong_answers(tmp_path: Path, items: list[Item]) -> None:
    store, limited = RunStore(tmp_path), {1, 2, 3}

    def reply(body: dict):
        number = number_of(body)
        return 429 if number in limited else str(number if number != 9 else 0)

    with OpenAIServer(reply) as server:
        arm = arm_named("direct", Direct(lm(server, store)), "Direct")
        records = evaluate_arm(arm, items[:10], store)
        line = summarize_arm(arm, [records], 200, 0.3)
        assert (line["right"], line["wrong"], line["failed"]) == (6, 1, 3)
        assert line["accuracy"] == pytest.approx(6 / 7)
        assert sum(line["errors"].values()) == 3
        asked = len(server.requests)
        limited.clear()
        line = summarize_arm(arm, [evaluate_arm(arm, items[:10], store)], 200)
        assert (line["right"], line["failed"]) == (9, 0)
        assert len(server.requests) == asked + 3


def test_an_unreadable_solver_reply_is_wrong_by_its_own_rule(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    unreadable = "There is more than one way to look at this.\nIt may be this, that, or something else, who can tell."
    with OpenAIServer(lambda body: unreadable) as server:
        program = DivideAndConquer(lm(server, store, "decomposer"), lm(server, store))
        arm = arm_named("sd-t", program)
        records = evaluate_arm(arm, items[:2], store)
    assert {(r["outcome"], r["rule"]) for r in records.values()} == {("wrong", "unreadable")}
    line = summarize_arm(arm, [records], 200)
    # Paid for all the same, and asked for the last line once.
    assert (line["usage"]["decomposer"]["calls"], line["usage"]["solver"]["calls"]) == (2, 4)
    assert (line["unreadable"], line["fell_back_rate"]) == (2, 0.0)
    assert line["first_unreadable"].endswith("who can tell.")


def test_an_arm_that_warms_up_asks_one_question_alone_and_doesnt_count_its_time(
    tmp_path: Path, items: list[Item]
) -> None:
    store = RunStore(tmp_path)

    def reply(body: dict) -> str:
        assert len(server.requests) > 1 or server.busiest == 1
        return str(number_of(body))

    with OpenAIServer(reply, delay=0.05) as server:
        arm = arm_named("sd-r", Direct(lm(server, store)), "Direct", loads=frozenset({"a server"}))
        records = evaluate_arm(arm, items[:9], store)
        assert len(server.requests) == 9
        assert server.busiest > 1
    assert [record.get("warm_up", False) for record in records.values()] == [True] + [False] * 8
    assert summarize_arm(arm, [records], 200)["right"] == 9
    loaded = {"a": {"started": 0.0, "seconds": 33.0, "warm_up": True}, "b": {"started": 33.0, "seconds": 2.0}}
    assert wall_seconds(loaded) == 2.0
    planned = {"b": {"started": 33.0, "seconds": 2.0, "planned": (20.0, 4.0)}}
    assert wall_seconds({**loaded, **planned}) == 6.0, "plans that were asked for first take time too"


def test_arms_that_share_a_server_wait_for_its_start_once(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    shared, other = frozenset({"a server"}), frozenset({"a server", "an adapter"})
    with OpenAIServer(lambda body: str(number_of(body)), delay=0.05) as server:
        program = Direct(lm(server, store))
        arms = [
            arm_named(name, program, name, loads=loads)
            for name, loads in [("direct", shared), ("cot", shared), ("sd-r", other), ("sd-t", other)]
        ]
        found = evaluate_arms(arms, items[:5], store)
    warm = [[record.get("warm_up", False) for record in records.values()] for records in found]
    assert warm == [[True] + [False] * 4, [False] * 5, [True] + [False] * 4, [False] * 5]


def test_nothing_is_asked_twice_and_records_come_in_order(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    with OpenAIServer(lambda body: str(number_of(body))) as server:
        arm = arm_named("direct", Direct(lm(server, store)), "Direct")
        assert list(evaluate_arm(arm, items, store)) == [item.id for item in items]
        evaluate_arm(arm, items, store)
        assert len(server.requests) == 20


def test_intervals_are_paired() -> None:
    rng = np.random.default_rng(0)
    a = list(rng.random(200) < 0.6)
    b = [x and i % 20 != 0 for i, x in enumerate(a)]  # like a, but a few worse
    low, high = mean_interval(np.subtract(a, b, dtype=float)[None], 2000)
    assert low > 0
    unpaired = np.diff(accuracy_interval(a, 2000))[0] + np.diff(accuracy_interval(b, 2000))[0]
    assert high - low < unpaired / 2


def test_an_interval_covers_the_binomial_one() -> None:
    low, high = accuracy_interval([True] * 60 + [False] * 40, 5000)
    assert low == pytest.approx(0.50, abs=0.03)
    assert high == pytest.approx(0.70, abs=0.03)


def test_every_pair_is_compared_over_questions_that_neither_failed() -> None:
    def records(*outcomes: str) -> dict[str, dict]:
        return {str(i): {"outcome": outcome} for i, outcome in enumerate(outcomes)}

    arms = {
        "a": records("right", "right", "failed"),
        "b": records("wrong", "right", "right"),
        "c": records(*["right"] * 3),
    }
    rows = differences({name: [found] for name, found in arms.items()}, 200, max_failed=0.4)
    assert [(row["a"], row["b"], row["n"]) for row in rows] == [("a", "b", 2), ("a", "c", 2), ("b", "c", 3)]
    assert rows[0]["difference"] == pytest.approx(0.5)


def test_the_next_arm_begins_before_the_one_before_is_through(tmp_path: Path, items: list[Item]) -> None:
    store, told = RunStore(tmp_path), []
    with OpenAIServer(lambda body: "7", delay=0.2) as server:
        arms = [Arm(name, Direct(lm(server, store, name)), Key({"arm": name}), name) for name in ("a", "b", "c")]
        found = evaluate_arms(
            arms, items[:4], store, concurrency=12, progress=lambda done, total, name: told.append((done, total))
        )
    assert server.busiest > 4  # no arm has more questions than that
    assert [len(records) for records in found] == [4, 4, 4]
    assert told == [(done, 12) for done in range(13)]


def test_a_solvers_reply_that_ran_out_of_tokens_is_marked_and_counted(tmp_path: Path, items: list[Item]) -> None:
    with OpenAIServer(lambda body: (str(number_of(body)), "length" if number_of(body) < 2 else "stop")) as server:
        store = RunStore(tmp_path)
        arm = arm_named("direct", Direct(lm(server, store)), "Direct")
        records = evaluate_arm(arm, items[:5], store)
    assert [record.get("cut_off", False) for record in records.values()] == [True, True, False, False, False]
    assert summarize_arm(arm, [records], 200)["cut_off"] == 2
