import json
from pathlib import Path

import dspy
import pytest
from support.openai_server import OpenAIServer, user_text

from divcon.distill import (
    SOLVER_STUDENTS,
    Destination,
    LMBackend,
    NothingToLearn,
    RunStore,
    SolvedTraces,
    Solver,
    StoredEngine,
    Trace,
    decomposer_student,
    export_targets,
    role_lm,
    screen,
    solve_traces,
)
from divcon.programs import Item, RolePredict
from divcon.signatures import Solve, SolveDirect


def solver(server: OpenAIServer, store: RunStore, signature: type = Solve) -> RolePredict:
    inner = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, num_retries=0)
    engine = StoredEngine(LMBackend(inner), "solver", "openai/m", store)
    return RolePredict(signature, "solver", lm=role_lm(engine, temperature=None, max_tokens=None))


def number_of(body: dict) -> int:
    return int(user_text(body).split("What is ")[1].split()[0])


def wrong_on_odd(body: dict) -> str:
    """Right on even questions; question 3 gets a reply without an answer."""
    number = number_of(body)
    if number == 3:
        return "1. I can't say."
    return f"1. 0\n2. {number}\nAnswer: {number if number % 2 == 0 else 99}"


def traces(items: list[Item]) -> list[Trace]:
    return [Trace(item.id, 0, item.subquestions) for item in items]


def completions(file: Path) -> list[str]:
    return [json.loads(line)["completion"][0]["content"] for line in file.read_text().splitlines()]


def test_what_screening_asked_is_not_asked_again(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    with OpenAIServer(wrong_on_odd) as server:
        ask = solver(server, store)
        screen("oracle", traces(items), items, store, "s", solver=Solver(ask, lambda item, said: True, samples=1))
        asked = len(server.requests)
        solved = solve_traces(ask, traces(items), items)
        # The unreadable reply is kept too, and read again in vain.
        assert len(server.requests) == asked == 20
    assert (len(solved.solved), solved.lost, solved.failed) == (19, {"unreadable": 1}, 0)


@pytest.mark.parametrize("end", ["length", "max_tokens", "model_length", "content_filter", "abort"])
def test_no_student_of_the_solver_learns_a_reply_that_didnt_end_by_itself(
    tmp_path: Path, items: list[Item], end: str
) -> None:
    def reply(body: dict):
        number = number_of(body)
        return (f"1. 0\n2. {number}\nSo the answer is {number}", end if number == 3 else "stop")

    store = RunStore(tmp_path)
    with OpenAIServer(reply) as server:
        solved = solve_traces(solver(server, store), traces(items[:6]), items)
    assert [trace.item for trace, _ in solved.solved] == ["i0", "i1", "i2", "i4", "i5"]
    assert sum(solved.lost.values()) + solved.failed == 1


def test_se_t_learns_what_the_solver_said_and_se_a_the_gold_answer_after_it(tmp_path: Path, items: list[Item]) -> None:
    store = RunStore(tmp_path)
    with OpenAIServer(wrong_on_odd) as server:
        solved = solve_traces(solver(server, store), traces(items), items)
        found = {}
        for name, student in SOLVER_STUDENTS.items():
            signature = SolveDirect if student.target.direct else Solve
            file = tmp_path / f"{name}.jsonl"
            rows = export_targets(
                student, solver(server, store, signature), solved, items, Destination(file, student.name)
            )
            assert rows.rows == 19
            found[name] = completions(file)
            prompt = json.loads(file.read_text().splitlines()[0])["prompt"]
            assert items[0].subquestions[0] in prompt[-1]["content"]
    assert found["se-t"][1] == "1. 0\n2. 1\nFinal answer: 99"
    assert found["se-a"][1] == "1. 0\n2. 1\nFinal answer: 1"
    assert found["se-t"][0] == found["se-a"][0] == "1. 0\n2. 0\nFinal answer: 0"
    assert (found["se-t-direct"][1], found["se-a-direct"][1]) == ("99", "1")
    counts = json.loads((tmp_path / "se-t.manifest.json").read_text())["screening"]
    assert counts == {"collected": 20, "kept": 19, "lost": {"unreadable": 1}, "failed": 0}


def test_failed_calls_are_counted_and_no_targets(tmp_path: Path, items: list[Item]) -> None:
    with OpenAIServer(lambda body: 429 if number_of(body) == 5 else wrong_on_odd(body)) as server:
        solved = solve_traces(solver(server, RunStore(tmp_path)), traces(items), items)
    assert (solved.failed, len(solved.solved)) == (1, 18)
    assert solved.first_error


def test_nothing_to_learn_and_unknown_students_are_refused(tmp_path: Path, items: list[Item]) -> None:
    ask = RolePredict(Solve, "solver")
    with pytest.raises(NothingToLearn, match="gave no reply for SE-A"):
        export_targets(SOLVER_STUDENTS["se-a"], ask, SolvedTraces([]), items, Destination(tmp_path / "x.jsonl", "x"))
    with pytest.raises(ValueError, match="sd-r is no student of the solver"):
        export_targets(
            decomposer_student("oracle", "lora"), ask, SolvedTraces([]), items, Destination(tmp_path / "x.jsonl", "x")
        )
