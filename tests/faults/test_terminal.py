"""Names and messages of others on the terminal: markup is text there, and what steers a terminal is made visible."""

import io
import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.openai_server import OpenAIServer
from support.raw_server import Answer, chat, raw_server, refusing

from divcon import _tables, _terminal
from divcon._terminal import ShownConsole, Terminal, line, shown

DIVCON = Path(sys.executable).with_name("divcon")
MARKUP = ("[bold]", "[/foo]", "runs[x]", ":smile:", "[link=file:///etc]a[/link]", "\\[red]", "[@click=quit]")
# A screen cleared, a window's title, a link (OSC 8), the clipboard (OSC 52), C1 forms, bell, a line written over, text
# turned round, half a character.
STEERING = (
    "\x1b[2J\x1b]0;owned\x07\x1b]8;;http://evil\x1b\\a\x1b]8;;\x1b\\\x1b]52;c;AAAA\x07"
    "\x9b31m\x9d0;t\x9c\x07\rerror: no\x08\u202eexe.txt\u2066\u2028"
)


def divcon(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        [str(DIVCON), *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        timeout=120,
        env={**os.environ, "OPENAI_API_KEY": "none", **environment},
    )
    out, err = ran.stdout.decode(), ran.stderr.decode()  # text mode would turn a return into a line end
    return subprocess.CompletedProcess(ran.args, ran.returncode, out, err)


def require_harmless(printed: str) -> None:
    """Nothing in what was printed steers a terminal, but for colours and what a progress bar is made of."""
    for one in re.sub(r"\r?\x1b\[(?:\?25[hl]|2K|1A|(?:\d\d?;)*\d\d?m)", "", printed):
        assert one in "\n\t" or unicodedata.category(one) not in ("Cc", "Cs", "Zl", "Zp"), repr(one)
        assert unicodedata.bidirectional(one) not in ("RLO", "LRO", "RLE", "LRE", "RLI", "LRI", "FSI"), repr(one)


def pipeline(folder: Path, solver: str, task: str = "{name: word-problems, train: 2, test: 2}") -> Path:
    file = folder / "p.yaml"
    file.write_text(
        f"task: {task}\nroles:\n  teacher: {{model: scripted/references}}\n  solver: {solver}\n"
        "screen: {rule: none}\nevaluate: {arms: [direct, cot], resamples: 100}\n"
    )
    return file


def at(server: OpenAIServer, model: str = "s", **more: Any) -> str:
    return json.dumps({"model": f"openai/{model}", "api_base": server.url, "retries": 0, **more})


@pytest.mark.parametrize("name", ["[/foo]", "[bold]:smile:[x]\\[red][@click=quit]"])
def test_a_folder_is_shown_by_its_own_name(tmp_path: Path, name: str) -> None:
    run = Path("runs") / name
    with OpenAIServer(lambda body: "Answer: 7") as server:
        ran = divcon(tmp_path, "evaluate", pipeline(tmp_path, at(server)), "--run", run)
    assert ran.returncode == 0, ran.stderr
    assert str(run / "results.json") in ran.stdout
    assert (tmp_path / run / "results.json").is_file()
    assert f"none-{name} is no run folder" in divcon(tmp_path, "ask", "--run", f"none-{name}", "Q?").stderr


def test_names_of_models_and_files_are_shown_as_they_are(tmp_path: Path) -> None:
    name = "".join(MARKUP)
    with OpenAIServer(lambda body: "Answer: 7", served=(name,)) as server:
        file = pipeline(tmp_path, at(server, f"not-{name}"))
        assert f"doesn't serve 'not-{name}'; it serves {name}" in divcon(tmp_path, "doctor", file).stdout
        collected = divcon(tmp_path, "collect", file)
        assert collected.returncode == 0, collected.stderr
        assert divcon(tmp_path, "status", file, "--run", "[/x]").returncode == 0
    assert "The file [bold]x[/foo].yaml can't be read" in divcon(tmp_path, "run", "[bold]x[/foo].yaml").stderr
    assert "There is no file [/foo], and no" in divcon(tmp_path, "experiment", "[/foo]").stderr.replace("\n", " ")
    assert "--port" in divcon(tmp_path, "serve", "--run", "x", "--port", "[/foo]").stderr


def test_what_a_server_says_steers_no_terminal(tmp_path: Path) -> None:
    text = STEERING + "".join(MARKUP)

    with OpenAIServer(lambda body: f"Answer: 7 {text}", served=(text, "s")) as server:
        file = pipeline(tmp_path, at(server))
        for command in (["evaluate", file], ["status", file, "--json"]):
            ran = divcon(tmp_path, *command, FORCE_COLOR="1")
            assert ran.returncode == 0, ran.stderr
            require_harmless(ran.stdout + ran.stderr)
        server.served = (text,)
        ran = divcon(tmp_path, "doctor", file)
        assert "[U+001B]" in ran.stdout
        assert "[bold][/foo]" in ran.stdout
        require_harmless(ran.stdout + ran.stderr)


@pytest.mark.parametrize("engine", ["auto", "litellm"])
def test_an_error_of_a_server_steers_no_terminal_and_no_log(tmp_path: Path, engine: str) -> None:
    bodies = [
        lambda body: chat("", STEERING),
        refusing(400, STEERING + "[/foo]"),
        lambda body: (200, STEERING.encode()),
    ]
    faults: dict[str, Answer] = {}

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        return faults.setdefault(json.dumps(body["messages"]), bodies[len(faults) % 3])(body)

    with raw_server(answer) as address:
        solver = json.dumps({"model": "openai/s", "api_base": address, "retries": 0, "engine": engine})
        file = pipeline(tmp_path, solver, "{name: word-problems, train: 2, test: 3}")
        # One after another, so that the first error is the one that is printed.
        ran = divcon(tmp_path, "evaluate", file, "--set", "evaluate.concurrency=1")
    assert "Traceback" not in ran.stderr
    assert "6 answers failed" in ran.stderr and "[U+001B]" in ran.stderr
    require_harmless(ran.stdout + ran.stderr)
    log = tmp_path / "runs" / "p" / "divcon.log"
    if log.is_file():
        require_harmless(log.read_text(encoding="utf-8"))


def test_grades_and_json_are_harmless_and_json_means_the_same(tmp_path: Path) -> None:
    gold, reply = "7", f"The answer is 7.{STEERING}"
    said = divcon(tmp_path, "grade", "jsonl", "--gold", gold, "--reply", reply)
    require_harmless(said.stdout + said.stderr)
    options = f"Which?\nOptions:\n(A) {STEERING}[/foo]\n(B) no"
    told = divcon(
        tmp_path, "grade", "bbh", "--gold", "(A)", "--reply", f"(A) {STEERING}", "--question", options, "--json"
    )
    require_harmless(told.stdout + told.stderr)
    assert json.loads(told.stdout)["right"] in (True, False)


def test_a_crash_is_shown_without_what_steers_a_terminal(tmp_path: Path) -> None:
    script = (
        "import logging, threading, warnings\n"
        "from divcon import cli\n"
        "@cli.app.command()\n"
        "def crash(where: str):\n"
        f"    text = {STEERING[:-3] + '[/foo]'!r}\n"
        "    logging.getLogger('theirs').warning(text)\n"
        "    theirs = logging.getLogger('with a handler'); theirs.addHandler(logging.StreamHandler())\n"
        "    theirs.warning('%s', text)\n"
        "    warnings.warn(text)\n"
        "    def fails(): raise RuntimeError(text)\n"
        "    thread = threading.Thread(target=fails); thread.start(); thread.join()\n"
        "    fails()\n"
        "cli.main()\n"
    )
    ran = subprocess.run([sys.executable, "-c", script, "crash", "x"], cwd=tmp_path, capture_output=True, timeout=60)
    printed = ran.stderr.decode()
    assert ran.returncode == 1
    assert printed.count("RuntimeError: [U+001B][2J") == 2
    assert printed.count("[/foo]") == 5
    require_harmless(printed)


@pytest.mark.parametrize("width", [40, 200])
@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_texts_as_they_are(monkeypatch: pytest.MonkeyPatch, terminal: bool, width: int) -> None:
    monkeypatch.setattr(Terminal, "_EVERY", 0.0)
    written = io.StringIO()
    shows = Terminal(Console(file=written, width=width, force_terminal=terminal, color_system=None))
    for text in (*MARKUP, STEERING):
        shows.station(f"evaluate {text}", text)
        shows.progress(f"evaluate {text}", 1, 2, f"answers ({text})")
        shows.finished(f"evaluate {text}", text)
    printed = written.getvalue()
    require_harmless(printed)
    for text in MARKUP:
        assert text in printed


def test_tables_show_texts_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    written = io.StringIO()
    monkeypatch.setattr(_tables, "out", ShownConsole(file=written, width=400, force_terminal=True, color_system=None))
    text = "".join(MARKUP) + "\x1b[2J\u202e"
    row = {
        "label": text, "task": text, "solver": text, "name": text, "accuracy": None, "ci95": None, "right": 0,
        "wrong": 1, "failed": 0, "cut_off": 0, "withheld": text, "unreadable": 1,
        "first_unreadable": text, "splits": False, "seconds": 1.0,
        "usage": {}, "whole_rate": None,
    }  # fmt: skip
    common = {"teacher": {"model": "scripted/references", "kind": "scripted"}, "costs": {}}
    folder = tmp_path / "[bold]"
    _tables.print_results({**common, "task": {"name": text}, "questions": 1, "arms": [row]}, folder)
    _tables.print_rows({**common, "experiment": "main", "question": text, "rows": [row]}, folder)
    printed = written.getvalue()
    require_harmless(printed)
    assert printed.count(shown(text)) >= 8
    assert str(folder / "main.json") in printed


def test_a_style_is_ours_and_the_text_is_theirs() -> None:
    made = line(("error:", "red"), " [/foo]\x1b[2J", (":smile:[bold]", "green"))
    assert made.plain == "error: [/foo][U+001B][2J:smile:[bold]"
    assert [str(span.style) for span in made.spans if span.style] == ["red", "green"]


def test_no_other_module_has_a_console_of_its_own() -> None:
    root = Path(_terminal.__file__).parent
    own = [root, *(folder for folder in root.iterdir() if folder.is_dir() and not folder.is_symlink())]
    assert {"config", "schemas", "pipeline", "precheck", "experiments"} <= {folder.name for folder in own}
    for file in (file for folder in own for file in folder.glob("*.py")):
        text = file.read_text(encoding="utf-8")
        if file.name != "_terminal.py":
            assert not re.search(r"rich\.console|rich\.markup|rich\.progress", text), file
            echoed = re.findall(r"typer\.echo\((.*)\)", text)
            assert set(echoed) <= {'f"divcon {divcon.__version__}"', "schema_text(file), nl=False"}, file
