"""What all commands have in common: their help, their JSON, and what a shell completes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from support.openai_server import OpenAIServer
from typer.testing import CliRunner

from divcon.cli import app

DIVCON = Path(sys.executable).with_name("divcon")
GROUP: Any = typer.main.get_command(app)
COMMANDS = {name: command for name, command in GROUP.commands.items() if name != "store"}
STORE = {f"store {name}": command for name, command in GROUP.commands["store"].commands.items()}
# They print a protocol, a schema or rows, which are JSON already.
WITHOUT_JSON = {"mcp", "schema", "store export"}


@pytest.mark.parametrize("name", [*COMMANDS, *STORE])
def test_every_command_has_an_example_that_it_takes_and_prints_json_where_it_prints(name: str) -> None:
    command = {**COMMANDS, **STORE}[name]
    example = command.help.rpartition("Example: ")[2]
    assert example.startswith(f"divcon {name} ")
    options = {option for parameter in command.params for option in parameter.opts}
    assert all(word in options for word in example.split() if word.startswith("-"))
    assert ("--json" in options) == (name not in WITHOUT_JSON)


def test_commands_are_listed_in_the_order_of_use() -> None:
    said = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "100"}).output
    panels = ["Start", "Run", "Look", "Serve", "Tools"]
    order = ["init", "doctor", "precheck", "run", "collect", "screen", "export", "train", "evaluate", "status",
             "report", "inspect", "ask", "serve", "push", "grade"]  # fmt: skip
    assert [said.index(f"─ {panel} ─") for panel in panels] == sorted(said.index(f"─ {panel} ─") for panel in panels)
    at = [said.index(f"│ {name} ") for name in order]
    assert at == sorted(at)
    assert max(map(len, said.splitlines())) <= 100


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "p.yaml").write_text(
        "task: {name: word-problems, train: 20, test: 4}\n"
        "roles: {teacher: {model: scripted/references}, solver: {model: embedded/solver}}\nscreen: {rule: none}\n"
    )
    return tmp_path / "p.yaml"


def document(*arguments: object) -> Any:
    """The only thing on standard output."""
    done = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_json_is_one_document_and_nothing_else_is_on_standard_output(file: Path, tmp_path: Path) -> None:
    assert {"ok", "warning"} >= {one["level"] for one in document("doctor", file)}
    assert document("collect", file)[0]["station"] == "collect"
    assert document("screen", file) == [
        {"station": "screen none", "state": "done", "done": 20, "total": 20, "changes": [], "note": "20 of 20"}
    ]
    assert [one["state"] for one in document("export", file)] == ["done"]
    assert {one["station"]: one["state"] for one in document("status", file)}["train sd-t"] == "to do"
    dry = document("run", file, "--dry-run")
    assert dry["total"]["calls"] == sum(one["calls"] for one in dry["stations"])
    assert document("store", "check", "runs/p")["sound"]
    assert document("store", "repair", "runs/p")["sound"]
    assert document("grade", "gsm8k", "--gold", "7", "--reply", "It is 7.")["right"]
    (tmp_path / "pairs.jsonl").write_text('{"gold": "7", "reply": "7"}\n{"gold": "8", "reply": "8"}\n')
    assert [one["right"] for one in document("grade", "gsm8k", "--file", "pairs.jsonl")] == [True, True]
    (tmp_path / "q.csv").write_text("question,answer\nWho is it?,Ann\nWhere is it?,here\n")
    assert document("init", "q.csv")["keys_to_set"] == ["OPENAI_API_KEY"]


def test_evaluate_prints_its_results_as_json(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with OpenAIServer(lambda body: "Final answer: 7") as server:
        sets = ["--set", f"roles.solver={{model: openai/m, api_base: '{server.url}'}}", "--set", "evaluate.arms=[cot]"]
        results = document("evaluate", file, *sets)
    assert results == json.loads(Path("runs/p/results.json").read_text())


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("divcon in", {"init", "inspect"}),
        ("divcon experiment t", {"transfer"}),
        ("divcon grade gsm", {"gsm8k"}),
        ("divcon ask --student un", {"untuned"}),
        ("divcon run p.yaml --set train.ep", {"train.epochs="}),
        ("divcon run p.yaml --set roles.solver.api_b", {"roles.solver.api_base="}),
        ("divcon inspect nowhere q", set()),
    ],
)
def test_a_shell_completes_names(root: Path, words: str, completed: set[str]) -> None:
    bash = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    assert set(_completed(root, "bash", bash).split()) == completed
    typed = {"_TYPER_COMPLETE_ARGS": words}
    # zsh reads a list of "name":"help", and fish a line for each with a tab between the two.
    zsh = re.findall(r'^(?:_arguments .*\()?"([^"]+)"', _completed(root, "zsh", typed), re.MULTILINE)
    assert set(zsh) == completed
    fish = _completed(root, "fish", {**typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"})
    assert {line.partition("\t")[0] for line in fish.split("\n") if line.strip()} == completed


def _completed(root: Path, shell: str, environment: dict[str, str]) -> str:
    """What the program writes when a shell asks it for completions."""
    asked = {**os.environ, **environment, "_DIVCON_COMPLETE": f"complete_{shell}"}
    return subprocess.run([DIVCON], cwd=root, env=asked, capture_output=True, text=True).stdout
