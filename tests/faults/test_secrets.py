"""A server that echoes the key it was sent, wherever it can: the key reaches no file and no terminal."""

import asyncio
import base64
import html
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.raw_server import Answer, chat, raw_server, refusing
from support.report_page import parts_of
from support.works import keep

from divcon import load_pipeline
from divcon.distill import Job, Key, RunStore, Trace
from divcon.distill.executors import Recipe, StoreLookup, Worker
from divcon.distill.executors._wire import pack_job
from divcon.programs import Item
from divcon.signatures import MASK

DIVCON = Path(sys.executable).with_name("divcon")
KEY = "sk-9f8e/7d6c+5b4a&3210=xY"
FORMS = (
    KEY,
    quote(KEY, safe=""),
    quote(KEY, safe="").lower().replace("xy", "xY"),
    KEY.replace("/", "\\/"),
    html.escape(KEY),
    base64.b64encode(f"user:{KEY}".encode()).decode(),
    base64.b64encode(KEY.encode()).decode(),
)
ECHO = " | ".join(FORMS)
HEADERS = {"x-request-id": KEY}


def refusal(status: int) -> Answer:
    return refusing(status, f"status {status}: the key {ECHO} is wrong", type=ECHO, code=ECHO, param=KEY)


def pipeline(folder: Path, address: str, engine: str = "auto", questions: int = 3) -> Path:
    file = folder / "p.yaml"
    endpoint = f"{{model: openai/t, api_base: '{address}', api_key_env: PLANTED, retries: 0, engine: {engine}}}"
    file.write_text(
        f"task: {{name: word-problems, train: {questions}, test: {questions}}}\n"
        f"roles:\n  teacher: {endpoint}\n  solver: {endpoint}\n"
        "collect: {concurrency: 1}\nscreen: {rule: none}\n"
        "evaluate: {arms: [direct, cot], resamples: 100, concurrency: 1}\n"
    )
    return file


def divcon(folder: Path, *arguments: object, **environment: str) -> str:
    """Everything that a command prints."""
    ran = subprocess.run(
        [str(DIVCON), *map(str, arguments)],
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, "PLANTED": KEY, **environment},
    )
    return ran.stdout + ran.stderr


def require_no_key(folder: Path, printed: str, forms: Sequence[str] = FORMS) -> None:
    """Nothing that was written or printed holds a form of the key, even as part of a JSON text."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "p.yaml"]
    texts = [(str(file), file.read_bytes()) for file in files] + [("the terminal", printed.encode())]
    pages = [file for file in files if file.name == "report.html"]
    texts += [(str(file), json.dumps(parts_of(file.read_text("utf-8"))).encode()) for file in pages]
    for form in {*forms, *(json.dumps(form)[1:-1] for form in forms)}:
        for name, text in texts:
            assert form.encode() not in text, (form, name)


def stored(folder: Path) -> list[str]:
    with sqlite3.connect(folder / "runs" / "p" / "run.sqlite") as db:
        return [row[0] for row in db.execute("SELECT response FROM calls")]


# What a server may answer with the key in it, besides a reply.
FAULTY: tuple[Answer, ...] = (
    *(refusal(status) for status in (400, 422, 429, 500, 503)),
    *(
        lambda body, content=content: (200, content)
        for content in (
            ECHO.encode(),
            f"<html>{ECHO}".encode(),
            json.dumps({"choices": ECHO, "model": KEY}).encode(),
            json.dumps({"choices": [{"message": {"content": [KEY]}, "index": ECHO}]}).encode(),
            json.dumps([ECHO]).encode(),
            f"data: {ECHO}\n\n".encode(),
        )
    ),
    lambda body: chat("", ECHO),
)


@pytest.mark.parametrize("engine", ["auto", "litellm"])
def test_a_key_in_an_error_is_kept_nowhere(tmp_path: Path, engine: str) -> None:
    """Every other question is answered with another fault; the others are answered, or the station would end."""
    faults: dict[str, Answer] = {}

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        place = len(faults)
        fault = (
            FAULTY[place // 2 % len(FAULTY)] if place % 2 else (lambda body: chat("1. What is a?\nAnswer: 7", "stop"))
        )
        return faults.setdefault(json.dumps(body["messages"]), fault)(body)

    with raw_server(answer, HEADERS) as address:
        file = pipeline(tmp_path, address, engine, 2 * len(FAULTY))
        printed = divcon(tmp_path, "collect", file)
        collected = len(faults)
        printed += divcon(tmp_path, "evaluate", file)
    assert collected >= 2 * len(FAULTY)
    assert len(faults) >= 4 * len(FAULTY)
    assert "Traceback" not in printed
    assert MASK in printed, "the rest of the message is shown"
    require_no_key(tmp_path, printed)


@pytest.mark.parametrize(("status", "said"), [(401, "refused the key"), (404, "404")])
def test_a_key_in_what_ends_a_station_is_kept_nowhere(tmp_path: Path, status: int, said: str) -> None:
    with raw_server(refusal(status), HEADERS) as address:
        printed = divcon(tmp_path, "collect", pipeline(tmp_path, address))
    assert said in printed
    require_no_key(tmp_path, printed)


def test_a_reply_with_a_key_in_it_is_still_the_reply(tmp_path: Path) -> None:
    """Content, model, id and an unknown field echo it; every station and command is run."""

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        text = f"1. What is {KEY}?\n2. What is {FORMS[1]} of {FORMS[5]}?\nAnswer: {ECHO}"
        return chat(text, "stop", model=ECHO, id=ECHO, system_fingerprint=ECHO, extra={KEY: [ECHO]})

    with raw_server(answer, HEADERS) as address:
        file = pipeline(tmp_path, address)
        printed = "".join(
            divcon(tmp_path, *command, file)
            for command in (["collect"], ["export"], ["evaluate"], ["status", "--json"])
        )
    for name in ("results.json", "results.csv", "report.html", "exports/sd-t.jsonl", "pipeline.json"):
        assert (tmp_path / "runs" / "p" / name).is_file(), (name, printed)
    require_no_key(tmp_path, printed)
    (part,) = parts_of((tmp_path / "runs" / "p" / "report.html").read_text(encoding="utf-8"))
    assert any(MASK in call["reply"] for call in part["calls"].values()), "the page holds the raw replies"
    assert len(stored(tmp_path)) >= 3 + 3 + 3
    assert all(f"What is {MASK}?" in reply for reply in stored(tmp_path))
    assert json.loads((tmp_path / "runs" / "p" / "results.json").read_text())["questions"] == 3


def test_a_masked_reply_is_found_again_by_its_key(tmp_path: Path) -> None:
    asked = []

    def answer(body: dict[str, Any]) -> tuple[int, bytes]:
        asked.append(body)
        return chat(f"1. What is {KEY}?\n2. What follows?")

    with raw_server(answer, HEADERS) as address:
        file = pipeline(tmp_path, address)
        divcon(tmp_path, "collect", file)
        before = len(asked)
        (tmp_path / "runs" / "p" / "keys.json").unlink(missing_ok=True)
        divcon(tmp_path, "collect", file)
    assert len(asked) == before >= 3


def test_a_key_that_a_message_is_cut_in_is_not_there_in_part(tmp_path: Path) -> None:
    with raw_server(refusing(400, KEY * 40)) as address:
        file = pipeline(tmp_path, address)
        printed = divcon(tmp_path, "evaluate", file)
    require_no_key(tmp_path, printed, (KEY, KEY[:9], KEY[-9:]))


def test_a_password_in_an_address_is_refused_and_not_shown(tmp_path: Path) -> None:
    address = "http://ada:p4ss%2Fw0rd@127.0.0.1:9/v1"
    forms = ("p4ss%2Fw0rd", "p4ss/w0rd")
    file = pipeline(tmp_path, address)
    other = "roles.teacher.model=anthropic/claude"
    printed = divcon(tmp_path, "collect", file) + divcon(tmp_path, "collect", file, "--set", other)
    printed += divcon(tmp_path, "doctor", file)
    printed += divcon(tmp_path, "collect", pipeline(tmp_path, "http://h"), "--set", f"roles.teacher.api_base={address}")
    assert printed.count("error:") == 4, printed
    require_no_key(tmp_path, printed, forms)


def test_serve_shows_no_password_of_an_address(tmp_path: Path) -> None:
    run = run_folder(tmp_path, "http://127.0.0.1:9/v1")
    for address in ("ftp://ada:p4ss-w0rd@h/v1", "http://ada:p4ss-w0rd@h/v1"):
        printed = divcon(tmp_path, "serve", "--run", run, "--url", address)
        assert "error:" in printed
        require_no_key(tmp_path, printed, ("p4ss-w0rd",))


def run_folder(folder: Path, address: str) -> Path:
    run = folder / "run"
    run.mkdir()
    file = pipeline(folder, address)
    file.write_text(file.read_text().replace("model: openai/t, ", "model: openai/t, adapter: chat, "))
    os.environ["PLANTED"] = KEY
    try:
        (run / "pipeline.json").write_text(load_pipeline(file).model_dump_json())
    finally:
        del os.environ["PLANTED"]
    return run


@pytest.mark.model
@pytest.mark.parametrize("status", [200, 400])
def test_an_mcp_client_is_told_no_key(tmp_path: Path, status: int) -> None:
    from mcp import ClientSession, StdioServerParameters
    from mcp.client.stdio import stdio_client

    async def talk(run: Path) -> Any:
        environment = {**os.environ, "PLANTED": KEY}
        command = StdioServerParameters(command=str(DIVCON), args=["mcp", "--run", str(run)], env=environment)
        async with stdio_client(command) as (read, write), ClientSession(read, write) as session:
            await session.initialize()
            return await session.call_tool("divide_and_conquer", {"question": "What is one and two?"})

    fields = f"[[ ## sub_answers ## ]]\n1. {KEY}\n\n[[ ## answer ## ]]\n{KEY}\n\n[[ ## completed ## ]]"
    with raw_server((lambda body: chat(fields)) if status == 200 else refusal(status)) as address:
        told = asyncio.run(talk(run_folder(tmp_path, address)))
    assert told.is_error == (status != 200)
    require_no_key(tmp_path, told.model_dump_json())
    assert (MASK in told.model_dump_json()) == (status == 200), "the protocol's library hides what an error says"


def make_echoing(arguments: dict[str, Any], store: RunStore) -> Callable[[Job], Trace]:
    """What does a worker's jobs; a row, a result and an error hold the key."""

    def do(job: Job) -> Trace:
        keep(store, job.item.id, f"the key is {KEY}")
        if job.item.question == "fails":
            raise OSError(f"{KEY} is wrong")
        return Trace(job.item.id, 0, (KEY,), reply=KEY)

    return do


@pytest.mark.parametrize("question", ["fails", "works"])
def test_a_worker_sends_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, question: str) -> None:
    monkeypatch.setenv("MY_API_KEY", KEY)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    RunStore(tmp_path / "run").close()
    worker = Worker(Recipe(f"{Path(__file__).stem}:make_echoing", {}), StoreLookup(tmp_path / "run"))
    sent = list(worker.do(pack_job(Job("collect", Item("i0", question, "1"))), "collect", ""))
    assert [kind for kind, _ in sent] == ["row", "error" if question == "fails" else "result"]
    assert all(MASK in text for _, text in sent)
    require_no_key(tmp_path, "".join(text for _, text in sent))


def test_the_store_keeps_rows_without_a_key_and_finds_them_by_what_they_were_stored_under(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_API_KEY", KEY)
    store = RunStore(tmp_path)
    trace = Trace("i0", 0, (f"What is {KEY}?",), "failed", f"detail {KEY}", f"reply {FORMS[1]}")
    store.keep_trace("c", 0, trace)
    store.keep_verdict("s", trace, False, "unsolved", f"said {KEY}")
    store.keep_outcome("cot", "k", 0, "i0", {"outcome": "failed", "error": KEY, KEY: [KEY], "seconds": 0.5})
    keep(store, "key", KEY)
    assert list(store.traces("c")) == [
        Trace("i0", 0, (f"What is {MASK}?",), "failed", f"detail {MASK}", f"reply {MASK}")
    ]
    assert store.verdicts("s") == {("i0", 0): (False, "unsolved")}
    assert store.outcomes("cot", "k") == {"i0": {"outcome": "failed", "error": MASK, MASK: [MASK], "seconds": 0.5}}
    assert store.reply("key").response["text"] == MASK
    require_no_key(tmp_path, "")
    store.close()


def test_a_result_s_key_depends_on_a_secret_and_doesnt_show_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [Key({"server": {"environment": one}}) for one in (KEY, "other")]
    digests = [key.digest for key in before]
    monkeypatch.setenv("MY_API_KEY", KEY)
    assert [key.digest for key in before] == digests
    assert digests[0] != digests[1]
    assert before[0].plain() == {"server": {"environment": MASK}}
    assert list(before[0].changes(before[0].plain())) == []


def test_mlflow_is_told_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from divcon.benchmarks import log_to_mlflow

    monkeypatch.setenv("MY_API_KEY", KEY)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    line = {
        "name": "cot",
        "accuracy": 1.0,
        "failed": 0,
        "cut_off": 0,
        "withheld": None,
        "ci95": [1.0, 1.0],
        "bill": None,
    }
    results = {"arms": [line], "teacher": {"model": KEY}, "solver": f"openai/{KEY}", "student_base": "b"}
    log_to_mlflow(f"file:{tmp_path / 'ml'}", "divcon", "a run", results, [])
    require_no_key(tmp_path, "")
