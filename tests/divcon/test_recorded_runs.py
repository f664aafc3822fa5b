"""Pipelines with a recorded teacher and with recorded arms, from the file to the report."""

import json
import re
from contextlib import closing
from pathlib import Path

import pytest
from support.openai_server import OpenAIServer, user_text
from typer.testing import CliRunner

from divcon import Run, load_pipeline
from divcon._tables import print_results
from divcon.cli import app
from divcon.config import ConfigError, load_experiment, load_saved_pipeline
from divcon.distill import Base, NothingToLearn, UnreadablePlans, read_manifest
from divcon.pipeline import Failures, Incomplete, Unfit
from divcon.precheck import Precheck
from divcon.schemas import Results
from divcon.signatures import DivconError

QUESTIONS = 30
# Nothing serves this address, so that every call would fail.
NOWHERE = "{model: openai/m, api_base: 'http://127.0.0.1:9', retries: 0}"


def gold(number: int) -> int:
    return 3 * number + 1


def lines(folder: Path, name: str, rows: list) -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Questions, a plan for each but one, and two files of replies."""
    asked = [f"{subject} number {n}?" for n, subject in enumerate(SUBJECTS)]
    lines(tmp_path, "questions.jsonl", [{"question": q, "answer": str(gold(n))} for n, q in enumerate(asked)])
    plans = [
        {"q": q, "plan": [f"What comes before {n}?", f"What follows {n}?"], "score": {"right": n % 2}}
        for n, q in enumerate(asked)
    ]
    lines(tmp_path, "plans.jsonl", plans)
    for name, wrong in (("good", 5), ("bad", 2)):
        replies = [
            {"question": q, "subquestions": f"1. Which is {n}?", "reply": f"Final answer: {gold(n) + (n % wrong == 0)}"}
            for n, q in enumerate(asked)
        ]
        lines(tmp_path, f"{name}.jsonl", replies)
    return tmp_path


SUBJECTS = [
    f"{first} {second}" for first in ("Apples", "Boats", "Coins", "Drums", "Eagles", "Ferns")
    for second in ("sold", "seen", "lost", "made", "kept")
]  # fmt: skip


def pipeline(folder: Path, solver: str = NOWHERE, teacher: str = "", more: str = "", base: str = "") -> Path:
    file = folder / "line.yaml"
    fields = "fields: {question: q, subquestions: plan, right: score.right}"
    file.write_text(
        f"""\
task: {{name: jsonl, path: {folder}/questions.jsonl, train: 18, test: 12, overlap: same}}
roles:
  teacher: {{model: recorded, path: {folder}/plans.jsonl, name: gpt-3.5-turbo, {teacher or fields}}}
  {base}
  solver: {solver}
screen: {{rule: [none, recorded], concurrency: 4}}
train: {{epochs: 1, batch_size: 8}}
{more}
"""
    )
    return file


ARMS = "evaluate: {{arms: [{arms}], resamples: 200, recorded: {{good: {{path: {folder}/good.jsonl, label: Good}}}}}}"


def answer(body: dict) -> str:
    number = re.search(r"number (\d+)\?", user_text(body).rpartition("Question:")[2])
    assert number is not None
    right = "What comes before" in user_text(body)
    return f"1. x\n2. y\nFinal answer: {gold(int(number[1])) if right else 0}"


@pytest.fixture(autouse=True)
def _keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")


@pytest.mark.model
def test_a_whole_run_with_recorded_plans_and_a_recorded_arm(data: Path, tiny_base: Base) -> None:
    with OpenAIServer(answer) as server:
        solver = f"{{model: openai/m, api_base: '{server.url}', retries: 0, price: {{input: 1, output: 2}}}}"
        more = ARMS.format(arms="direct, teacher, sd-t, sd-rec", folder=data)
        file = pipeline(data, solver, more=more, base=f"decomposer: {{base: {tiny_base.path}, max_tokens: 24}}")
        run = Run(load_pipeline(file), data / "run")
        results = run.run()
        asked = len(server.requests)
        run.run()
        assert len(server.requests) == asked
        assert {one.state for one in run.status()} == {"done"}
        run.close()
    assert load_saved_pipeline(data / "run") == run.pipeline
    Results.model_validate(results)
    arms = {arm["name"]: arm for arm in results["arms"]}
    assert list(arms) == ["direct", "teacher", "sd-t", "sd-rec", "good"]
    assert (arms["teacher"]["accuracy"], arms["direct"]["accuracy"]) == (1.0, 0.0)
    assert arms["teacher"]["label"] == "Two-stage, teacher, gpt-3.5-turbo (recorded)"
    assert arms["teacher"]["usage"]["decomposer"]["unknown_calls"] == 12, "unknown, not zero"
    assert arms["teacher"]["bill"]["large_tokens"] is None
    spent = arms["teacher"]["bill"]
    assert (arms["teacher"]["choosable"], spent["cost"], spent["cost_ci95"]) == (False, None, None)
    assert (arms["good"]["label"], arms["good"]["bill"]) == ("Good (recorded)", None)
    assert [row["n"] for row in results["differences"] if "good" in (row["a"], row["b"])] == [12] * 4
    right = sum(item.plans_right == (True,) for item in run.task.train)
    assert results["screening"]["by_student"]["sd-rec"]["lost"] == {"unsolved": 18 - right}
    teacher = results["teacher"]
    assert (teacher["model"], teacher["kind"], teacher["file"]) == (
        "gpt-3.5-turbo (recorded)", "recorded", "plans.jsonl",
    )  # fmt: skip
    written = read_manifest(data / "run" / "adapters" / "sd-rec").teacher
    assert written is not None and written.model_dump() == teacher
    beside = json.loads((data / "run" / "exports" / "sd-t.manifest.json").read_text())
    assert beside["teacher"] == teacher
    html = (data / "run" / "report.html").read_text(encoding="utf-8")
    assert "gpt-3.5-turbo (recorded)" in html and teacher["sha256"] in html and "<bdi>recorded</bdi>" in html
    assert str(data) not in json.dumps(results), "no path of this machine"
    assert "Good (recorded)" in (data / "run" / "results.csv").read_text()


def test_recorded_arms_alone_use_no_model(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = f"evaluate: {{arms: [], resamples: 200, recorded: {{good: {data}/good.jsonl, bad: {data}/bad.jsonl}}}}"
    file = pipeline(data, "{model: embedded/solver}", more=arms)
    monkeypatch.setattr("divcon._models.Models._of_endpoint", lambda *_: pytest.fail("an LM was made"))
    monkeypatch.setattr("divcon._models.local_base", lambda *_: pytest.fail("a base was loaded"))
    run = Run(load_pipeline(file), data / "run")
    run.check()
    results = run.evaluate()
    run.close()
    again = Run(load_pipeline(file), data / "run")  # no reply was paid for, so none is missing
    assert again.evaluate()["arms"] == results["arms"]
    again.close()
    Results.model_validate(results)
    assert (results["teacher"], results["solver"], results["student_base"]) == (None, None, None)
    accuracies = {arm["name"]: arm["accuracy"] for arm in results["arms"]}
    assert accuracies["good"] > accuracies["bad"]
    [row] = results["differences"]
    assert row["difference"] == pytest.approx(accuracies["good"] - accuracies["bad"])
    print_results(results, data / "run")
    assert "No program is advised: none here can answer a new question" in capsys.readouterr().out
    html = (data / "run" / "report.html").read_text(encoding="utf-8")
    assert "All programs here are recorded" in html
    whole = Run(load_pipeline(file, ["task.train=0"]), data / "whole")
    assert [arm["accuracy"] is not None for arm in whole.run()["arms"]] == [True, True]
    assert [one.station for one in whole.status()] == ["evaluate good", "evaluate bad", "results"]
    assert whole.estimate() == []
    whole.close()


class Heard:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def station(self, name: str, text: str) -> None:
        self.said.append(text)

    def progress(self, name: str, done: int, total: int, note: str = "") -> None: ...

    def finished(self, name: str, text: str) -> None:
        self.said.append(text)


def test_a_question_with_several_plans_gives_as_many_as_are_asked_for(data: Path) -> None:
    rows = [json.loads(line) for line in (data / "plans.jsonl").read_text().splitlines()]
    again = [{**row, "plan": ["Which is it?"], "score": {"right": 1}} for row in rows[::2]]
    lines(data, "plans.jsonl", [*rows, *again, again[0]])
    heard = Heard()
    with closing(Run(load_pipeline(pipeline(data)), data / "run", heard)) as run:
        run.check()
        assert [len(item.plans_right) for item in run.task.train] == [1] * 18
    more = [line.partition("; ")[2] for line in heard.said if line.startswith("plans.jsonl")]
    assert more == [
        "15 questions with more than one row (the first is taken); "
        "collect.samples: 3 would take all plans of the training questions"
    ]
    with closing(Run(load_pipeline(pipeline(data), ["collect.samples=2"]), data / "run", heard)) as run:
        run.check()
        run.collect()
        plans = {item.id: len(item.plans_right) for item in run.task.train}
        assert len(run.stations.traces()) == sum(plans.values()) > 18
        run.screen()
        assert [(one.station, one.done, one.total) for one in list(run.status())[:3]] == [
            (name, sum(plans.values()), sum(plans.values())) for name in ("collect", "screen none", "screen recorded")
        ]
        run.export()
    kept = {
        name: [json.loads(line)["completion"][0]["content"] for line in file.read_text().splitlines()]
        for name in ("sd-t", "sd-rec")
        for file in [data / "run" / "exports" / f"{name}.jsonl"]
    }
    assert len(kept["sd-t"]) == sum(plans.values())
    assert len(kept["sd-rec"]) == sum(sum(map(bool, item.plans_right)) for item in run.task.train)
    assert kept["sd-rec"].count("1. Which is it?") == sum(number - 1 for number in plans.values())


def test_what_has_no_plan_is_left_out_of_collecting_and_fails_in_the_arm(data: Path) -> None:
    file = pipeline(data, more="evaluate: {arms: [teacher], resamples: 200, max_failed: 0.9}")
    run = Run(load_pipeline(file), data / "whole")
    dropped, tested = run.task.train[0], run.task.test[0]
    run.close()
    rows = [json.loads(line) for line in (data / "plans.jsonl").read_text().splitlines()]
    lines(data, "plans.jsonl", [row for row in rows if row["q"] not in (dropped.question, tested.question)])
    with OpenAIServer(answer) as server:
        changed = [f"roles.solver={{model: openai/m, api_base: '{server.url}', retries: 0}}"]
        heard = Heard()
        run = Run(load_pipeline(file, changed), data / "part", heard)
        run.check()
        assert heard.said[0] == (
            "plans.jsonl: 17 of 18 training questions and 11 of 12 test questions have a plan; "
            "1 training question without one is left out"
        )
        run.collect()
        assert len(run.stations.traces()) == 17
        with pytest.raises(Incomplete, match=r"no recorded plan of gpt-3\.5-turbo") as error:
            run.evaluate()
        assert error.value.results is not None
        [arm] = error.value.results["arms"]
        assert (arm["right"], arm["failed"]) == (11, 1)
        run.close()


def test_other_plans_or_fields_are_another_collection_and_another_name_is_not(data: Path) -> None:
    def keys(*changes: str) -> tuple[str, str]:
        run = Run(load_pipeline(pipeline(data), changes), data / "run")
        found = run.keys.collection().digest, run.keys.screening("recorded").digest
        run.close()
        return found

    before = keys()
    assert keys("roles.teacher.name=somebody", "roles.teacher.price={input: 1, output: 2}") == before
    assert keys("evaluate.grader=paper")[0] == before[0] != keys("evaluate.grader=paper")[1]
    assert keys("roles.teacher.fields.reply=q")[0] != before[0]
    with (data / "plans.jsonl").open("a") as stream:
        stream.write("\n")
    assert keys()[0] != before[0]


def test_a_plan_is_priced_where_the_file_says_what_it_used(data: Path) -> None:
    rows = [json.loads(line) for line in (data / "plans.jsonl").read_text().splitlines()]
    counted = [{**row, "input_tokens": 1000, "output_tokens": 100} for row in rows]
    lines(data, "plans.jsonl", counted)
    run = Run(load_pipeline(pipeline(data), ["roles.teacher.price={input: 1, output: 2}"]), data / "run")
    run.check()
    run.collect()
    assert run.store.paid()["teacher"]["cost"] == pytest.approx(18 * 1200 / 1e6)
    assert run.arm("teacher").choosable
    run.close()


def test_rows_of_other_questions_have_no_say_in_what_the_plans_took(data: Path) -> None:
    rows = [json.loads(line) for line in (data / "plans.jsonl").read_text().splitlines()]
    counted = [{**row, "input_tokens": 1000, "output_tokens": 100} for row in rows]
    lines(data, "plans.jsonl", [*counted, {"q": "Nobody asks this?", "plan": ["Who?"]}])
    run = Run(load_pipeline(pipeline(data), ["roles.teacher.price={input: 1, output: 2}"]), data / "run")
    assert run.arm("teacher").choosable
    run.close()
    uncounted = {**rows[0], "plan": ["Who is it?"]}
    for given, chosen in (([*counted, uncounted], True), ([uncounted, *counted], False)):
        lines(data, "plans.jsonl", given)
        run = Run(load_pipeline(pipeline(data)), data / f"run-{chosen}")
        assert run.arm("teacher").choosable is chosen, "a row that isn't taken has no say either"
        run.close()


def test_plans_that_hold_nothing_name_the_field_that_may_be_wrong(data: Path) -> None:
    rows = [json.loads(line) for line in (data / "plans.jsonl").read_text().splitlines()]
    lines(data, "plans.jsonl", [{**row, "plan": None} for row in rows])
    heard = Heard()
    with closing(Run(load_pipeline(pipeline(data)), data / "run", heard)) as run:
        run.check()
        assert "; 30 plans without a word" in heard.said[0]
        with pytest.raises(UnreadablePlans, match=r"roles\.teacher\.fields\.subquestions"):
            run.collect()


def test_the_dry_run_and_the_doctor_name_the_teacher(data: Path) -> None:
    file = pipeline(data, "{model: embedded/base}", more="evaluate: {arms: [teacher]}")
    made = CliRunner().invoke(app, ["run", str(file), "--run", str(data / "run"), "--dry-run"])
    said = " ".join(made.output.split())
    assert "gpt-3.5-turbo (recorded) wrote the plans of plans.jsonl (sha256 " in said
    checked = " ".join(CliRunner().invoke(app, ["doctor", str(file)]).output.split())
    assert "teacher: gpt-3.5-turbo (recorded), 30 plans in plans.jsonl" in checked
    assert "the teacher's price is unknown" not in checked


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["compile.optimizer=bootstrap"], "set it to none"),
        (["evaluate.arms=[teacher, self-ask]"], "a recorded plan is a whole list"),
        (["roles.teacher.temperature=0.5"], "takes no temperature"),
        (["roles.teacher.name=null"], "needs path .* and name"),
        (["roles.teacher={model: openai/m, path: x}"], "only a recorded teacher .* has path"),
        (["roles.teacher={model: openai/m}"], "the rule recorded needs a recorded teacher"),
        (["roles.solver={model: recorded, path: x, name: y}"], "a recorded teacher only decomposes"),
        (["roles.solver={model: recorded}"], "a recorded teacher only decomposes"),
        (["evaluate.recorded={cot: x.jsonl}"], "called like an arm"),
        (["evaluate.recorded={a/b: x.jsonl}"], "pattern"),
        (["task.train=0"], "raise it"),
        (["roles.teacher.fields={questions: q}"], "no key 'roles.teacher.fields.questions'"),
    ],
)
def test_what_recorded_plans_cannot_do_is_refused_in_the_file(data: Path, changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_pipeline(pipeline(data), changes)


@pytest.mark.parametrize(
    ("teacher", "kind", "said"),
    [
        ("fields: {question: q, subquestions: plan}", Unfit, "18 of 18 plans have neither 'right' nor 'reply'"),
        ("fields: {question: score.right, id: q, subquestions: plan}", Unfit, "No row of .*plans.jsonl matches"),
    ],
)
def test_what_cannot_work_stops_the_check(data: Path, teacher: str, kind: type[Exception], said: str) -> None:
    run = Run(load_pipeline(pipeline(data, teacher=teacher)), data / "run")
    with pytest.raises(kind, match=said):
        run.check()
    run.close()


def test_the_fields_of_a_recorded_program_can_be_set_whatever_its_name(data: Path) -> None:
    file = pipeline(data, more="evaluate: {arms: [teacher], recorded: {gpt-3.5: good.jsonl, two: bad.jsonl}}")
    changes = ["evaluate.recorded.gpt-3.5.fields.reply=x", "evaluate.recorded.two.label=Two"]
    recorded = load_pipeline(file, changes).evaluate.recorded
    assert list(recorded) == ["gpt-3.5", "two"]
    assert (recorded["gpt-3.5"].path.name, recorded["gpt-3.5"].fields.reply) == ("good.jsonl", "x")
    assert (recorded["two"].path.name, recorded["two"].label) == ("bad.jsonl", "Two")


def test_all_broken_recordings_are_named_at_once(data: Path) -> None:
    for name in ("one", "two"):
        lines(data, f"{name}.jsonl", [{"question": "What?"}])
    file = pipeline(
        data, more=f"evaluate: {{arms: [teacher], recorded: {{one: {data}/one.jsonl, two: {data}/two.jsonl}}}}"
    )
    (data / "plans.jsonl").write_text("{")
    run = Run(load_pipeline(file), data / "run")
    with pytest.raises(DivconError) as caught:
        run.context.coverage()
    assert all(f"{name}.jsonl" in caught.value.problem for name in ("plans", "one", "two"))
    with pytest.raises(DivconError) as caught:
        Precheck(run, 5).do()
    assert all(f"{name}.jsonl" in caught.value.problem for name in ("plans", "one", "two"))
    run.close()


def test_a_precheck_without_training_questions_says_so(data: Path) -> None:
    (data / "line.yaml").write_text(
        f"task: {{name: file, path: '{data}/questions.jsonl', train: 0, test: all}}\n"
        f"roles: {{teacher: {{model: scripted/references}}, solver: {NOWHERE}}}\n"
        f"evaluate: {{arms: [], recorded: {{good: '{data}/good.jsonl'}}}}\n"
    )
    run = Run(load_pipeline(data / "line.yaml"), data / "run")
    with pytest.raises(DivconError, match=r"The precheck asks training questions, and task\.train is 0\."):
        Precheck(run, 5).do()
    run.close()


def test_nothing_to_learn_from_is_said_before_anything_is_asked(data: Path) -> None:
    tested = Run(load_pipeline(pipeline(data)), data / "whole")
    asked = {item.question for item in tested.task.test}
    tested.close()
    rows = [json.loads(line) for line in (data / "plans.jsonl").read_text().splitlines()]
    lines(data, "plans.jsonl", [row for row in rows if row["q"] in asked])
    run = Run(load_pipeline(pipeline(data)), data / "run")
    run.check()
    failures = Failures(run.reporter)
    run.examine(failures)
    with pytest.raises(Unfit, match=r"No training question has a plan in plans\.jsonl"):
        failures.require_none()
    with pytest.raises(NothingToLearn, match=r"No training question has a plan in plans\.jsonl"):
        run.collect()
    run.close()


def test_an_experiment_takes_no_recorded_arms(data: Path) -> None:
    file = data / "experiment.yaml"
    text = pipeline(data, more="evaluate: {recorded: {x: y.jsonl}}").read_text()
    task = re.search(r"task: (.*)", text)
    assert task is not None
    text = text.replace(task[0], f"experiment: {{kind: main, arms: [teacher], tasks: {{a: {task[1]}}}}}")
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"takes no evaluate\.recorded"):
        load_experiment(file)
