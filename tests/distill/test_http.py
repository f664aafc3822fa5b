"""An LM over HTTP: streaming, time limits and retries."""

import asyncio
import sqlite3
import time
from pathlib import Path

import dspy
import pytest
from dspy.lm15 import Config, Message, Request
from dspy.utils.exceptions import LMInvalidRequestError, LMRateLimitError, LMServerError, LMTransportError
from support.openai_server import USAGE, BrokenOff, OpenAIServer, Refused, Silence

from divcon.distill import (
    LMBackend,
    Patience,
    RunStore,
    SlowServerError,
    StoredEngine,
    collect,
    overlapped,
    role_lm,
    watching,
)
from divcon.programs import Item, RolePredict
from divcon.signatures import Answer, Decompose

ENGINES = ["auto", "litellm"]


def backend(
    server: OpenAIServer, patience: Patience | None = None, retries: int = 0, engine: str = "auto"
) -> LMBackend:
    inner = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, num_retries=retries, engine=engine)
    return LMBackend(inner, patience)


def request(text: str = "Q?", **config) -> Request:
    return Request(model="openai/m", messages=(Message.user(text),), config=Config(**config))


def stored(server: OpenAIServer, folder: Path) -> dict:
    """The one reply as the run store has it, but for when it was made."""
    made = StoredEngine(backend(server), "solver", "openai/m", RunStore(folder), identity="m")
    lm = role_lm(made, temperature=None, max_tokens=None)
    RolePredict("question -> text", "solver", lm=lm)(question="Q?")
    columns = "key, role, request, rollout, response, input_tokens, output_tokens, cached_tokens, cost"
    (row,) = sqlite3.connect(folder / "run.sqlite").execute(f"SELECT {columns} FROM calls").fetchall()
    return dict(zip(columns.split(", "), row, strict=True))


@pytest.mark.parametrize("reply", ["seven plums, I think", ("seven plu", "length")])
def test_what_is_stored_of_a_stream_is_what_is_stored_of_a_whole_reply(
    tmp_path: Path, reply: str | tuple[str, str]
) -> None:
    usage = {**USAGE, "prompt_tokens_details": {"cached_tokens": 4}}
    found = {}
    for stream in ("gives", "refuses"):
        with OpenAIServer(lambda body: reply, stream=stream, usage=usage) as server:
            found[stream] = stored(server, tmp_path / stream)
            assert server.requests[0]["stream"] is True
            assert server.requests[0]["stream_options"] == {"include_usage": True}
    assert found["gives"] == found["refuses"]
    assert (found["gives"]["output_tokens"], found["gives"]["cached_tokens"]) == (5, 4)


def test_a_stream_that_does_not_say_what_it_used_leaves_it_unknown(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: "7", usage=None) as server:
        found = stored(server, tmp_path)
    assert (found["input_tokens"], found["output_tokens"], found["cost"]) == (None, None, None)


@pytest.mark.parametrize("stream", ["refuses", "ignores"])
def test_a_server_that_cannot_stream_is_asked_for_a_stream_once(stream: str) -> None:
    with OpenAIServer(lambda body: "7", stream=stream) as server:
        asked = backend(server)
        jobs = [request(f"Q{n}?") for n in range(8)]
        replies = [reply for _, reply, _ in overlapped(lambda job: asked.complete(job, 0), jobs, 8)]
        assert [reply.message.text for reply in replies if reply] == ["7"] * 8
        assert [bool(body.get("stream")) for body in server.requests] == [True] + [False] * 8


def test_a_server_that_streams_no_more_is_found_out_again() -> None:
    """Another server may have come to the address of one that streamed."""
    with OpenAIServer(lambda body: "7") as server:
        asked = backend(server, retries=1)
        assert asked.complete(request("Q1?"), 0).message.text == "7"
        server.stream = "ignores"
        assert [asked.complete(request(f"Q{n}?"), 0).message.text for n in (2, 3)] == ["7"] * 2
        assert [bool(body.get("stream")) for body in server.requests] == [True, True, True, False, False]


def test_a_server_that_comes_to_refuse_streams_is_asked_without_one() -> None:
    with OpenAIServer(lambda body: "7") as server:
        asked = backend(server)
        assert asked.complete(request("Q1?"), 0).message.text == "7"
        server.stream = "refuses"
        assert [asked.complete(request(f"Q{n}?"), 0).message.text for n in (2, 3)] == ["7"] * 2
        assert [bool(body.get("stream")) for body in server.requests] == [True, True, False, False]


def test_a_request_that_is_refused_is_not_taken_for_a_refused_stream() -> None:
    with OpenAIServer(lambda body: 400 if "bad" in str(body["messages"]) else "7") as server:
        asked = backend(server)
        assert asked.complete(request("good"), 0).message.text == "7"
        with pytest.raises(LMInvalidRequestError):
            asked.complete(request("bad"), 0)
        assert asked.complete(request("good again"), 0).message.text == "7"
        assert [body.get("stream") for body in server.requests] == [True] * 3


def test_a_slow_server_is_waited_for_and_nothing_is_asked_twice(tmp_path: Path, items: list[Item]) -> None:
    """Twelve replies of forty tokens share 160 tokens a second: each takes three seconds, twice what is allowed for a
    token."""
    with OpenAIServer(lambda body: "1. What is said " + "a" * 103 + "?", rate=160) as server:
        asked = backend(server, Patience(silence=1.5), retries=4)
        made = StoredEngine(asked, "teacher", "openai/m", RunStore(tmp_path))
        teacher = RolePredict(Decompose, "teacher", lm=role_lm(made, temperature=None, max_tokens=None))
        started = time.monotonic()
        found = collect(teacher, items[:12], RunStore(tmp_path), "c", concurrency=12)
        assert time.monotonic() - started > 2.5
        assert (found.failed, len(server.requests)) == (0, 12)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("keep_alive", [True, False])
def test_a_server_that_never_gives_a_token_is_not_waited_for(engine: str, keep_alive: bool) -> None:
    with OpenAIServer(lambda body: Silence(keep_alive=keep_alive)) as server:
        asked = backend(server, Patience(first_token=0.3), engine=engine)
        with pytest.raises(SlowServerError, match=r"no token within 0.3 s") as caught:
            asked.complete(request(), 0)
        assert (caught.value.limit, caught.value.mute) == ("first_token", True)


def test_silence_between_tokens_has_a_limit_of_its_own() -> None:
    with OpenAIServer(lambda body: Silence(after=3)) as server:
        asked = backend(server, Patience(silence=0.3))
        with pytest.raises(SlowServerError, match=r"no token for 0.3 s, after 3.*Raise timeout") as caught:
            asked.complete(request(), 0)
        assert (caught.value.limit, caught.value.mute) == ("silence", False)


def test_a_server_that_never_ends_is_ended() -> None:
    with OpenAIServer(lambda body: "for ever " * 10_000, rate=100) as server:
        with pytest.raises(SlowServerError, match=r"no end after 0.5 s") as caught:
            backend(server, Patience(longest=0.5)).complete(request(), 0)
        assert caught.value.limit == "longest"


def test_what_cannot_stream_has_to_be_whole_in_the_time_for_a_first_token() -> None:
    with OpenAIServer(lambda body: Silence(), stream="refuses") as server:
        with pytest.raises(SlowServerError, match="no token within"):
            backend(server, Patience(first_token=0.3)).complete(request(), 0)
        assert [bool(body.get("stream")) for body in server.requests] == [True, False]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_server_is_left_alone_for_as_long_as_it_says(engine: str) -> None:
    answers = iter([Refused(429, retry_after=0.4), "7", "8"])
    with OpenAIServer(lambda body: next(answers)) as server:
        asked = backend(server, retries=1, engine=engine)
        assert asked.complete(request(), 0).message.text == "7"
        assert server.at[1] - server.at[0] >= 0.4
        assert asked.pace.limit < 100


def test_others_wait_too_and_it_is_said_why(tmp_path: Path) -> None:
    answers = iter([Refused(429, retry_after=1.0), "7", "8"])
    with OpenAIServer(lambda body: next(answers)) as server, watching() as traffic:
        made = StoredEngine(backend(server, retries=1), "solver", "openai/m", RunStore(tmp_path))
        lm = role_lm(made, temperature=None, max_tokens=None)
        work = overlapped(lambda n: RolePredict(Answer, "solver", lm=lm)(question=f"Q{n}?"), range(2), 2)
        said: set[str] = set()

        async def listen() -> list:
            working = asyncio.ensure_future(asyncio.to_thread(list, work))
            while not working.done():
                said.update(traffic.said(2))
                await asyncio.sleep(0.02)
            return await working

        assert all(error is None for _, _, error in asyncio.run(listen()))
        assert "2 wait after 429 (the server says 1 s)" in said
        assert len(server.requests) == 3
        assert min(server.at[1:]) - server.at[0] >= 1.0


def test_a_server_that_wants_to_be_left_alone_for_long_ends_the_station(tmp_path: Path, items: list[Item]) -> None:
    with OpenAIServer(lambda body: Refused(429, retry_after=3600)) as server:
        made = StoredEngine(backend(server, retries=4), "teacher", "openai/m", RunStore(tmp_path))
        teacher = RolePredict(Decompose, "teacher", lm=role_lm(made, temperature=None, max_tokens=None))
        with pytest.raises(LMRateLimitError, match="overloaded: it answers 429 and says to wait 3600 s"):
            collect(teacher, items, RunStore(tmp_path), "c", concurrency=4)
        assert len(server.requests) <= 8


def test_an_overloaded_server_ends_no_station(tmp_path: Path, items: list[Item]) -> None:
    """Four at a time are refused, two aren't: the pace finds that out, and all are answered."""
    with OpenAIServer(lambda body: "1. What is it?" if server.busy <= 2 else Refused(503, 0.05), delay=0.1) as server:
        made = StoredEngine(backend(server, retries=8), "teacher", "openai/m", RunStore(tmp_path))
        teacher = RolePredict(Decompose, "teacher", lm=role_lm(made, temperature=None, max_tokens=None))
        found = collect(teacher, items, RunStore(tmp_path), "c", concurrency=8)
        assert found.failed == 0


def test_a_request_is_repeated_as_often_as_the_setting_says() -> None:
    with OpenAIServer(lambda body: 503) as server:
        with pytest.raises(LMServerError, match="overloaded: it answers 503"):
            backend(server, retries=1).complete(request(), 0)
        assert len(server.requests) == 2


def test_a_reply_that_breaks_off_is_asked_again() -> None:
    answers = iter([BrokenOff(3), "7"])
    with OpenAIServer(lambda body: next(answers)) as server:
        assert backend(server, retries=1).complete(request(), 0).message.text == "7"
    with OpenAIServer(lambda body: BrokenOff(3)) as server, pytest.raises(LMTransportError, match="broke off"):
        backend(server).complete(request(), 0)


def test_awaited_it_is_the_same() -> None:
    with OpenAIServer(lambda body: "7") as server:
        asked = backend(server)
        whole, awaited = asked.complete(request(), 0), asyncio.run(asked.acomplete(request(), 0))
        assert (awaited.message, awaited.usage, awaited.id) == (whole.message, whole.usage, whole.id)


def test_a_call_that_is_cancelled_is_ended_at_the_server_too() -> None:
    with OpenAIServer(lambda body: Silence()) as server:
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(backend(server).acomplete(request(), 0), 0.3))
        for _ in range(100):
            if not server.busy:
                break
            time.sleep(0.05)
        assert server.busy == 0


def test_a_timeout_of_the_lm_is_the_limit_for_everything() -> None:
    with OpenAIServer(lambda body: "7") as server:
        inner = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, timeout=30)
        assert LMBackend(inner).patience == Patience(30, 30, 30)
        assert LMBackend(inner).complete(request(), 0).message.text == "7"


def test_likelihoods_of_tokens_come_out_of_a_stream_as_out_of_a_whole_reply() -> None:
    found = {}
    for stream in ("gives", "refuses"):
        with OpenAIServer(lambda body: "seven plums", stream=stream) as server:
            found[stream] = backend(server).complete(request(logprobs=0), 0).logprobs
            assert server.requests[0]["logprobs"] is True
    assert found["gives"] == found["refuses"]
    assert [token.token for token in found["gives"]] == ["sev", "en ", "plu", "ms"]
