"""Servers that fail, stall, flood or lie: each call ends in a reply or a named error, soon and after few requests."""

import gzip
import itertools
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dspy
import pytest
from dspy.lm15 import Message, Request
from dspy.utils.exceptions import (
    LMError,
    LMInvalidRequestError,
    LMRateLimitError,
    LMServerError,
    LMTransportError,
    LMUnsupportedModelError,
)
from support.openai_server import OpenAIServer, Raw, Refused

from divcon.distill import (
    GivenUpError,
    LMBackend,
    Patience,
    ReplyTooLongError,
    RunStore,
    SlowServerError,
    StoredEngine,
    UnreadableReplyError,
    collect,
    overlapped,
    role_lm,
    watching,
)
from divcon.programs import Item, RolePredict
from divcon.signatures import Decompose

ENGINES = ["auto", "litellm"]


def backend(url: str, patience: Patience | None = None, retries: int = 0, engine: str = "auto", **more) -> LMBackend:
    inner = dspy.LM("openai/m", api_base=url, api_key="k", cache=False, num_retries=retries, engine=engine)
    return LMBackend(inner, patience, **more)


def request(text: str = "Q?") -> Request:
    return Request(model="openai/m", messages=(Message.user(text),))


def ask_all(asked: LMBackend, count: int, concurrency: int) -> list[tuple[str | None, Exception | None]]:
    """Ask so many questions as a station does; returns the text or the error of each."""
    jobs = [request(f"Q{n}?") for n in range(count)]
    ended = overlapped(lambda job: asked.complete(job, 0), jobs, concurrency)
    return [(reply.message.text if reply else None, error) for _, reply, error in ended]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes are sent a tenth of a second after the circuit has opened."""
    monkeypatch.setattr("divcon.distill._breaker._FIRST_PAUSE", 0.1)


# -- waiting -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_only_refuses_is_probed_and_given_up(soon: None, status: int) -> None:
    with OpenAIServer(lambda body: status) as server:
        asked = backend(server.url, Patience(give_up=1.5), retries=4)
        started = time.monotonic()
        with pytest.raises(GivenUpError, match="Given up after") as caught:
            ask_all(asked, 60, 8)
        assert time.monotonic() - started < 6
        assert len(server.requests) <= 8 + 5, "one of each call, and then a few probes"
    assert caught.value.server == server.url
    assert server.url in str(caught.value) and str(status) in str(caught.value)
    assert caught.value.seconds >= 1


def test_a_server_that_comes_back_is_asked_for_everything_and_no_call_fails(soon: None) -> None:
    with OpenAIServer(lambda body: 503 if len(server.requests) <= 10 else "7") as server:
        replies = ask_all(backend(server.url, retries=1), 20, 8)
        assert [text for text, _ in replies] == ["7"] * 20
        assert len(server.requests) <= 30


def test_a_server_that_was_never_there_is_given_up_sooner(soon: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("divcon.distill._breaker._NEVER_ANSWERED", 0.5)
    started = time.monotonic()
    with pytest.raises((GivenUpError, LMTransportError)):
        ask_all(backend("http://127.0.0.1:9/v1", retries=4), 60, 8)
    assert time.monotonic() - started < 5


def test_what_was_answered_is_kept_when_a_server_is_given_up(soon: None, tmp_path: Path, items: list[Item]) -> None:
    asked = itertools.count(1)
    with OpenAIServer(lambda body: "1. What is it?" if next(asked) <= 3 else 503) as server:
        engine = StoredEngine(
            backend(server.url, Patience(give_up=1.0), retries=4), "teacher", "openai/m", RunStore(tmp_path)
        )
        teacher = RolePredict(Decompose, "teacher", lm=role_lm(engine, temperature=None, max_tokens=None))
        with pytest.raises(GivenUpError):
            collect(teacher, items, RunStore(tmp_path), "c", concurrency=2)
    assert len(list(sqlite3.connect(tmp_path / "run.sqlite").execute("SELECT 1 FROM calls"))) == 3


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "said", ["86400", "1e300", "inf", "Fri, 31 Dec 2099 23:59:59 GMT", "-5", "nan", "soon", "", "0"]
)
def test_no_wish_of_a_server_makes_a_call_wait_for_long(engine: str, said: str) -> None:
    with OpenAIServer(lambda body: Refused(429, said)) as server:
        started = time.monotonic()
        with pytest.raises(LMRateLimitError):
            backend(server.url, retries=1, engine=engine).complete(request(), 0)
        assert time.monotonic() - started < 30
        assert len(server.requests) <= 2


def test_a_failing_server_that_wants_to_be_left_alone_for_a_day_is_not_asked_again() -> None:
    with OpenAIServer(lambda body: Refused(500, 86_400)) as server:
        with pytest.raises(LMServerError):
            ask_all(backend(server.url, retries=4), 20, 2)
        assert len(server.requests) <= 4


def test_the_retries_of_all_calls_are_a_share_of_the_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every second request fails, so that the circuit never opens, and each call would need a retry."""
    monkeypatch.setattr("divcon.distill._repeating._RESERVE", 2)
    monkeypatch.setattr("divcon.distill._repeating._LONGEST_PAUSE", 0.01)
    with OpenAIServer(lambda body: 500 if len(server.requests) % 2 else "7") as server:
        replies = ask_all(backend(server.url, retries=4, retry_share=0.25), 40, 1)
        assert len(server.requests) <= 40 * 1.25 + 2
        assert sum(error is None for _, error in replies) >= 20


def test_a_slow_server_is_not_asked_again_for_what_it_is_working_on() -> None:
    """Twelve whole replies share 160 tokens a second, and the server goes on with those that nobody waits for."""
    with OpenAIServer(lambda body: "a" * 120, rate=160, stream="refuses") as server:
        asked = backend(server.url, Patience(first_token=1.5, silence=1.5), retries=4)
        assert [error for _, error in ask_all(asked, 20, 12)] == [None] * 20
        wholes = [body for body in server.requests if not body.get("stream")]
        assert len(wholes) <= 12 + 20 + 4


def test_who_has_no_token_waits_while_others_tokens_come() -> None:
    def reply(body: dict) -> str:
        if "Q0?" in str(body):
            time.sleep(1.2)
            return "seven"
        return "7" if "first" in str(body) else "a" * 180  # 60 tokens in 1.5 s

    with OpenAIServer(reply, rate=40) as server:
        asked = backend(server.url, Patience(first_token=0.6, silence=0.6), retries=2)
        asked.complete(request("first"), 0)  # it shows that the server streams
        assert [error for _, error in ask_all(asked, 2, 2)] == [None, None]
        assert len(server.requests) == 3


def drip(head: bytes, piece: bytes) -> Iterator[bytes]:
    yield head
    for _ in range(400):
        time.sleep(0.05)
        yield piece


DRIPS = {
    "body": (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9000\r\n\r\n", b" "),
    "head": (b"HTTP/1.1 200 OK\r\n", b"X"),
    "empty chunks": (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", b"\n"),
    "comments": (b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n", b": ping\n\n"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", DRIPS)
def test_single_bytes_are_no_tokens(engine: str, kind: str) -> None:
    with OpenAIServer(lambda body: Raw(drip(*DRIPS[kind]))) as server, pytest.raises(SlowServerError):
        backend(server.url, Patience(first_token=0.6), engine=engine).complete(request(), 0)


def test_it_is_said_when_a_failing_server_is_asked_again_and_when_it_is_given_up(soon: None) -> None:
    said: set[str] = set()
    with OpenAIServer(lambda body: 503) as server, watching() as traffic:
        asked = backend(server.url, Patience(give_up=1.0), retries=4)

        def work(job: Request) -> None:
            with traffic.call():
                asked.complete(job, 0)

        def listen() -> None:
            while not over.wait(0.01):
                said.update(traffic.said(8))

        over = threading.Event()
        listening = threading.Thread(target=listen)
        listening.start()
        with pytest.raises(GivenUpError):
            list(overlapped(work, [request(f"Q{n}?") for n in range(8)], 8))
        over.set()
        listening.join()
    assert any(text.startswith(f"{server.url} is asked again at ") and ", given up at " in text for text in said)
    assert any(text.endswith("wait after 503") for text in said)


# -- what a reply may hold -----------------------------------------------------------------------------------------

JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def chunk(text: str) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    said = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
    return f"data: {json.dumps(said)}\n\n".encode()


def for_ever(head: bytes, piece: bytes) -> Iterator[bytes]:
    yield head
    while True:
        yield piece


def whole(text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return json.dumps(
        {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    ).encode()


def packed(text: str) -> bytes:
    data = gzip.compress(whole(text))
    return JSON + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(data) + data


FLOODS: dict[str, Callable[[], Iterator[bytes]]] = {
    "length": lambda: iter([JSON + b"Content-Length: 50000000\r\n\r\n", b" " * 50_000_000]),
    "spaces": lambda: for_ever(JSON + b"\r\n", b" " * 65_536),
    "compressed": lambda: iter([packed("a" * 20_000_000)]),
    "tokens": lambda: for_ever(SSE, chunk("a" * 1000) * 50),
    "no tokens": lambda: for_ever(SSE, chunk("") * 500),
    "line": lambda: for_ever(SSE, b"a" * 65_536),
    "error": lambda: for_ever(JSON.replace(b"200 OK", b"400 Bad Request") + b"\r\n", b" " * 65_536),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", FLOODS)
def test_a_reply_over_the_limit_is_cut_off_and_not_asked_again(engine: str, kind: str) -> None:
    with OpenAIServer(lambda body: Raw(FLOODS[kind]())) as server:
        with pytest.raises(ReplyTooLongError, match="more than 200,000 bytes"):
            backend(server.url, retries=3, engine=engine, most_bytes=200_000).complete(request(), 0)
        assert len(server.requests) == 1
        for _ in range(100):
            if not server.busy:
                break
            time.sleep(0.05)
        assert server.busy == 0, "the connection is closed"
        assert server.sent < 30_000_000


def test_the_limit_grows_with_the_tokens_that_a_reply_may_have() -> None:
    with OpenAIServer(lambda body: "a" * 1_200_000, stream="refuses") as server:
        inner = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, num_retries=0)
        with pytest.raises(ReplyTooLongError, match="more than 1,000,000 bytes"):
            LMBackend(inner).complete(request(), 0)
        assert LMBackend(inner.copy(max_tokens=100_000)).complete(request(), 0).message.text == "a" * 1_200_000


# -- replies that are none -----------------------------------------------------------------------------------------


def reply(status: str, body: str, *headers: str) -> Raw:
    head = "".join(f"{header}\r\n" for header in headers)
    return Raw([f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n{body}".encode()])


NO_REPLIES = {
    "page": reply("200 OK", "<html>Sign in</html>", "Content-Type: text/html"),
    "cut off": reply("200 OK", '{"id": "x", "choices": [', "Content-Type: application/json"),
    "list": reply("200 OK", "[1, 2]", "Content-Type: application/json"),
    "nothing": reply("200 OK", "", "Content-Type: application/json"),
    "broken chunk": Raw([SSE, chunk("a"), b"data: {oops\n\n"]),
    "packed twice": reply("200 OK", "xx", "Content-Encoding: gzip, gzip"),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", NO_REPLIES)
def test_what_is_no_reply_is_an_error_of_its_own_and_not_asked_again(engine: str, kind: str) -> None:
    with OpenAIServer(lambda body: NO_REPLIES[kind]) as server:
        with pytest.raises(UnreadableReplyError) as caught:
            backend(server.url, retries=3, engine=engine).complete(request(), 0)
        assert len(server.requests) <= 2, "once for a stream, and once for a whole reply"
    if kind == "page":
        assert "Sign in" in str(caught.value)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("status", ["301 Moved", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_a_redirect_is_not_followed_with_the_key(engine: str, status: str) -> None:
    with OpenAIServer(lambda body: "7") as other:
        away = reply(status, "", f"Location: {other.url}/chat/completions")
        with OpenAIServer(lambda body: away) as server, pytest.raises(UnreadableReplyError, match="redirects to"):
            backend(server.url, engine=engine).complete(request(), 0)
        assert other.requests == []


# -- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        (Refused(400, message="Unsupported value: 'temperature' does not support 0.7"), LMInvalidRequestError),
        (Refused(422, message="unknown parameter top_k"), LMInvalidRequestError),
        (Refused(404, message="The model `m` does not exist"), LMError),
        (NO_REPLIES["page"], UnreadableReplyError),
    ],
)
def test_a_station_ends_where_all_its_calls_are_refused_alike(refused: Refused | Raw, kind: type[LMError]) -> None:
    with OpenAIServer(lambda body: refused) as server:
        with pytest.raises(kind):
            ask_all(backend(server.url, retries=4), 60, 2)
        assert len(server.requests) <= 2 * 5


def test_a_model_that_is_not_there_ends_a_station_at_once() -> None:
    with OpenAIServer(lambda body: Refused(404, message="The model `m` does not exist")) as server:
        with pytest.raises(LMUnsupportedModelError):
            ask_all(backend(server.url, engine="litellm"), 60, 1)
        assert len(server.requests) <= 2


def test_a_station_goes_on_where_some_calls_are_refused_or_all_differently() -> None:
    with OpenAIServer(lambda body: 400 if "Q0?" not in str(body) else "7") as server:
        assert sum(error is not None for _, error in ask_all(backend(server.url), 6, 1)) == 5
    letters = iter("abcdef" * 2)
    with OpenAIServer(lambda body: Refused(400, message=f"no {next(letters)}"), stream="ignores") as server:
        assert len(ask_all(backend(server.url), 3, 1)) == 3
    too_long = Refused(400, message="This model's maximum context length is 4096 tokens")
    with OpenAIServer(lambda body: "7" if "Q4?" in str(body) or "Q5?" in str(body) else too_long) as server:
        assert [text for text, _ in ask_all(backend(server.url), 6, 1)] == [None] * 4 + ["7"] * 2


# -- connections ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_that_closes_each_connection_unsaid_is_asked_on_a_new_one(engine: str) -> None:
    said = Raw([JSON + b"Content-Length: %d\r\n\r\n" % len(whole("7")) + whole("7")])
    with OpenAIServer(lambda body: said) as server:
        asked = backend(server.url, retries=2, engine=engine)
        assert [asked.complete(request(f"Q{n}?"), 0).message.text for n in range(4)] == ["7"] * 4


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_that_resets_a_connection_is_asked_again(engine: str) -> None:
    lost = Raw([JSON + b"Content-Length: 5000\r\n\r\n{"])
    with OpenAIServer(lambda body: lost if len(server.requests) == 1 else "7") as server:
        assert backend(server.url, retries=2, engine=engine).complete(request(), 0).message.text == "7"


def test_a_server_that_is_started_anew_is_asked_again(soon: None) -> None:
    with OpenAIServer(lambda body: "7") as server:
        asked = backend(server.url, retries=4)
        assert asked.complete(request("Q0?"), 0).message.text == "7"
        port = server._server.server_address[1]
    again = OpenAIServer(lambda body: "8", port=port)
    starting = threading.Timer(0.7, again.__enter__)
    starting.start()
    try:
        assert [text for text, _ in ask_all(asked, 8, 4)] == ["8"] * 8
    finally:
        starting.join()
        again.__exit__()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("url", ["http://127.0.0.1:9/v1", "http://no-such-host.invalid/v1"])
def test_a_server_that_is_not_there_cannot_be_reached_whatever_the_client(engine: str, url: str) -> None:
    with pytest.raises(LMTransportError, match=r"can't be reached.*Start it, or correct its api_base"):
        backend(url, engine=engine).complete(request(), 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_tls_to_a_plain_port_cannot_be_reached(engine: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            while True:
                try:
                    connection, _ = plain.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(LMTransportError, match="can't be reached"):
            backend(f"https://127.0.0.1:{plain.getsockname()[1]}/v1", engine=engine).complete(request(), 0)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_may_be_at_an_address_of_ipv6(engine: str, tmp_path: Path) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with OpenAIServer(lambda body: "7", host="::1") as server:
        assert backend(server.url, engine=engine).complete(request(), 0).message.text == "7"
