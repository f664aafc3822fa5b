"""One question looked at closely: `divcon inspect` on a run folder, and `divcon ask -v`."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.openai_server import OpenAIServer, user_text
from typer.testing import CliRunner

from divcon import Run, load_pipeline
from divcon._inspect import _found
from divcon._watch import Silent
from divcon.cli import app
from divcon.distill import Base
from divcon.signatures import DivconError


def reply(body: dict[str, Any]) -> str:
    if "Split the question" in body["messages"][0]["content"]:
        return "I would rather not." if "Ada" in user_text(body) else "1. What is first?\n2. What follows?"
    return "Step by step.\nFinal answer: 7"


def invoked(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "100"})


def pipeline(folder: Path, server: OpenAIServer, decomposer: str = "{}") -> Path:
    (folder / "q.jsonl").write_text(
        "".join(
            json.dumps({"id": f"q{n}", "question": f"How many {thing} has {who}?", "answer": str(n)}) + "\n"
            for n, (who, thing) in enumerate([("Ada", "plums"), ("Bob", "pens"), ("Cy", "cups"), ("Dee", "dots")], 6)
        )
    )
    model = f"{{model: openai/m, api_base: '{server.url}', price: {{input: 1, output: 1}}, retries: 0}}"
    (folder / "p.yaml").write_text(
        "task: {name: file, path: q.jsonl, train: 2, test: 2}\n"
        f"roles:\n  teacher: {model}\n  decomposer: {decomposer}\n  solver: {model}\n"
        "screen: {rule: oracle, samples: 1}\nevaluate: {arms: [cot, teacher], resamples: 100}\n"
    )
    return folder / "p.yaml"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with collected, screened and evaluated questions."""
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with OpenAIServer(reply) as server:
        made = Run(load_pipeline(pipeline(tmp_path, server)), tmp_path / "run")
        made.check()
        made.collect()
        made.screen()
        made.evaluate()
        made.close()
    return made


def test_a_tested_question_is_shown_with_every_call_by_program(run: Run) -> None:
    item = run.task.test[0]
    found = json.loads(invoked("inspect", run.folder, item.id, "--json").stdout)
    assert (found["id"], found["question"], found["gold"]) == (item.id, item.question, [item.answer])
    by_name = {one["program"]: one for one in found["programs"]}
    assert set(by_name) == {"cot", "teacher"}
    assert [call["role"] for call in by_name["teacher"]["calls"]] == ["teacher", "solver"]
    call = by_name["cot"]["calls"][0]
    assert item.question in call["prompt"][-1]["text"]
    assert (call["reply"], call["finish_reason"]) == ("Step by step.\nFinal answer: 7", "stop")
    assert (call["input_tokens"], call["output_tokens"], call["cost"]) == (10, 5, pytest.approx(15e-6))
    said = invoked("inspect", run.folder, item.id, "--program", "cot").output
    assert "Chain of thought (cot): " in said and "ended by: stop, 10 tokens in, 5 out, $0.000015" in said
    assert "Two-stage" not in said


def test_a_training_question_is_found_by_its_words_and_shows_plan_and_verdict(run: Run) -> None:
    item = next(item for item in run.task.train if "Ada" not in item.question)
    said = invoked("inspect", run.folder, "--text", item.question[9:].upper()).output
    assert "Teacher's plan 1" in said and "1. What is first?" in said
    assert ("Kept by the rule oracle" if item.answer == "7" else "Not kept by the rule oracle, ") in said
    assert "calls on this question that no program above names" in said


def test_a_plan_that_was_lost_or_fell_back_is_shown_as_it_came(run: Run) -> None:
    ada = next(item for item in (*run.task.train, *run.task.test) if "Ada" in item.question)
    said = " ".join(invoked("inspect", run.folder, ada.id).output.split())
    if ada in run.task.train:
        assert "Lost (unreadable). The reply as it came: I would rather not." in said
    else:
        assert "Fell back: the planner's reply isn't used, since it can't be read as a list" in said
        assert "I would rather not." in said


def test_an_evaluation_says_how_many_plans_fell_back_and_quotes_the_first_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Told(Silent):
        def finished(self, name: str, text: str) -> None:
            said.append(f"{name}: {text}")

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with OpenAIServer(lambda body: "I would rather not." if "Split" in str(body) else "Final answer: 7") as server:
        made = Run(load_pipeline(pipeline(tmp_path, server)), tmp_path / "run", Told())
        made.check()
        made.evaluate()
        made.close()
    [cot] = [line for line in said if line.startswith("evaluate cot")]
    [teacher] = [line for line in said if line.startswith("evaluate teacher")]
    assert "fell back" not in cot
    reply = "'I would rather not.'"
    assert teacher.endswith(f"; 2 fell back to the whole question (2 unreadable; the first reply: {reply})")


def test_what_cannot_be_found_says_what_there_is(run: Run, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for folder, question, text, words in (
        (run.folder, "q99", "", "knows no question 'q99'. Give one of 4: q6, q7"),
        (run.folder, "", "How many", "4 questions of .* hold 'How many'. Give the id of one: "),
        (run.folder, "", "Zoe", "0 questions"),
        (tmp_path / "nothing", "q6", "", "is no run folder"),
    ):
        with pytest.raises(DivconError, match=words):
            _found(folder, question, text, "")


def test_a_run_whose_data_is_gone_still_shows_its_calls(run: Run) -> None:
    item = run.task.test[0]
    Path("q.jsonl").unlink()
    found = json.loads(invoked("inspect", run.folder, item.id, "--json").stdout)
    assert found["question"] is None and "q.jsonl" in found["note"]
    assert all(one["calls"] for one in found["programs"])
    with pytest.raises(DivconError, match=r"No call in .* holds 'Zoe'\."):
        _found(run.folder, "", "Zoe", "")
    by_words = json.loads(invoked("inspect", run.folder, "--text", item.question, "--json").stdout)
    assert any(item.question in call["prompt"][-1]["text"] for call in by_words["other_calls"])


@pytest.mark.model
def test_ask_shows_why_a_plan_fell_back_its_reply_and_with_v_every_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Base
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with OpenAIServer(reply) as server:
        file = pipeline(tmp_path, server, f"{{base: {tiny_base.path}, max_tokens: 4}}")
        made = Run(load_pipeline(file), tmp_path / "run")
        made.check()
        made.close()
        asked = ["ask", "How many dots has Eve?", "--run", tmp_path / "run"]
        found = json.loads(invoked(*asked, "--json", "-v").stdout)
        assert found["status"] == "fell_back"  # random weights write no list
        assert [call["role"] for call in found["calls"]] == ["decomposer", "solver"]
        said = " ".join(invoked(*asked).output.split())
        assert "Fell back: the planner's reply isn't used, since it was cut off. The question was asked whole." in said
        assert "Its reply: " in said and "Reasoning" in said and "call 1" not in said
        assert "call 2 solver, openai/m" in " ".join(invoked(*asked, "-v").output.split())
        assert "calls" not in json.loads(invoked(*asked, "--json").stdout)
