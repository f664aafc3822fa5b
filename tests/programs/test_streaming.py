"""One streamed program for several users: every call streams, and none shows the text of another."""

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import dspy
import pytest
from support.openai_server import BrokenOff, OpenAIServer, fields_asked, in_fields, user_text

from divcon.distill import Base, RunStore
from divcon.distill._engine import StoredEngine, role_lm
from divcon.distill._http import LMBackend
from divcon.distill._provider import embedded_lm
from divcon.programs import ChatAdapter, CompactAdapter, DivideAndConquer, FieldListener, RolePredict

USERS = ("ann", "bob", "cyd", "dan")
ADAPTERS: dict[str, Callable[[], dspy.Adapter]] = {"compact": CompactAdapter, "chat": ChatAdapter}
SPLIT = "1. What is {0} one?\n2. What is {0} two?"
STEPS = "1. {0} is one\n2. {0} is two"


def question(user: str) -> str:
    return f"What is {user} in all?"


def reply(body: dict[str, Any]) -> str:
    text = user_text(body)
    user = next(user for user in USERS if f"What is {user}" in text)
    fields = fields_asked(body)
    if fields == ["subquestions"]:
        return in_fields(subquestions=SPLIT.format(user), completed="")
    if fields == ["sub_answers", "answer"]:
        return in_fields(sub_answers=STEPS.format(user), answer=f"{user}s", completed="")
    if "Split the question" in body["messages"][0]["content"]:
        return SPLIT.format(user)
    if "subquestion, using the steps" in body["messages"][0]["content"]:
        return re.findall(r"What is ([\w ]+)\?", text)[-1]
    return f"{STEPS.format(user)}\nAnswer: {user}s"


class Screen:
    """What one user sees."""

    def __init__(self) -> None:
        self.shown: dict[str, list[dspy.streaming.StreamResponse]] = {}
        self.final: dspy.Prediction | None = None

    def add(self, piece: Any) -> None:
        if isinstance(piece, dspy.streaming.StreamResponse):
            self.shown.setdefault(piece.signature_field_name, []).append(piece)
        elif isinstance(piece, dspy.Prediction):
            self.final = piece

    def texts(self) -> dict[str, str]:
        return {name: "".join(piece.chunk for piece in pieces) for name, pieces in self.shown.items()}

    def ends(self) -> dict[str, int]:
        return {name: sum(piece.is_last_chunk for piece in pieces) for name, pieces in self.shown.items()}


def read(streamed: Callable[..., Iterable[Any]], asked: str) -> Screen:
    screen = Screen()
    for piece in streamed(question=asked):
        screen.add(piece)
    return screen


async def aread(streamed: Callable[..., AsyncIterator[Any]], asked: str) -> Screen:
    screen = Screen()
    async for piece in streamed(question=asked):
        screen.add(piece)
    return screen


def in_threads(program: dspy.Module, listeners: list[FieldListener], asked: list[str]) -> list[Screen]:
    streamed = dspy.streamify(program, stream_listeners=listeners, async_streaming=False)
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda one: read(streamed, one), asked))


def on_one_loop(
    program: dspy.Module, listeners: list[FieldListener], asked: list[str], awaited: bool = False
) -> list[Screen]:
    streamed = dspy.streamify(program, stream_listeners=listeners, is_async_program=awaited)

    async def main() -> list[Screen]:
        return await asyncio.gather(*(aread(streamed, one) for one in asked))

    return asyncio.run(main())


def one_by_one(program: dspy.Module, listeners: list[FieldListener], asked: list[str]) -> list[Screen]:
    streamed = dspy.streamify(program, stream_listeners=listeners, async_streaming=False)
    return [read(streamed, one) for one in asked]


def awaited(program: dspy.Module, listeners: list[FieldListener], asked: list[str]) -> list[Screen]:
    return on_one_loop(program, listeners, asked, awaited=True)


WAYS = [in_threads, on_one_loop, awaited, one_by_one]


def fields() -> list[FieldListener]:
    return [FieldListener(name) for name in ("subquestions", "sub_answers", "answer")]


def http(server: OpenAIServer, name: str) -> dspy.LM:
    return dspy.LM(f"openai/{name}", api_base=server.url, api_key="k", cache=False)


def stored(server: OpenAIServer, role: str, store: RunStore) -> dspy.LM:
    engine = StoredEngine(LMBackend(http(server, role)), role, f"openai/{role}", store)
    return role_lm(engine, temperature=0.0, max_tokens=200)


def require_own(screens: list[Screen], users: Iterable[str]) -> None:
    for screen, user in zip(screens, users, strict=True):
        expected = {"subquestions": SPLIT.format(user), "sub_answers": STEPS.format(user), "answer": f"{user}s"}
        assert screen.texts() == expected
        assert screen.ends() == {"subquestions": 1, "sub_answers": 1, "answer": 1}
        assert screen.final is not None and screen.final.answer == f"{user}s"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("adapter", ["compact", "chat"])
def test_every_user_of_one_program_sees_the_own_reply_as_it_is_written(adapter: str, way: Callable) -> None:
    with OpenAIServer(reply, rate=600) as server:
        program = DivideAndConquer(http(server, "small"), http(server, "large"), adapter=ADAPTERS[adapter]())
        screens = way(program, fields(), [question(user) for user in USERS])
    require_own(screens, USERS)
    assert all(len(screen.shown["subquestions"]) > 3 for screen in screens), "piece by piece, not at the end"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("adapter", ["compact", "chat"])
def test_replies_that_are_stored_are_shown_now_and_later(adapter: str, way: Callable, tmp_path: Path) -> None:
    with OpenAIServer(reply, delay=0.02) as server, closing(RunStore(tmp_path)) as store:
        program = DivideAndConquer(
            stored(server, "decomposer", store), stored(server, "solver", store), adapter=ADAPTERS[adapter]()
        )
        listeners, asked = fields(), [question(user) for user in USERS]
        require_own(way(program, listeners, asked), USERS)
        sent = len(server.requests)
        require_own(way(program, listeners, asked), USERS)
        assert len(server.requests) == sent == 2 * len(USERS)


@pytest.mark.parametrize("way", [in_threads, on_one_loop, awaited])
def test_equal_requests_share_a_call_and_each_user_sees_its_text(way: Callable, tmp_path: Path) -> None:
    with OpenAIServer(reply, delay=0.3) as server, closing(RunStore(tmp_path)) as store:
        program = DivideAndConquer(stored(server, "decomposer", store), stored(server, "solver", store))
        require_own(way(program, fields(), [question("ann")] * 4), ["ann"] * 4)
        assert len(server.requests) == 2


@pytest.mark.parametrize("program_is_awaited", [True, False])
def test_a_user_who_leaves_takes_nothing_from_those_with_the_same_question(
    program_is_awaited: bool, tmp_path: Path
) -> None:
    async def main(streamed: Callable[..., AsyncIterator[Any]]) -> list[Screen]:
        users = [asyncio.create_task(aread(streamed, question("ann"))) for _ in range(4)]
        await asyncio.sleep(0.1)  # the first one's request is on its way, and the others wait for it
        users[0].cancel()
        return await asyncio.gather(*users[1:])

    with OpenAIServer(reply, delay=0.3) as server, closing(RunStore(tmp_path)) as store:
        program = DivideAndConquer(stored(server, "decomposer", store), stored(server, "solver", store))
        streamed = dspy.streamify(program, stream_listeners=fields(), is_async_program=program_is_awaited)
        require_own(asyncio.run(main(streamed)), ["ann"] * 3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("solving", ["stepwise", "dag"])
def test_a_predictor_called_several_times_shows_every_call_on_its_own(solving: Any, way: Callable) -> None:
    def refers(body: dict[str, Any]) -> str:
        text = reply(body)  # the first two subquestions are asked together in `dag`
        return f"{text}\n3. What is #1 and #2?" if text.startswith("1. What") else text

    with OpenAIServer(refers, rate=600) as server:
        program = DivideAndConquer(http(server, "small"), http(server, "large"), solving=solving)
        screens = way(program, [FieldListener("sub_answer", allow_reuse=True)], [question(user) for user in USERS])
    for screen, user in zip(screens, USERS, strict=True):
        *independent, third, last = calls(screen)
        assert sorted(independent) == [f"{user} one", f"{user} two"]
        assert user in third
        assert last == f"{user} in all"


def calls(screen: Screen) -> list[str]:
    """The texts of a field, one a call."""
    found = [""]
    for piece in screen.shown["sub_answer"]:
        found[-1] += piece.chunk
        if piece.is_last_chunk:
            found.append("")
    return found[:-1]


def test_the_first_call_alone_is_shown_to_every_user_where_reuse_is_not_asked_for() -> None:
    with OpenAIServer(reply) as server:
        program = DivideAndConquer(http(server, "small"), http(server, "large"), solving="stepwise")
        screens = one_by_one(program, [FieldListener("sub_answer")], [question(user) for user in USERS])
    assert [screen.texts()["sub_answer"] for screen in screens] == [f"{user} one" for user in USERS]


def test_a_pinned_adapter_of_dspy_shows_a_stored_reply(tmp_path: Path) -> None:
    def in_json(body: dict[str, Any]) -> str:
        return '{"steps": "one, then \\"two\\"", "total": "three"}'

    with OpenAIServer(in_json) as server, closing(RunStore(tmp_path)) as store:
        predict = RolePredict(
            "question -> steps, total", "solver", lm=stored(server, "solver", store), adapter=dspy.JSONAdapter()
        )
        listeners = [FieldListener(name, predict, "solver") for name in ("steps", "total")]
        for screen in one_by_one(predict, listeners, ["What?"] * 2):
            assert set(screen.texts()) == {"steps", "total"} and "two" in screen.texts()["steps"]
            assert screen.ends() == {"steps": 1, "total": 1}
            assert screen.final is not None and screen.final.total == "three"
        assert len(server.requests) == 1


def test_a_call_that_breaks_off_leaves_nothing_to_the_next_user() -> None:
    begun = threading.Event()

    def breaks_once(body: dict[str, Any]) -> Any:
        if begun.is_set():
            return reply(body)
        begun.set()
        return BrokenOff(5)

    with OpenAIServer(breaks_once) as server:
        lm = dspy.LM("openai/small", api_base=server.url, api_key="k", cache=False, num_retries=0)
        program = DivideAndConquer(lm, http(server, "large"))
        listeners = fields()
        streamed = dspy.streamify(program, stream_listeners=listeners, async_streaming=False)
        with pytest.raises(dspy.LMError):
            read(streamed, question("ann"))
        require_own([read(streamed, question("bob"))], ["bob"])


def test_a_listener_of_dspy_and_a_plain_predictor_stream_as_without_roles() -> None:
    class Both(dspy.Module):
        def __init__(self, lm: dspy.LM) -> None:
            super().__init__()
            self.role = RolePredict("question -> one, two", "solver", lm=lm, adapter=ChatAdapter())
            self.plain = dspy.Predict("question -> three")
            self.plain.lm = lm

        def forward(self, question: str) -> dspy.Prediction:
            return dspy.Prediction(**self.role(question=question), **self.plain(question=question))

    def numbers(body: dict[str, Any]) -> str:
        return in_fields(**{name: f"It is number {name}." for name in fields_asked(body)}, completed="")

    with OpenAIServer(numbers) as server:
        listeners = [FieldListener("one"), dspy.streaming.StreamListener("two"), FieldListener("three")]
        [screen] = one_by_one(Both(http(server, "small")), listeners, ["What?"])
    assert screen.texts() == {name: f"It is number {name}." for name in ("one", "two", "three")}
    assert screen.ends() == {"one": 1, "two": 1, "three": 1}


@pytest.mark.parametrize("way", WAYS)
def test_the_embedded_engine_shows_every_user_the_own_reply(way: Callable, tiny_base: Base) -> None:
    predict = RolePredict(
        "question -> text", "solver", lm=embedded_lm(str(tiny_base.path), temperature=1.0, max_tokens=24)
    )
    asked = [question(user) for user in USERS]
    screens = way(predict, [FieldListener("text")], asked)
    for screen, one in zip(screens, asked, strict=True):
        assert screen.texts() == {"text": predict(question=one).text}
    assert len({screen.texts()["text"] for screen in screens}) > 1
