"""Every experiment, whole: a real server as solver, a scripted teacher, tiny real students."""

import contextlib
import csv
import itertools
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.openai_server import OpenAIServer, user_text
from typer.testing import CliRunner

from divcon._watch import Silent
from divcon.cli import app
from divcon.config import ConfigError, load_experiment
from divcon.distill import Base, OverlapError
from divcon.experiments import ExperimentRun
from divcon.experiments._results import _upfront_of
from divcon.pipeline import Unfit
from divcon.signatures import DivconError

DIVCON = Path(sys.executable).with_name("divcon")
GOLD: dict[str, str] = {}


def answer(body: dict) -> str:
    """A solver that is right where it was given subquestions, and on every other question without."""
    text = user_text(body)
    question = re.split(r"\n(?:Hints|Steps|Subquestion):", text.split("Question:")[1])[0].strip()
    gold = GOLD[question]
    helped = "Hints:" in text or "Subquestion:" in text or "Steps:" in text or len(question) % 2
    told = body["messages"][0]["content"]
    if "Answer the subquestion" in told:
        return gold if "Steps:" in text else "7"
    return (
        f"1. x\n2. y\nAnswer: {gold if helped else '-1'}"
        if "reason step by step" in told
        else (gold if helped else "-1")
    )


def write(folder: Path, url: str, tiny: Base, kind: str, more: str = "", tasks: str = "") -> Path:
    tasks = tasks or "a: {name: word-problems, train: 10, test: 8}\n    b: {name: schedules, train: 10, test: 8}"
    file = folder / f"{kind}.yaml"
    file.write_text(
        f"""\
experiment:
  kind: {kind}
  tasks:
    {tasks}
{more}
roles:
  teacher: {{model: scripted/references}}
  decomposer: {{base: {tiny.path}, max_tokens: 16}}
  solver: {{model: openai/solver, api_base: '{url}', retries: 0}}
program: {{max_subquestions: 4}}
screen: {{rule: [none, oracle], samples: 1}}
train: {{epochs: 1, batch_size: 8, save_every: 2}}
evaluate: {{resamples: 200, concurrency: 8}}
"""
    )
    return file


@pytest.fixture(autouse=True)
def _keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")


def run(file: Path, folder: Path) -> dict[str, Any]:
    made = ExperimentRun(load_experiment(file), folder)
    for task in made.experiment.experiment.tasks:
        for draw in made.runs.draws:
            loaded = made.runs.of(task, draw, ["direct"]).task
            GOLD.update({item.question: item.answer for item in (*loaded.train, *loaded.test)})
    try:
        return made.run()
    finally:
        made.close()


def by(results: dict[str, Any], **wanted: Any) -> list[dict[str, Any]]:
    return [row for row in results["rows"] if all(row.get(key) == value for key, value in wanted.items())]


@pytest.mark.model
def test_closing_an_experiment_closes_the_runs_whose_students_arent_trained(
    tmp_path: Path, tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ExperimentRun(
        load_experiment(write(tmp_path, "http://127.0.0.1:9/v1", tiny_base, "main", "  seeds: [0]")), tmp_path / "run"
    )
    run = made.runs.of(next(iter(made.runs.design.tasks)), made.runs.draws[0])
    ended: list[bool] = []
    monkeypatch.setattr(run.context.models, "close", lambda: ended.append(True))
    made.close()
    assert ended == [True], "its servers would stay to the end of the process"


@pytest.mark.model
def test_main_over_seeds_is_paired_resumed_and_asks_nothing_twice(tmp_path: Path, tiny_base: Base) -> None:
    with OpenAIServer(answer) as server:
        file = write(tmp_path, server.url, tiny_base, "main", "  seeds: [0, 1]")
        results = run(file, tmp_path / "x")
        arms = [row["name"] for row in by(results, task="a")]
        students = ["untuned", "sd-t", "sd-r", "se-untuned", "se-t", "se-a"]
        assert arms == ["direct", "cot", "teacher", "references", *students]
        (teacher,) = by(results, task="a", name="teacher")
        assert teacher["accuracy"] == 1.0
        assert teacher["label"].endswith("(scripted)")
        (direct,) = by(results, task="a", name="direct")
        # Nothing that a seed could change: asked once, counted once.
        assert direct["right"] + direct["wrong"] == 8
        (student,) = by(results, task="a", name="sd-r")
        assert student["right"] + student["wrong"] == 16
        assert len(student["by_seed"]) == 2
        pairs = {(row["a"], row["b"]) for row in results["comparisons"] if row["task"] == "a"}
        assert {("sd-r", "teacher"), ("sd-r", "cot"), ("sd-r", "se-a"), ("se-a", "se-untuned")} <= pairs
        assert all(row["p_holm"] >= row["p"] for row in results["comparisons"])
        assert set(results["costs"]) == {"a", "b"}
        costs = results["costs"]["a"]
        assert {test["other"] for test in costs["evidence"]["tests"]} == set(costs["points"]) - {costs["choice"]}
        assert student["retained"]["n"] == 8 and "retained" not in direct
        asked = len(server.requests)
        keys = [json.dumps(body, sort_keys=True) for body in server.requests]
        assert len(set(keys)) == len(keys)
        again = run(file, tmp_path / "x")
        assert len(server.requests) == asked
        assert again["rows"] == results["rows"]
        # Depth divides the same answers by the steps that a question needs.
        depth = write(tmp_path, server.url, tiny_base, "depth", "  seeds: [0, 1]")
        divided = run(depth, tmp_path / "x")
        assert len(server.requests) == asked
        parts = by(divided, task="a", name="sd-r")
        whole = next(row for row in parts if "steps" not in row)
        assert whole["right"] == student["right"] == sum(row["right"] for row in parts if "steps" in row)
    with (tmp_path / "x" / "main.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(results["rows"])
    assert float(rows[2]["accuracy"]) == 1.0
    html = (tmp_path / "x" / "main.html").read_text(encoding="utf-8")
    assert "glance-2" in html and ">by seed</th>" in html
    assert json.loads((tmp_path / "x" / "main.json").read_text())["rows"] == results["rows"]


@pytest.mark.model
def test_transfer_measures_all_pairs(tmp_path: Path, tiny_base: Base) -> None:
    with OpenAIServer(answer) as server:
        arms = "  arms: [teacher, untuned, sd-r, sd-r/stepwise, se-a, se-t-direct]"
        results = run(write(tmp_path, server.url, tiny_base, "transfer", arms), tmp_path / "x")
    for name in ("sd-r", "sd-r/stepwise", "se-a", "se-t-direct"):
        found = {(row["trained_on"], row["task"]) for row in by(results, name=name)}
        assert found == {("a", "a"), ("a", "b"), ("b", "a"), ("b", "b")}
        assert all(row["retained"]["n"] == row["questions_tested"] for row in by(results, name=name))
    assert len(by(results, name="teacher")) == 2
    pairs = {(row["task"], row["a"], row["b"]) for row in results["comparisons"]}
    assert {("a", "sd-r (a)", "sd-r (b)"), ("b", "se-a (b)", "se-a (a)")} <= pairs


@pytest.mark.model
@pytest.mark.parametrize(("own", "other"), [("b", "a"), ("a", "b")])
def test_a_task_may_have_a_teacher_of_its_own(tmp_path: Path, tiny_base: Base, own: str, other: str) -> None:
    plans = []

    def reply(body: dict) -> str:
        if body["model"] != "other":
            return answer(body)
        plans.append(user_text(body))
        return "1. What is asked first?\n2. What is asked then?"

    with OpenAIServer(reply) as server:
        teachers = f"  teachers: {{{own}: {{model: openai/other, api_base: '{server.url}', retries: 0}}}}"
        file = write(tmp_path, server.url, tiny_base, "transfer", f"{teachers}\n  arms: [teacher, sd-t]")
        results = run(file, tmp_path / "x")
    assert len(plans) == len(set(plans)) == 18
    labels = {row["task"]: row["label"] for row in by(results, name="teacher")}
    assert labels[other].endswith("(scripted)") and "scripted" not in labels[own]
    assert {task: one["model"] for task, one in results["teachers"].items()} == {own: "openai/other"}
    assert results["teacher"]["model"] == "scripted/references", "that of all other tasks"
    assert server.url not in json.dumps(results["design"])
    report = (tmp_path / "x" / "transfer.html").read_text(encoding="utf-8")
    assert f"Teacher of {own}" in report


@pytest.mark.parametrize(
    ("kind", "task", "said"),
    [("transfer", "c", "names c, which isn't one of a, b"), ("multitask", "a", "takes one teacher for all tasks")],
)
def test_a_teacher_that_no_cell_could_ask_is_refused(
    tmp_path: Path, tiny_base: Base, kind: str, task: str, said: str
) -> None:
    teachers = f"  teachers: {{{task}: {{model: scripted/references}}}}"
    with pytest.raises(ConfigError, match=said):
        load_experiment(write(tmp_path, "http://127.0.0.1:9/v1", tiny_base, kind, teachers))


@pytest.mark.model
def test_one_decomposer_is_measured_under_several_solvers(tmp_path: Path, tiny_base: Base) -> None:
    with OpenAIServer(answer) as server:
        other = f"    other: {{model: openai/other, api_base: '{server.url}', retries: 0}}"
        one = f"  solvers:\n    one: {{model: openai/solver, api_base: '{server.url}', retries: 0}}\n{other}"
        file = write(tmp_path, server.url, tiny_base, "solvers", one, "a: {name: word-problems, train: 10, test: 8}")
        results = run(file, tmp_path / "x")
        assert {row["solver"] for row in results["rows"]} == {"one", "other"}
        assert len(by(results, name="sd-r")) == 2
        screening = [body for body in server.requests if body["model"] == "other"]
        assert set(results["costs"]) == {"a, one", "a, other"}
        html = (tmp_path / "x" / "solvers.html").read_text(encoding="utf-8")
        assert html.count('<section class="glance') == 2
        # The other solver only answers test questions: five arms on eight of them.
        assert len(screening) <= 5 * 8


@pytest.mark.model
def test_self_ask_is_compared_with_the_same_plans_asked_at_once(tmp_path: Path, tiny_base: Base) -> None:
    with OpenAIServer(answer) as server:
        results = run(write(tmp_path, server.url, tiny_base, "dynamic"), tmp_path / "x")
        assert not list((tmp_path / "x" / "cells").glob("*/*/adapters"))
    for task in ("a", "b"):
        (asked,) = by(results, task=task, name="self-ask")
        (static,) = by(results, task=task, name="teacher")
        assert asked["fell_back_rate"] == asked["whole_rate"] == 0
        assert asked["bill"]["large_tokens"] > static["bill"]["large_tokens"]
    assert {("teacher", "self-ask"), ("teacher/stepwise", "self-ask")} <= {
        (row["a"], row["b"]) for row in results["comparisons"]
    }


@pytest.mark.model
def test_a_decomposer_of_all_tasks_stands_beside_one_each(tmp_path: Path, tiny_base: Base) -> None:
    with OpenAIServer(answer) as server:
        results = run(write(tmp_path, server.url, tiny_base, "multitask"), tmp_path / "x")
    assert {row["name"] for row in by(results, task="b")} == {"cot", "teacher", "untuned", "sd-r", "sd-r/all"}
    together = next(row for row in results["screening"] if row["cell"] == "_all/seed-0" and row["student"] == "sd-r")
    assert together["collected"] == 20
    assert ("sd-r", "sd-r/all") in {(row["a"], row["b"]) for row in results["comparisons"]}


@pytest.mark.model
def test_a_curve_trains_on_nested_sets_and_caps_change_what_the_planner_is_told(
    tmp_path: Path, tiny_base: Base
) -> None:
    task = "a: {name: word-problems, train: 10, test: 8}"
    with OpenAIServer(answer) as server:
        file = write(tmp_path, server.url, tiny_base, "curve", "  questions: [4, 10]", task)
        results = run(file, tmp_path / "x")
        assert [row["questions"] for row in by(results, name="sd-r")] == [4, 10]
        assert ("sd-r (10)", "sd-r (4)") in {(row["a"], row["b"]) for row in results["comparisons"]}
        small, large = (
            (tmp_path / "x/cells/a" / f"seed-0,train-{n}" / "exports" / "se-a.jsonl").read_text().splitlines()
            for n in (4, 10)
        )
        assert small == large[:4]
        file = write(tmp_path, server.url, tiny_base, "cap", "  caps: [2, 4]", task)
        results = run(file, tmp_path / "y")
    assert [row["cap"] for row in by(results, name="teacher")] == [2, 4]
    pairs = {(row["a"], row["b"]) for row in results["comparisons"]}
    assert ("teacher (4)", "teacher (2)") in pairs
    assert not any(a.startswith("cot (") for a, _ in pairs)
    rows = (tmp_path / "y/cells/a/seed-0,max_subquestions-2/exports/sd-r.jsonl").read_text()
    assert "at most 2 subquestions" in rows


def words(folder: Path, name: str, count: int) -> str:
    """A task of questions with two steps each, as a line of the experiment file."""
    rows = [
        {
            "question": f"{name} {i} holds {i + 2} boxes of {i} pens. How many pens are there?",
            "answer": i * (i + 2),
            "subquestions": [f"How many boxes does {name} {i} hold?", f"How many pens are in {name} {i}?"],
        }
        for i in range(count)
    ]
    file = folder / f"{name}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"{name}: {{name: jsonl, path: {file}, overlap: same, train: 99, test: 99}}"


def test_folds_are_pooled_and_every_question_is_asked_once(tmp_path: Path, tiny_base: Base) -> None:
    told: list[str] = []

    class Told(Silent):
        def finished(self, name: str, text: str) -> None:
            told.append(f"{name}: {text}")

    with OpenAIServer(answer) as server:
        more = "  folds: 3\n  seeds: [0, 1]\n  arms: [direct, teacher, references]"
        file = write(tmp_path, server.url, tiny_base, "depth", more, words(tmp_path, "shelf", 8))
        results = run(file, tmp_path / "x")
        requests = [json.dumps(body, sort_keys=True) for body in server.requests]
        assert len(requests) == len(set(requests)) == 8 * 2  # the teacher's plans are the references
        assert run(file, tmp_path / "x")["rows"] == results["rows"]
        assert len(server.requests) == 16
        made = ExperimentRun(load_experiment(file), tmp_path / "x", Told())
        made.check()
        made.close()
    assert "folds: shelf: 8 questions in 3 folds, each tested with students of 5 to 6 others; " in "\n".join(told)
    assert any(line.endswith("task.test asks for 99; task.train asks for 99") for line in told)
    assert results["design"]["folds"] == 3
    for row in by(results, name="direct"):
        assert (row["questions_tested"], row["right"] + row["wrong"], "fold" in row) == (8, 8, False)
    planned = next(row for row in by(results, name="teacher") if "steps" not in row)
    assert (planned["questions_tested"], planned["right"], len(planned["by_seed"])) == (8, 16, 2)
    pairs = [row for row in results["comparisons"] if "steps" not in row]
    assert [row["n"] for row in pairs if (row["a"], row["b"]) == ("teacher", "direct")] == [8]
    cells = {path.name for path in (tmp_path / "x" / "cells" / "shelf").iterdir()}
    assert cells == {f"seed-{seed},fold-{fold}" for seed in (0, 1) for fold in (1, 2, 3)}
    for name, whose in (("teacher", "agreement"), ("references", "agreement_with_teacher")):
        whole = next(row for row in by(results, name=name) if "steps" not in row)
        assert whole[whose]["covered"] == whole["usable_rate"] == 1.0
    html = (tmp_path / "x" / "depth.html").read_text(encoding="utf-8")
    assert "in one of 3 folds" in html and 'id="agreement"' in html
    assert html.count("holds 2 boxes") == 1


@pytest.mark.model
def test_no_student_answers_a_question_that_it_was_trained_on(tmp_path: Path, tiny_base: Base) -> None:
    plan = "1. How many boxes are there?\n2. How many pens are there?"
    with OpenAIServer(lambda body: plan if body["model"] == "teacher" else answer(body)) as server:
        tasks = f"{words(tmp_path, 'shelf', 5)}\n    {words(tmp_path, 'drawer', 4)}"
        file = write(tmp_path, server.url, tiny_base, "transfer", "  folds: 2\n  arms: [teacher, sd-t]", tasks)
        teacher = f"openai/teacher, api_base: '{server.url}', retries: 0"
        file.write_text(file.read_text().replace("scripted/references", teacher))
        results = run(file, tmp_path / "x")
        # The plan that a student of one fold learns is the one by which the teacher is measured in another.
        assert sum(body["model"] == "teacher" for body in server.requests) == 9
        keys = [json.dumps(body, sort_keys=True) for body in server.requests]
        assert len(set(keys)) == len(keys)
    for row in results["rows"]:
        assert row["right"] + row["wrong"] == row["questions_tested"] == {"shelf": 5, "drawer": 4}[row["task"]]
    assert {(row["trained_on"], row["task"]) for row in by(results, name="sd-t")} == set(
        itertools.product(("shelf", "drawer"), repeat=2)
    )
    for task, count in (("shelf", 5), ("drawer", 4)):
        trained = {}
        for fold in (1, 2):
            rows = (tmp_path / f"x/cells/{task}/seed-0,fold-{fold}/exports/sd-t.jsonl").read_text()
            trained[fold] = {n for n in range(count) if f"{task} {n} holds" in rows}
        assert trained[1] ^ trained[2] == set(range(count)), "trained on in one fold, and tested in the other"
        made = ExperimentRun(load_experiment(file), tmp_path / "x")
        cells = [made.runs.of(task, draw) for draw in made.runs.draws]
        # The first fold paid for its plans, and the teacher's arm for those that the other fold shares with it.
        assert _upfront_of(made.runs, cells, "sd-t")["calls"] == len(cells[0].task.train)
        made.close()


def test_what_makes_no_sense_is_refused_before_anything_is_asked(tmp_path: Path, tiny_base: Base) -> None:
    def load(kind: str, more: str = "", tasks: str = "") -> None:
        load_experiment(write(tmp_path, "http://127.0.0.1:9/v1", tiny_base, kind, more, tasks))

    one = "a: {name: word-problems, train: 10, test: 8}"
    with pytest.raises(ConfigError, match="curve needs questions"):
        load("curve")
    with pytest.raises(ConfigError, match="main doesn't take caps"):
        load("main", "  caps: [1]")
    with pytest.raises(ConfigError, match="needs two tasks"):
        load("transfer", "", one)
    with pytest.raises(ConfigError, match="there is no arm 'sd-x'; did you mean s"):
        load("main", "  arms: [sd-x]")
    with pytest.raises(ConfigError, match="may follow an arm"):
        load("main", "  arms: [se-a/dag]")
    with pytest.raises(ConfigError, match="writes an instruction for each task"):
        load("transfer", "compile: {optimizer: MIPROv2}")
    with pytest.raises(ConfigError, match=r"solvers\.x\.api_key_env: the environment variable NO_SUCH_KEY"):
        load("solvers", "  solvers: {x: {model: openai/o, api_key_env: NO_SUCH_KEY}}")
    with pytest.raises(ConfigError, match="the solver needs a model"):
        load("solvers", "  solvers: {x: {model: scripted/references}}")
    lacking = write(tmp_path, "http://127.0.0.1:9/v1", tiny_base, "main")
    lacking.write_text(lacking.read_text().replace("rule: [none, oracle]", "rule: oracle"))
    with pytest.raises(ConfigError, match="the arm sd-t needs a student of rule 'none'"):
        load_experiment(lacking)
    with pytest.raises(ConfigError, match="a seed is listed twice"):
        load("main", "  seeds: [1, 1]")
    with pytest.raises(ConfigError, match="curve doesn't take folds"):
        load("curve", "  questions: [4]\n  folds: 5")
    with pytest.raises(ConfigError, match="and a generates its questions; b generates its questions"):
        load("main", "  folds: 5")
    with pytest.raises(ConfigError, match="a has test questions apart"):
        load("main", "  folds: 5", "a: {name: jsonl, path: a.jsonl, test_path: b.jsonl, train: 1, test: 1}")
    with pytest.raises(ConfigError, match=r"there is no key 'experiment\.sizes'"):
        load("curve", "  sizes: [1]")


def test_a_task_without_references_is_refused_where_they_are_needed(tmp_path: Path, tiny_base: Base) -> None:
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps({"question": f"Is it {w}?", "answer": "x"}) + "\n" for w in "abcdefgh"))
    tasks = f"a: {{name: jsonl, path: {data}, train: 2, test: 2}}"
    with OpenAIServer(answer) as server:
        file = write(tmp_path, server.url, tiny_base, "depth", "", tasks)
        with pytest.raises(Unfit, match=r"scripted teacher needs reference subquestions(.|\n)*- The experiment depth"):
            ExperimentRun(load_experiment(file), tmp_path / "x").run()
        text = file.read_text().replace("scripted/references}", f"openai/t, api_base: '{server.url}'}}")
        file.write_text(text)
        with pytest.raises(Exception, match="depth needs reference subquestions"):
            ExperimentRun(load_experiment(file), tmp_path / "y").run()
        assert not server.requests


def test_an_error_of_a_tasks_data_names_the_settings_of_the_experiments_file(tmp_path: Path, tiny_base: Base) -> None:
    data = tmp_path / "mine.csv"
    data.write_text("input,output\n" + "".join(f"Is it {w}?,x\n" for w in "abcdefgh"))
    task = f"a: {{name: file, path: {data}, train: 1, test: 1}}"
    file = write(tmp_path, "http://127.0.0.1:9/v1", tiny_base, "main", "", task)
    sets = "--set experiment.tasks.a.fields.question=input --set experiment.tasks.a.fields.answer=output"
    with pytest.raises(DivconError, match=re.escape(sets)):
        ExperimentRun(load_experiment(file), tmp_path / "x").run()
    told = ["experiment.tasks.a.fields.question=input", "experiment.tasks.a.train=50%", "experiment.tasks.a.test=all"]
    told_of = load_experiment(file, told).experiment.tasks["a"]
    assert (told_of.fields.question, told_of.train, told_of.test) == ("input", "50%", "all")


def test_training_on_another_tasks_test_questions_is_refused(tmp_path: Path, tiny_base: Base) -> None:
    rows = [{"question": f"Is it {w}?", "answer": "x", "subquestions": ["Is it so?"]} for w in "abcdefghij"]
    (tmp_path / "one.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = (
        f"a: {{name: jsonl, path: {tmp_path / 'one.jsonl'}, train: 5, test: 5}}\n"
        f"    b: {{name: jsonl, path: {tmp_path / 'two.jsonl'}, train: 5, test: 5, seed: 3}}"
    )
    with OpenAIServer(answer) as server:
        file = write(tmp_path, server.url, tiny_base, "transfer", "", tasks)
        with pytest.raises(OverlapError):
            ExperimentRun(load_experiment(file), tmp_path / "x").run()
        assert not server.requests


@pytest.mark.parametrize("name", ["main", "transfer", "solvers", "dynamic", "multitask", "depth", "curve", "cap"])
def test_every_experiment_has_an_example(root: Path, name: str) -> None:
    found = load_experiment(root / "examples" / "experiments" / f"{name}.yaml")
    assert found.experiment.kind == name


def test_an_unknown_name_says_which_there_are(tmp_path: Path) -> None:
    done = subprocess.run([str(DIVCON), "experiment", "nothing"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no experiment of that name" in done.stderr
    assert "one of cap, curve," in done.stderr


# -- the report at any time --------------------------------------------------------------------------------------------


def reported(folder: Path, *more: str) -> tuple[str, dict[str, Any]]:
    """The page that `divcon report` writes for a folder, and what it prints with `--json`."""
    told = CliRunner().invoke(app, ["report", str(folder), "--json", *more])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    return Path(found["report"]).read_text(encoding="utf-8"), found


@pytest.mark.model
def test_the_report_of_an_experiment_is_written_at_any_time(tmp_path: Path, tiny_base: Base) -> None:
    folder = tmp_path / "x"
    with OpenAIServer(answer) as server:
        file = write(tmp_path, server.url, tiny_base, "main", "  seeds: [0, 1]\n  arms: [direct, cot, teacher, sd-t]")
        results = run(file, folder)
        asked = len(server.requests)
        whole = (folder / "main.html").read_text(encoding="utf-8")
        page, found = reported(folder)
        assert page == whole and found["finished"]
        assert found["rows"] == results["rows"] and found["answered"] == found["asked"] == 2 * 2 * 4 * 8
        # As if it had been stopped while the second seed was trained, and while chain of thought was asked.
        (folder / "main.json").unlink()
        shutil.rmtree(folder / "cells" / "b" / "seed-1" / "adapters")
        with contextlib.closing(sqlite3.connect(folder / "run.sqlite")) as db, db:
            db.execute("DELETE FROM outcomes WHERE arm = 'cot' AND item LIKE 'a:%' AND position > 4")
        page, found = reported(folder, "--out", str(tmp_path / "so-far.html"))
        assert len(server.requests) == asked
    assert not (folder / "main.json").exists()
    # Both seeds of cot are one program, whose three answers are missing for each.
    assert (found["finished"], found["answered"], found["asked"]) == (False, 128 - 8 - 2 * 3, 128)
    stations = {one["station"]: (one["state"], one["done"], one["total"]) for one in found["stations"]}
    assert stations["evaluate b/seed-1"] == ("partly", 24, 32)
    rows = {(row["task"], row["name"]): row for row in found["rows"]}
    assert rows["a", "cot"]["right"] + rows["a", "cot"]["wrong"] == 5
    assert rows["b", "sd-t"]["right"] + rows["b", "sd-t"]["wrong"] == 8, "of the seed that is trained"
    [row] = [row for row in found["comparisons"] if (row["task"], row["a"], row["b"]) == ("a", "teacher", "cot")]
    assert row["n"] == 5, "over the questions that both have answered"
    assert "Not finished: 114 of 128 answers are there" in page and "Choose " not in page


def test_an_experiment_that_has_just_begun_is_looked_at(tmp_path: Path, tiny_base: Base) -> None:
    with OpenAIServer(answer) as server:
        made = ExperimentRun(load_experiment(write(tmp_path, server.url, tiny_base, "main")), tmp_path / "x")
        made.check()
        made.close()
    page, found = reported(tmp_path / "x")
    assert (found["finished"], found["answered"], found["rows"]) == (False, 0, [])
    assert found["asked"] == 2 * 10 * 8
    assert "Not finished: 0 of 160 answers are there" in page


def test_two_experiments_are_not_compared(tmp_path: Path) -> None:
    (tmp_path / "experiment.json").write_text("{}")
    told = subprocess.run([DIVCON, "report", tmp_path, tmp_path], capture_output=True, text=True)
    assert told.returncode == 1
    assert "is the folder of an experiment, and two runs are compared" in " ".join(told.stderr.split())
