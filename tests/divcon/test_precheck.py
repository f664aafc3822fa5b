"""Whether moving the planner is worth it, said before a training is paid for."""

import contextlib
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.openai_server import OpenAIServer, user_text
from typer.testing import CliRunner

from divcon import Run, load_pipeline
from divcon._watch import Silent
from divcon.benchmarks.tasks import Task, load_task
from divcon.cli import app
from divcon.distill import Base, BudgetSpent
from divcon.pipeline import Incomplete
from divcon.precheck import STATUSES, Difference, Findings, Precheck, judge, next_commands, which_half
from divcon.precheck._figures import compared
from divcon.precheck._training import seconds_a_row, seconds_of

BETTER, WORSE, UNTOLD, EQUAL, SLIGHT = (
    Difference(0.2, 0.1, 0.3, 200),
    Difference(-0.2, -0.3, -0.1, 200),
    Difference(0.02, -0.06, 0.1, 200, 3_000),
    Difference(0.0, -0.015, 0.015, 9_000),
    Difference(-0.01, -0.015, -0.005, 90_000),
)


def findings(split: Difference, **more: Any) -> Findings:
    given: dict[str, Any] = {
        "best": "Chain of thought",
        "cost": 10.0,
        "best_cost": 5.0,
        "planner_cost": 4.0,
        "unknown": "",
        "moved": WORSE,
        "student": "the base, asked untrained,",
        "margin": 0.02,
    }
    return Findings(split, **{**given, **more})


UNKNOWN = {"cost": None, "best_cost": None, "planner_cost": None, "unknown": "there is no price of the teacher."}
FREE = {"cost": 0.0, "best_cost": 0.0, "planner_cost": 0.0}


@pytest.mark.parametrize(
    ("found", "verdict", "first"),
    [
        (findings(BETTER), "worth it", "Splitting is better than Chain of thought: +20.0 points (95 % interval +10.0"),
        (findings(WORSE), "not worth it", "Splitting is worse than Chain of thought and costs more: -20.0 points"),
        (findings(WORSE, best_cost=20.0), "not settled", "Splitting costs no more than Chain of thought and is worse"),
        (findings(WORSE, **UNKNOWN), "not worth it", "Splitting is worse than Chain of thought: -20.0 points"),
        (findings(EQUAL), "not worth it", "Splitting gains less than 2 points over Chain of thought and costs more"),
        (
            findings(EQUAL, best_cost=20.0),
            "worth it",
            "Splitting costs no more than Chain of thought and is no",
        ),
        (findings(EQUAL, **UNKNOWN), "not settled", "Whether splitting is better than Chain of thought isn't settled"),
        (findings(UNTOLD), "not settled", "Whether splitting is better than Chain of thought isn't settled: +2.0"),
        (findings(BETTER, planner_cost=0.3), "not worth it", "The planner makes 3.0 % of the bill of $10 per 1,000"),
        (findings(UNTOLD, planner_cost=0.3), "not worth it", "The planner makes 3.0 % of the bill of $10 per 1,000"),
        (findings(BETTER, planner_cost=1.0), "not settled", "Splitting pays, but the planner makes only 10.0 % of"),
        (findings(BETTER, planner_cost=1.0, moved=EQUAL), "worth it", "Splitting is better than Chain of thought"),
        (findings(BETTER, planner_cost=1.0, moved=None), "not settled", "Splitting pays, but the planner makes only"),
        (findings(SLIGHT), "not worth it", "Splitting is worse than Chain of thought and costs more"),
        (findings(SLIGHT, best_cost=20.0), "worth it", "Splitting costs no more than Chain of thought and is no worse"),
        (findings(BETTER, **UNKNOWN), "worth it", "Splitting is better than Chain of thought: +20.0 points"),
        (findings(BETTER, **FREE), "not worth it", "The whole program costs nothing at these prices"),
        (findings(WORSE, **FREE), "not worth it", "The whole program costs nothing at these prices"),
    ],
)
def test_the_rules_of_the_verdict(found: Findings, verdict: str, first: str) -> None:
    judged = judge(found)
    assert judged.name == verdict
    assert judged.reasons[0].startswith(first)
    assert len(set(judged.reasons)) == len(judged.reasons)


def test_reasons_say_how_many_questions_what_is_saved_and_what_is_unknown() -> None:
    assert "About 3,000 questions would settle it." in judge(findings(UNTOLD)).reasons[0]
    assert any("saves at most $4 of it" in reason for reason in judge(findings(BETTER)).reasons)
    assert "What moving the planner saves is unknown: there is no price of the teacher." in (
        judge(findings(BETTER, **UNKNOWN)).reasons
    )
    assert any("so the plan can be moved" in reason for reason in judge(findings(BETTER, moved=EQUAL)).reasons)


@pytest.mark.parametrize(
    ("both", "words"),
    [
        (BETTER, "Distil the planner rather than the solver: +20.0 points"),
        (WORSE, "Distil the solver rather than the planner: -20.0 points"),
        (UNTOLD, "Which half to distil isn't settled: +2.0 points"),
        (None, "Which half to distil isn't settled: the student has no score"),
    ],
)
def test_which_half_to_distil(both: Difference | None, words: str) -> None:
    said = which_half(both, "80 %", "40 %", False)
    assert said.startswith(words)
    if both is not None:
        assert said.endswith(" keeps 80 % of the teacher's accuracy as planner and 40 % as solver.")
        assert "keeps" not in which_half(both, None, None, False)


# -- on a server ------------------------------------------------------------------------------------------------------

TRAIN, TEST = 60, 6
GOLD = {
    item.question: item
    for part in ("train", "test")
    for item in getattr(load_task(Task(name="word-problems", train=TRAIN, test=TEST)), part)
}


def answering(split: float, alone: float) -> Callable[[dict[str, Any]], str]:
    """A server that is right in these shares of questions: with subquestions, and without."""

    def answer(body: dict[str, Any]) -> str:
        system, text = body["messages"][0]["content"], user_text(body)
        question = max(GOLD, key=text.rfind)
        if "Split the question" in system:
            return "1. What is the first amount?\n2. What follows from that?"
        digest = int(hashlib.sha256(f"{question} {'Hints' in text}".encode()).hexdigest(), 16) % 1000 / 1000
        right = digest < (split if "Hints:" in text else alone)
        result = GOLD[question].answer if right else "0"
        return f"Step by step.\nFinal answer: {result}" if "reason step by step" in system else result

    return answer


def pipeline(folder: Path, server: OpenAIServer, tiny: Base, teacher: str = "{input: 1, output: 1}") -> Path:
    file = folder / "line.yaml"
    price = f", price: {teacher}" if teacher else ""
    file.write_text(
        f"""\
task: {{name: word-problems, train: {TRAIN}, test: {TEST}}}
roles:
  teacher: {{model: openai/teacher, api_base: '{server.url}', retries: 0{price}}}
  decomposer: {{base: {tiny.path}, max_tokens: 4}}
  solver: {{model: openai/solver, api_base: '{server.url}', retries: 0, max_tokens: 20, price: {{input: 1, output: 1}}}}
screen: {{rule: oracle, samples: 1}}
train: {{epochs: 2, batch_size: 2}}
evaluate: {{resamples: 200, max_failed: 0.02}}
"""
    )
    return file


@pytest.fixture(autouse=True)
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")


def precheck(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["precheck", *map(str, arguments)])


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """No step is trained for its time."""
    monkeypatch.setattr("divcon.precheck._precheck.seconds_a_row", lambda run, items, folder: (0.5, "estimated"))


@pytest.mark.model
@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("split", "alone", "teacher", "verdict"),
    [
        (0.95, 0.3, "{input: 1, output: 1}", "worth it"),
        (0.3, 0.95, "{input: 1, output: 1}", "not worth it"),
        (0.95, 0.3, "{input: 0.01, output: 0.01}", "not worth it"),
        (0.5, 0.5, "{input: 1, output: 1}", "not settled"),
    ],
)
def test_the_exit_status_tells_the_verdict(
    tmp_path: Path, tiny_base: Base, split: float, alone: float, teacher: str, verdict: str
) -> None:
    with OpenAIServer(answering(split, alone)) as server:
        file = pipeline(tmp_path, server, tiny_base, teacher)
        done = precheck(file, "--run", tmp_path / "run", "--questions", 30)
        found = json.loads((tmp_path / "run" / "precheck" / "precheck.json").read_text())
        assert done.exit_code == STATUSES[found["verdict"]], done.output
        assert found["verdict"] == verdict


@pytest.mark.model
def test_it_asks_no_test_question_keeps_all_replies_and_says_what_it_took(
    tmp_path: Path, tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OpenAIServer(answering(0.95, 0.3)) as server:
        file = pipeline(tmp_path, server, tiny_base)
        done = precheck(file, "--run", tmp_path / "run", "--questions", 20, "--json")
        found = json.loads(done.stdout)
        assert found == json.loads((tmp_path / "run" / "precheck" / "precheck.json").read_text())
        run = Run(load_pipeline(file), tmp_path / "run")
        asked = "\n".join(user_text(body) for body in server.requests)
        assert not [item.id for item in run.task.test if item.question in asked]
        assert sum(item.question in asked for item in run.task.train) == 20
        assert [arm["name"] for arm in found["arms"]] == [
            "direct", "cot", "teacher", "references", "untuned", "se-untuned",
        ]  # fmt: skip
        teacher = found["arms"][2]
        assert teacher["steps"] == 2
        # two calls of fifteen tokens, at a dollar a million
        bill = {"per_1000": pytest.approx(0.03), "planner": pytest.approx(0.015), "share": 0.5, "unknown": None}
        assert found["bill"] == bill
        assert found["pipeline"]["training"]["how"] == "measured"
        assert found["seconds"]["took"] > 0 and found["seconds"]["expected"] > 0
        # the same questions are answered from the store, and the run's teacher has these plans already
        before = len(server.requests)
        monkeypatch.setattr("divcon.precheck._precheck.seconds_a_row", lambda run, items, folder: (0.5, "estimated"))
        assert Precheck(run, 20).do()["split"] == found["split"]
        assert len(server.requests) == before
        larger = Precheck(run, 24)
        with contextlib.closing(larger._asking()) as asking:
            fresh, known = larger._unanswered(asking.arms())
        assert (len(fresh), len(known)) == (4, 20), "the time is taken from questions that are asked"
        larger.do()
        assert sum(body["model"] == "teacher" for body in server.requests) == 24
        run.collect()
        assert sum(body["model"] == "teacher" for body in server.requests) == TRAIN
        assert run.store.paid("collect")["teacher"]["calls"] == TRAIN
        # rows that are too long may leave a single step, whose time says nothing
        one_step = lambda training, provenance, progress: progress(1, 1, 0.5)  # noqa: E731
        monkeypatch.setattr("divcon.precheck._training.train_adapter", one_step)
        assert seconds_a_row(run, larger.questions, tmp_path / "timed")[1] == "estimated"
        run.close()


MORE = "divcon precheck p.yaml --questions 50"


@pytest.mark.parametrize(
    ("verdict", "asked", "both", "commands"),
    [
        (None, 10, True, ["divcon precheck p.yaml --questions 10 --both"]),
        ("not worth it", 10, False, ["divcon precheck p.yaml --questions 10 --set roles.solver.model=ANOTHER"]),
        ("not settled", 10, False, [MORE, "divcon precheck p.yaml --questions 10 --both"]),
        ("not settled", None, False, [MORE, "divcon precheck p.yaml --both"]),
        ("worth it", 10, True, ["divcon run p.yaml --dry-run", "divcon run p.yaml"]),
    ],
)  # fmt: skip
def test_the_next_commands_keep_what_was_given(
    verdict: str | None, asked: int | None, both: bool, commands: list[str]
) -> None:
    found = {
        "verdict": verdict,
        "split": {"to_settle": 900},
        "questions": 10,
        "training_questions": 50,
        "half": {"planner": "untuned"},
    }
    assert next_commands(found, "p.yaml", asked, both) == commands


def test_the_time_of_a_row_counts_the_rows_of_the_last_step() -> None:
    trained = SimpleNamespace(rows=5, settings={"epochs": 2.0, "batch_size": 16}, result={"seconds": 20.0, "steps": 2})
    assert seconds_of([trained]) == 2.0


@pytest.mark.model
def test_two_small_students_learn_from_other_questions(tmp_path: Path, tiny_base: Base) -> None:
    with OpenAIServer(answering(0.95, 0.3)) as server:
        file = pipeline(tmp_path, server, tiny_base)
        run = Run(load_pipeline(file), tmp_path / "run")
        found = Precheck(run, both=True).do()
        assert found["questions"] == TRAIN // 2
        assert [arm["name"] for arm in found["arms"]][-2:] == ["sd-r", "se-t"]
        assert (found["half"]["planner"], found["half"]["solver"]) == ("sd-r", "se-t")
        rows = (tmp_path / "run" / "precheck" / "both" / "exports" / "se-t.jsonl").read_text()
        assert not [item.id for item in Precheck(run, both=True).questions if item.question in rows]
        run.close()


@pytest.mark.model
@pytest.mark.usefixtures("untrained")
def test_plans_that_cannot_be_used_are_said_and_pay_for_nothing(tmp_path: Path, tiny_base: Base) -> None:
    right = answering(0.95, 0.3)

    def reply(body: dict[str, Any]) -> str:
        return "No decomposition." if "Split the question" in body["messages"][0]["content"] else right(body)

    with OpenAIServer(reply) as server:
        run = Run(load_pipeline(pipeline(tmp_path, server, tiny_base)), tmp_path / "run")
        found = Precheck(run, 6).do()
        assert "100.0 % of the teacher's plans can't be used to train a planner." in found["notes"]
        assert found["pipeline"]["training"]["rows"] == 0
        assert not any("paid for itself" in reason for reason in found["reasons"])
        run.close()


@pytest.mark.model
@pytest.mark.usefixtures("untrained")
def test_programs_that_answered_no_question_in_common_have_no_verdict(tmp_path: Path, tiny_base: Base) -> None:
    right = answering(0.95, 0.3)
    whole: list[str] = []

    def reply(body: dict[str, Any]) -> Any:
        split = any(word in str(body["messages"]) for word in ("Hints", "Split the question"))
        asked = max(GOLD, key=user_text(body).rfind) in whole
        return "" if split is asked else right(body)

    with OpenAIServer(reply) as server:
        changes = ["evaluate.max_failed=0.7"]
        run = Run(load_pipeline(pipeline(tmp_path, server, tiny_base), changes), tmp_path / "run")
        whole += [item.question for item in Precheck(run, 6).questions[:3]]
        with pytest.raises(Incomplete, match="no question was answered both by"):
            Precheck(run, 6).do()
        assert json.loads((tmp_path / "run" / "precheck" / "precheck.json").read_text())["verdict"] is None
        run.close()


@pytest.mark.parametrize(("dearer", "most"), [(None, None), (True, 300), (False, 300)])
def test_the_number_of_questions_is_of_what_decides(tmp_path: Path, dearer: bool | None, most: int | None) -> None:
    records = {name: {str(n): {"outcome": "right"} for n in range(20)} for name in ("a", "b")}
    (tmp_path / "p.yaml").write_text(
        "task: {name: word-problems, train: 4, test: 2}\n"
        "roles: {teacher: {model: scripted/references}, solver: {model: embedded/solver}}\n"
    )
    found = compared(records, "a", "b", load_pipeline(tmp_path / "p.yaml"), dearer)
    assert found is not None and found.value == 0
    assert found.to_settle is None if most is None else 100 < found.to_settle < most


@pytest.mark.model
@pytest.mark.usefixtures("untrained")
def test_too_many_failed_answers_give_no_verdict(tmp_path: Path, tiny_base: Base) -> None:
    right = answering(0.95, 0.3)
    refused: list[str] = []

    def reply(body: dict[str, Any]) -> Any:
        direct = "Write the answer alone" in body["messages"][0]["content"]
        return 400 if direct and any(question in user_text(body) for question in refused) else right(body)

    with OpenAIServer(reply) as server:
        run = Run(load_pipeline(pipeline(tmp_path, server, tiny_base)), tmp_path / "run")
        refused += [item.question for item in Precheck(run, 12).questions[3:5]]
        with pytest.raises(Incomplete, match=r"too many answers failed. Direct: 2 of 12"):
            Precheck(run, 12).do()
        found = json.loads((tmp_path / "run" / "precheck" / "precheck.json").read_text())
        assert found["verdict"] is None
        assert found["arms"][0]["accuracy"] is None
        run.close()


@pytest.mark.model
@pytest.mark.usefixtures("untrained")
def test_it_stops_at_the_budget_and_goes_on_with_a_larger_one(tmp_path: Path, tiny_base: Base) -> None:
    with OpenAIServer(answering(0.95, 0.3)) as server:
        file = pipeline(tmp_path, server, tiny_base)
        for calls, done in ((10, False), (200, True)):
            run = Run(load_pipeline(file, [f"budget.calls={calls}"]), tmp_path / "run")
            if done:
                assert Precheck(run, 9).do()["verdict"] is not None
            else:
                with pytest.raises(BudgetSpent):
                    Precheck(run, 9).do()
                assert len(server.requests) == calls
            run.close()
        # A plan, and answers directly, by chain of thought, by the teacher's plan and by the reference. Without a plan
        # of the base that can be read, the whole question is solved, which chain of thought has asked already.
        assert len(server.requests) == 9 * (1 + 4)


@pytest.mark.model
@pytest.mark.usefixtures("untrained")
def test_it_says_time_and_price_before_it_asks(tmp_path: Path, tiny_base: Base) -> None:
    said: list[str] = []

    class Told(Silent):
        def station(self, name: str, text: str) -> None:
            said.append(f"{name}: {text}")

    with OpenAIServer(answering(0.95, 0.2)) as server:
        for name, teacher in (("priced", "{input: 1, output: 1}"), ("unpriced", "")):
            run = Run(load_pipeline(pipeline(tmp_path, server, tiny_base, teacher)), tmp_path / name, Told())
            Precheck(run, 3).do()
            run.close()
    priced, unpriced = (line for line in said if line.startswith("precheck: "))
    assert re.search(r"; 6 programs, ~.+, about \$[\d.e-]+ \(at most \$[\d.e-]+\)$", priced)
    assert unpriced.endswith(", an unknown price")


@pytest.mark.model
@pytest.mark.usefixtures("untrained")
def test_an_unknown_price_leaves_the_verdict_on_accuracy(tmp_path: Path, tiny_base: Base) -> None:
    with OpenAIServer(answering(0.95, 0.2)) as server:
        run = Run(load_pipeline(pipeline(tmp_path, server, tiny_base, "")), tmp_path / "run")
        found = Precheck(run, 30).do()
        assert found["verdict"] == "worth it"
        assert found["bill"]["share"] is None
        assert found["bill"]["unknown"] == "no price is known; write roles.teacher.price."
        assert found["pipeline"]["usd"] is None
        run.close()


@pytest.mark.model
@pytest.mark.usefixtures("untrained")
def test_recorded_plans_and_programs_are_named_and_the_verdict_is_on_accuracy(tmp_path: Path, tiny_base: Base) -> None:
    plans, replies, few = (tmp_path / name for name in ("plans.jsonl", "replies.jsonl", "few.jsonl"))
    items = list(GOLD.values())
    plan = {"subquestions": ["What is the first amount?", "What follows from that?"]}
    plans.write_text("".join(json.dumps({"question": item.question, **plan}) + "\n" for item in items[:-10]))
    rows = [json.dumps({"question": item.question, "reply": f"Answer: {item.answer}", **plan}) + "\n" for item in items]
    replies.write_text("".join(rows))
    few.write_text("".join(rows[:5] + rows[TRAIN:]))
    with OpenAIServer(answering(0.95, 0.2)) as server:
        changes = [
            f"roles.teacher={{model: recorded, path: {plans}, name: gpt}}",
            f"evaluate.recorded={{theirs: {replies}, few: {few}}}",
        ]
        run = Run(load_pipeline(pipeline(tmp_path, server, tiny_base), changes), tmp_path / "run")
        found = Precheck(run, 30).do()
        assert found["teacher"]["model"] == "gpt (recorded)"
        assert found["arms"][2]["label"] == "Two-stage, teacher, gpt (recorded)"
        assert (found["arms"][-1]["name"], found["arms"][-1]["accuracy"]) == ("theirs", 1.0)
        [note] = found["notes"]
        assert note.startswith("The recorded program few isn't measured: it has a reply to")
        assert found["bill"]["unknown"] == "the tokens of the teacher are unknown."
        assert found["verdict"] == "worth it"
        assert {body["model"] for body in server.requests} == {"solver"}
        run.close()
