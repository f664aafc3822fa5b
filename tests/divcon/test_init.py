"""`divcon init`: from a file of questions to a pipeline file that passes the doctor and can be prechecked."""

import contextlib
import csv
import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.openai_server import OpenAIServer, user_text
from typer.testing import CliRunner

from divcon import load_pipeline
from divcon._starter import look_at, starter
from divcon.benchmarks.tasks import load_task
from divcon.cli import app
from divcon.distill import Base
from divcon.precheck import STATUSES

NAMES = ("Ada", "Bob", "Cy", "Dee", "Eve", "Finn", "Gus", "Hal", "Ivy", "Jo", "Kim", "Lee", "Mo", "Nan", "Ola", "Pia")
GOLD = {
    f"{name} has {n} {thing} and gets {n + 1} {more}. How many things does {name} have {when}?": str(2 * n + 1)
    for n, (name, thing, more, when) in enumerate(
        zip(NAMES, "abcdefghijklmnop", reversed("abcdefghijklmnop"), map(str, range(16)), strict=True), 2
    )
}


def written(folder: Path, header: Sequence[str] = ("input", "output"), delimiter: str = ",") -> Path:
    file = folder / "questions.csv"
    with file.open("w", newline="") as stream:
        table = csv.writer(stream, delimiter=delimiter)
        table.writerow(header)
        table.writerows(GOLD.items())
    return file


def init(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["init", *map(str, arguments)])


def reply(body: dict[str, Any]) -> str:
    system, text = body["messages"][0]["content"], user_text(body)
    question = max(GOLD, key=text.rfind)
    if "Split the question" in system:
        return "1. How many are there first?\n2. How many are there then?"
    return f"Step by step.\nFinal answer: {GOLD[question]}" if "reason step by step" in system else GOLD[question]


@pytest.mark.model
def test_from_questions_and_a_key_to_a_verdict_takes_two_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Base
) -> None:
    written(tmp_path)
    monkeypatch.setattr("divcon._init._BASE", str(tiny_base.path))  # the shipped base takes minutes
    with OpenAIServer(reply) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "k")
        monkeypatch.setenv("OPENAI_API_BASE", server.url)
        assert init("questions.csv").exit_code == 0
        done = CliRunner().invoke(app, ["precheck", "pipeline.yaml"])
    found = json.loads(Path("runs/pipeline/precheck/precheck.json").read_text())
    assert done.exit_code == STATUSES[found["verdict"]], done.output
    assert f"Verdict: {found['verdict']}" in done.output
    assert {body["model"] for body in server.requests} == {"gpt-4.1-mini"}
    assert found["bill"]["per_1000"] > 0  # the prices were written into the file


def test_the_file_is_commented_and_the_doctor_finds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    done = init(written(tmp_path), "--set", "screen.samples=1", "--set", "task.seed=3")
    assert done.exit_code == 0, done.output
    text = Path("pipeline.yaml").read_text()
    made = load_pipeline(Path("pipeline.yaml"))
    assert made.task.fields is not None and (made.task.fields.question, made.task.fields.answer) == ("input", "output")
    assert (made.task.train, made.task.test, made.task.seed, made.screen.samples) == (12, 4, 3, 1)
    assert made.roles.teacher.price is not None and made.roles.teacher.price.output == 1.6
    assert all("#" in line for line in text.splitlines() if line.startswith(("  train:", "  test:", "  rule:")))
    examined = CliRunner().invoke(app, ["doctor", "pipeline.yaml"])
    assert examined.exit_code == 0, examined.output
    assert "failure" not in examined.output


def test_other_separators_and_columns_are_found(tmp_path: Path) -> None:
    done = init(
        written(tmp_path, ("Frage", "Loesung"), ";"), "--teacher", "openai/teacher", "--solver-at", "http://h/v1"
    )
    assert done.exit_code == 0, done.output
    made = load_pipeline(Path("pipeline.yaml"))
    assert made.task.delimiter == ";"
    assert made.task.fields is not None and made.task.fields.answer == "Loesung"
    assert (made.roles.solver.model, made.roles.solver.api_base) == ("openai/teacher", "http://h/v1")
    assert made.roles.teacher.api_base is None
    assert "OPENAI_API_KEY=...    (it isn't set)" in done.output


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("together_ai/m", ["TOGETHERAI_API_KEY"]),
        ("bedrock/m", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]),
        ("anthropic/claude-sonnet-4-5", ["ANTHROPIC_API_KEY"]),
        ("ollama/m", []),
        ("embedded/solver", []),
    ],
)
def test_the_keys_are_those_that_the_provider_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, keys: list[str]
) -> None:
    for name in keys:
        monkeypatch.delenv(name, raising=False)
    done = init(written(tmp_path), "--teacher", model, "--json")
    assert json.loads(done.output)["keys_to_set"] == keys
    assert ("the key comes from" in Path("pipeline.yaml").read_text()) == bool(keys)
    for name in keys:
        monkeypatch.setenv(name, "k")
    assert (
        json.loads(init(tmp_path / "questions.csv", "--teacher", model, "--json", "--force").output)["keys_to_set"]
        == []
    )


def test_questions_that_repeat_each_other_are_left_out_of_the_training(tmp_path: Path) -> None:
    file = written(tmp_path)
    file.write_text(file.read_text() + "".join(file.read_text().splitlines(keepends=True)[1:]))
    assert "repeat each other" in init(file).output
    assert load_pipeline(Path("pipeline.yaml")).task.overlap == "drop"


def test_test_questions_of_their_own_are_all_taken(tmp_path: Path) -> None:
    for name in ("train", "test"):
        rows = [f"Who won {name} number {n}?,{name} {n}" for n in range(3)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["question,answer", *rows]))
    found = look_at(tmp_path / "train.csv", [f"task.test_path={tmp_path}/test.csv"])
    assert (found.sizes, found.count) == ({"train": 3, "test": "all"}, 3)
    loaded = load_task(found.task())
    assert (len(loaded.train), len(loaded.test)) == (3, 3)
    assert "  test: all " in starter(found, tmp_path / "p.yaml")


PAIR = "question,answer\nWhat?,1\nWhy?,2\n"


@pytest.mark.parametrize(
    ("text", "arguments", "words"),
    [
        ("question\nWhat?\nWhy?\n", [], ["no field 'answer'", "Without gold answers", "DistillDecomposer"]),
        ("question,answer\nWhat?,\nWhy?,\n", [], ["The field 'answer'", "is empty", "Without gold answers"]),
        ("", [], ["is empty"]),
        ("question,answer\nWhat?,1\n", [], ["holds 1 question"]),
        (PAIR, ["--set", "train.epoch=2"], ["pipeline.yaml, line", "train.epoch", "Did you mean 'epochs'?"]),
        (PAIR, ["--set", "task.format=xlsx", "--set", "task.trian=1"], ["given has 2 errors", "task.trian", "'csv'"]),
        (PAIR, ["--set", "task.name=gsm8k"], ["error: --set task.name", "Leave it out"]),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_is_written(
    tmp_path: Path, text: str, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "q.csv").write_text(text)
    divcon = Path(sys.executable).with_name("divcon")
    done = subprocess.run([divcon, "init", "q.csv", *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "pipeline.yaml").exists()


def test_on_a_terminal_it_asks_for_what_is_not_given(tmp_path: Path) -> None:
    written(tmp_path)
    primary, secondary = pty.openpty()
    divcon = Path(sys.executable).with_name("divcon")
    process = subprocess.Popen([divcon, "init", "--base", "embedded"], cwd=tmp_path, stdin=secondary, stdout=secondary)
    os.close(secondary)
    for line in ("questions.csv", "y", "openai/one", "hosted_vllm/two", "http://127.0.0.1:1/v1", "mine.yaml"):
        os.write(primary, f"{line}\n".encode())
    said = b""
    with contextlib.suppress(OSError):  # Linux has no end of a terminal's output, but an error
        while part := os.read(primary, 4096):
            said += part
    assert process.wait(60) == 0, said
    assert b"Are these the right columns?" in said
    made = load_pipeline(tmp_path / "mine.yaml")
    assert (made.roles.teacher.model, made.roles.solver.model) == ("openai/one", "hosted_vllm/two")
    assert made.roles.solver.api_base == "http://127.0.0.1:1/v1"
    (tmp_path / "pipeline.yaml").write_text("mine")
    kept = subprocess.run([divcon, "init", "questions.csv"], cwd=tmp_path, capture_output=True, text=True)
    assert kept.returncode == 1 and "pipeline.yaml is there already" in kept.stderr
    assert (tmp_path / "pipeline.yaml").read_text() == "mine"
