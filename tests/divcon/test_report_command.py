"""`divcon report`: a run that is finished, one that isn't, two side by side, and one that goes on."""

import contextlib
import http.client
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.browser import browser_page, opened
from support.openai_server import OpenAIServer, user_text
from support.report_page import parts_of, questions_of
from typer.testing import CliRunner

from divcon import Run, load_pipeline
from divcon._live import LivePage, live_server
from divcon.benchmarks import ReportError
from divcon.benchmarks.report import Page, RunAnswers, comparison
from divcon.benchmarks.report._compare import _in_both
from divcon.cli import app
from divcon.config import load_saved_pipeline
from divcon.programs import Item

RUN = """\
task: {{name: word-problems, train: 4, test: 12}}
roles:
  teacher: {{model: openai/teacher, api_base: '{url}', retries: 0, price: {{input: 1, output: 2}}}}
  solver: {{model: openai/solver, api_base: '{url}', retries: 0, price: {{input: 1, output: 2}}}}
evaluate: {{arms: [direct, cot, teacher], resamples: 200, concurrency: 4}}
"""


class Answers:
    """A server's replies, of which the first so many direct answers are empty: calls that failed."""

    def __init__(self, text: str = "7", fails: int = 0) -> None:
        self.text = text
        self.fails = fails
        self.asked = 0

    def __call__(self, body: dict[str, Any]) -> str:
        self.asked += 1
        told = body["messages"][0]["content"]
        if "Split the question" in told:
            return f"1. What of {user_text(body)[:20]}?\n2. What follows?"
        if "Write the answer alone" not in told:
            return f"1. x\n2. y\nAnswer: {self.text}"
        self.fails -= 1
        return "" if self.fails >= 0 else self.text


@pytest.fixture(autouse=True)
def _keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")


@contextlib.contextmanager
def made(folder: Path, answers: Callable[[dict[str, Any]], str]) -> Iterator[Run]:
    """A run whose models are asked at a server on loopback."""
    with OpenAIServer(answers) as server:
        file = folder.parent / f"{folder.name}.yaml"
        file.write_text(RUN.format(url=server.url))
        run = Run(load_pipeline(file), folder)
        run.check()
        yield run
        run.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "one"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "k")
        with made(folder, Answers()) as run:
            run.evaluate()
    return folder


@pytest.fixture
def one(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "one"))


def without(folder: Path, where: str) -> None:
    """Delete outcomes from a run folder, as if it had been stopped before."""
    with contextlib.closing(sqlite3.connect(folder / "run.sqlite")) as db, db:
        assert db.execute(f"DELETE FROM outcomes WHERE {where}").rowcount


def reported(*arguments: object) -> tuple[str, dict[str, Any]]:
    """The page that `divcon report` writes, and what it prints with `--json`."""
    told = CliRunner().invoke(app, ["report", *map(str, arguments), "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    assert told.stdout.count("\n") == 1, "one document, and nothing else"
    return Path(found["report"]).read_text(encoding="utf-8"), found


def test_the_report_of_a_finished_run_is_written_again_as_it_was(one: Path) -> None:
    written = (one / "report.html").read_bytes()
    (one / "report.html").unlink()
    html, found = reported(one)
    assert (one / "report.html").read_bytes() == written
    assert (found["finished"], found["answered"], found["asked"]) == (True, 36, 36)
    assert found["arms"] == json.loads((one / "results.json").read_text())["arms"]
    (part,) = parts_of(html)
    assert {call["role"] for call in part["calls"].values()} == {"teacher", "solver"}
    assert all(call["prompt"] and call["reply"] for call in part["calls"].values())


def test_every_answer_holds_its_own_calls(one: Path) -> None:
    html, _ = reported(one)
    (part,), (index,) = parts_of(html), questions_of(html)
    for question, held in zip(index["questions"], part["questions"], strict=True):
        direct, cot, teacher = ([part["calls"][key] for key in answer["calls"]] for answer in held["r"])
        assert [call["role"] for call in (*direct, *cot, *teacher)] == ["solver", "solver", "teacher", "solver"]
        for call in (*direct, *cot, *teacher):
            assert question["q"] in call["prompt"][-1][1]
        assert held["r"][2]["asked"][0] in teacher[0]["reply"]


def test_a_run_that_was_stopped_has_a_report_without_advice(one: Path) -> None:
    without(one, "arm = 'teacher' AND position > 4")
    without(one, "arm = 'cot'")
    html, found = reported(one, "--out", one / "so-far.html")
    assert (found["finished"], found["answered"], found["asked"]) == (False, 17, 36)
    assert [(line["name"], line["right"] + line["wrong"]) for line in found["arms"]] == [("direct", 12), ("teacher", 5)]
    assert [row["n"] for row in found["differences"]] == [5], "over the questions that both have answered"
    assert {"station": "evaluate teacher", "state": "partly", "done": 5, "total": 12} in found["stations"]
    assert "Not finished: 17 of 36 answers are there" in html
    assert "evaluate cot (0 of 12)" in html
    assert "Choose " not in html and "ettled: " not in html
    assert (one / "so-far.html").is_file()
    outcomes = [[answer[0] for answer in question["r"]] for question in questions_of(html)[0]["questions"]]
    assert [row[1] for row in outcomes].count("-") == 7, "unanswered questions are shown as such"
    with browser_page(viewport={"width": 390, "height": 840}) as page:
        opened(page, one / "so-far.html")
        page.locator("#table .open").last.click()
        page.locator("#table pre").first.wait_for()
        assert "not answered yet" in page.inner_text("#table tr.whole")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_before_the_first_answer_there_is_a_report_of_what_is_missing(one: Path) -> None:
    without(one, "1")
    html, found = reported(one)
    assert (found["answered"], found["arms"], found["differences"]) == (0, [], [])
    assert "Not finished: 0 of 36 answers are there" in html


def test_failures_are_counted_and_the_first_is_quoted(tmp_path: Path) -> None:
    with made(tmp_path / "one", Answers(fails=3)) as run:
        run.outcomes(run.arms()[:1], run.task.test, "evaluate")
    html, found = reported(tmp_path / "one")
    assert (found["answered"], found["arms"][0]["failed"]) == (12, 3)
    assert "3 answers failed and are in no accuracy; the first: " in html


def test_a_report_asks_no_model_and_changes_no_result(one: Path) -> None:
    with contextlib.closing(sqlite3.connect(one / "run.sqlite")) as db:
        before = [db.execute(f"SELECT * FROM {table}").fetchall() for table in ("calls", "outcomes")]
    reported(one)  # its server is gone
    with contextlib.closing(sqlite3.connect(one / "run.sqlite")) as db:
        assert [db.execute(f"SELECT * FROM {table}").fetchall() for table in ("calls", "outcomes")] == before


def test_two_runs_are_compared_question_by_question(one: Path, tmp_path: Path) -> None:
    gold = {
        question["q"]: question["g"] for question in questions_of((one / "report.html").read_text())[0]["questions"]
    }

    def knowing(body: dict[str, Any]) -> str:
        """Right answers to whoever writes steps."""
        known = next((answer for question, answer in gold.items() if question in user_text(body)), "7")
        told = body["messages"][0]["content"]
        return Answers("7" if "Write the answer alone" in told else known)(body)

    with made(tmp_path / "two", knowing) as run:
        run.evaluate()
    html, found = reported(one, tmp_path / "two")
    assert found["report"] == str(one / "report-beside-two.html")
    assert (found["a"], found["b"], found["questions"]) == ("one", "two", 12)
    rows = {row["name"]: row for row in found["programs"]}
    assert rows["direct"]["difference"] == 0
    wrong = rows["cot"]["a"]["wrong"]
    assert rows["cot"]["difference"] == pytest.approx(wrong / 12) and rows["cot"]["p_holm"] < 0.05
    assert rows["cot"]["b"]["accuracy"] == 1
    assert "B is more accurate with cot, teacher" in html
    assert any(name.startswith("roles.") for name, *_ in found["settings"])
    with browser_page(viewport={"width": 1280, "height": 900}) as page:
        opened(page, Path(found["report"]))
        page.locator("table a", has_text=f"B {wrong}").first.click()
        assert page.inner_text("#count") == f"{wrong} of 12 questions"
        page.locator("#table .open").first.click()
        page.locator("#table details.call").first.wait_for()
        page.set_viewport_size({"width": 390, "height": 840})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_runs_with_nothing_in_common_are_not_compared() -> None:
    line = {"name": "cot", "label": "x"}
    results = {"arms": [line], "configuration": {}}
    records = {"cot": {"q": {"outcome": "right"}}}
    sides = [RunAnswers(name, results, records, [Item(id="q", question=name, answer="1")]) for name in "ab"]  # type: ignore[arg-type]
    with pytest.raises(ReportError, match="a and b have no question in common"):
        comparison(*sides)


def test_a_question_whose_text_was_changed_is_another_question() -> None:
    first, second = (
        RunAnswers(name, {}, {}, [Item(id="p", question="Same?", answer="1"), Item(id="q", question=text, answer="1")])
        for name, text in (("a", "Before?"), ("b", "After?"))
    )
    assert [item.id for item in _in_both(first, second)] == ["p"]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([], "is no run folder: it has no run.sqlite"),
        (["cells/a/pipeline.json", "run.sqlite"], "it has no experiment.json"),
    ],
)
def test_a_folder_without_a_run_is_told(tmp_path: Path, files: list[str], said: str) -> None:
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}" if name.endswith("json") else "")
    command = [sys.executable, "-m", "divcon.cli", "report", str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 1
    assert said in " ".join(told.stderr.split())


# -- live --------------------------------------------------------------------------------------------------------------


def asked(port: int, path: str = "/", host: str = "") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers={"Host": host} if host else {})
    return connection.getresponse()


@contextlib.contextmanager
def serving(render: Callable[[], str], seconds: float = 0.0) -> Iterator[int]:
    with live_server(LivePage(render, seconds)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_a_live_page_is_rendered_again_after_some_seconds() -> None:
    now, rendered = [0.0], iter("abc")
    page = LivePage(lambda: next(rendered), 5, clock=lambda: now[0])
    seen = []
    for at in (0, 4, 6, 10, 12):
        now[0] = at
        seen.append(page.html())
    assert seen == [b"a", b"a", b"b", b"b", b"c"]


def test_only_a_browser_on_this_machine_reads_the_live_page() -> None:
    with serving(lambda: "<p>page") as port:
        assert asked(port).read() == b"<p>page"
        assert asked(port, host=f"localhost:{port}").status == 200
        assert asked(port, host="evil.example").status == 403, "a name of theirs may be pointed at this machine"
        assert asked(port, "/etc/passwd").status == 404
        assert asked(port).headers["Cache-Control"] == "no-store"


def test_a_live_page_loads_itself_again_unless_a_question_is_open(one: Path, tmp_path: Path) -> None:
    run = Run(load_saved_pipeline(one), one)
    found = run.so_far()
    page_file = tmp_path / "live.html"
    page_file.write_text(found.page(found.results(compare=False), refresh=4).render(), encoding="utf-8")
    run.close()
    with browser_page() as page:
        opened(page, page_file)
        page.evaluate("window.before = true")
        page.wait_for_event("load")
        assert page.evaluate("window.before") is None
        page.locator("#table .open").first.click()
        page.locator("#table pre").first.wait_for()
        page.evaluate("window.before = true")
        page.wait_for_timeout(5000)
        assert page.evaluate("window.before"), "what is read stays"


def test_the_command_serves_the_page_until_ctrl_c(one: Path) -> None:
    without(one, "arm = 'cot'")
    command = [sys.executable, "-u", "-m", "divcon.cli", "report", str(one), "--watch"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        port = int(said.partition("127.0.0.1:")[2].partition("/")[0])
        html = asked(port).read().decode()
        assert "Not finished: 24 of 36 answers are there" in html and 'data-refresh="5"' in html
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    finally:
        process.kill()


def test_a_page_without_questions_has_no_table() -> None:
    assert 'id="table"' not in Page("nothing").render()
