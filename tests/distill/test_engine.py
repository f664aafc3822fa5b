import asyncio
import copy
import itertools
import threading
from pathlib import Path

import dspy
import pytest
from dspy.lm15 import Message, Response, TextPart, Usage
from support.openai_server import OpenAIServer

from divcon.distill import (
    LMBackend,
    RunStore,
    StoredEngine,
    StoreError,
    at_station,
    booked_to,
    collect,
    role_lm,
)
from divcon.programs import RolePredict
from divcon.signatures import Answer, Decompose


def counting():
    numbers = itertools.count(1)
    lock = threading.Lock()

    def reply(body: dict) -> str:
        with lock:
            return str(next(numbers))

    return reply


def stored_lm(server: OpenAIServer, folder: Path, retries: int = 0, **kwargs) -> dspy.LM:
    inner = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, num_retries=retries)
    engine = StoredEngine(LMBackend(inner), "solver", "openai/m", RunStore(folder), **kwargs)
    return role_lm(engine, temperature=None, max_tokens=None)


def ask(lm: dspy.LM, question: str = "Q?", **config) -> str:
    return RolePredict(Answer, "solver", lm=lm)(question=question, config=config).answer


def test_the_same_question_is_asked_once_also_by_another_process(tmp_path: Path) -> None:
    with OpenAIServer(counting()) as server:
        assert ask(stored_lm(server, tmp_path)) == ask(stored_lm(server, tmp_path)) == "1"
        assert len(server.requests) == 1


def test_five_candidates_are_five_calls_and_again_none(tmp_path: Path) -> None:
    with OpenAIServer(counting()) as server:

        def five() -> list[str]:
            predict = RolePredict(Answer, "solver", lm=stored_lm(server, tmp_path))
            return list(predict(question="Q?", config={"n": 5, "temperature": 1.0}).completions.answer)

        first = five()
        assert sorted(first) == ["1", "2", "3", "4", "5"]
        assert five() == first
        assert len(server.requests) == 5


@pytest.mark.parametrize("where", ["config", "copy"])
def test_rollouts_are_told_apart_however_they_are_given(tmp_path: Path, where: str) -> None:
    with OpenAIServer(counting()) as server:
        lm = stored_lm(server, tmp_path)

        def sample(i: int) -> str:
            if where == "config":
                return ask(lm, rollout_id=i, temperature=1.0)
            return ask(lm.copy(rollout_id=i, temperature=1.0))

        assert [sample(0), sample(1), sample(2), sample(1)] == ["1", "2", "3", "2"]


def test_equal_requests_in_flight_are_one_call(tmp_path: Path) -> None:
    with OpenAIServer(counting(), delay=0.3) as server:
        lm = stored_lm(server, tmp_path)
        pairs = [(RolePredict(Answer, "solver", lm=lm), {"question": "Q?"}) for _ in range(6)]
        found = dspy.Parallel(num_threads=6, disable_progress_bar=True)(pairs)
        assert {prediction.answer for prediction in found} == {"1"}

        async def many() -> list[str]:
            predict = RolePredict(Answer, "solver", lm=lm)
            return [p.answer for p in await asyncio.gather(*(predict.acall(question="R?") for _ in range(6)))]

        assert set(asyncio.run(many())) == {"2"}
        assert len(server.requests) == 2


def test_sync_and_async_share_what_is_stored(tmp_path: Path) -> None:
    with OpenAIServer(counting()) as server:
        lm = stored_lm(server, tmp_path)
        assert ask(lm) == "1"
        assert asyncio.run(RolePredict(Answer, "solver", lm=lm).acall(question="Q?")).answer == "1"


def test_an_error_is_not_stored_and_names_the_role(tmp_path: Path) -> None:
    answers = iter([401, "2"])
    with OpenAIServer(lambda body: next(answers)) as server:
        lm = stored_lm(server, tmp_path)
        with pytest.raises(dspy.LMError) as caught:
            ask(lm)
        assert "role: solver" in caught.value.__notes__
        assert ask(lm) == "2"


def test_a_busy_server_is_asked_again(tmp_path: Path) -> None:
    answers = iter([429, "2"])
    with OpenAIServer(lambda body: next(answers)) as server:
        assert ask(stored_lm(server, tmp_path, retries=2)) == "2"


def test_prices_are_applied_to_what_was_paid(tmp_path: Path) -> None:
    with OpenAIServer(counting()) as server:
        ask(stored_lm(server, tmp_path, price={"input": 1.0, "output": 2.0}))
        assert RunStore(tmp_path).paid()["solver"]["cost"] == pytest.approx((10 * 1 + 5 * 2) / 1e6)


def test_what_was_paid_is_told_by_cell_and_in_prices_as_they_are_now(tmp_path: Path) -> None:
    with OpenAIServer(counting()) as server:
        lm = stored_lm(server, tmp_path)
        with booked_to("a/seed-0"), at_station("collect"):
            ask(lm)
    store = RunStore(tmp_path)
    assert store.paid("collect")["solver"]["calls"] == 1
    assert store.paid("collect", "a/seed-0")["solver"]["calls"] == 1
    assert store.paid("collect", "a/seed-1") == store.paid("screen") == {}
    assert store.paid()["solver"]["cost"] is None
    priced = store.paid(price_of=lambda role, model: {"input": 1.0, "output": 2.0})["solver"]
    assert (priced["cost"], priced["unpriced_calls"]) == (pytest.approx((10 * 1 + 5 * 2) / 1e6), 0)


def test_models_of_one_role_have_prices_of_their_own(tmp_path: Path) -> None:
    store = RunStore(tmp_path)
    for model, cost in (("openai/m", None), ("embedded/se-a-0123456789ab", 0.5)):
        store.keep_reply(
            model,
            role="solver",
            station="evaluate",
            model=model,
            request={},
            rollout=0,
            response={"usage": {"input_tokens": 1_000_000, "output_tokens": 0}},
            seconds=1.0,
            cost=cost,
        )

    def price_of(role: str, model: str) -> dict[str, float] | None:
        return {"input": 3.0, "output": 0.0} if (role, model) == ("solver", "openai/m") else None

    assert store.paid(price_of=price_of)["solver"]["cost"] == 3.5


@pytest.mark.parametrize(
    ("model", "engine", "counted"),
    [
        ("gemini/gemini-2.5-flash", "auto", (30, 2020)),  # what was thought is billed as output
        ("anthropic/claude-sonnet-4", "auto", (4030, 20)),  # what was cached is input too
        ("openai/gpt-5-mini", "auto", (30, 20)),
        ("gemini/gemini-2.5-flash", "litellm", (30, 20)),  # LiteLLM has counted it already
    ],
)
def test_what_a_provider_leaves_out_of_its_counters_is_counted(
    model: str, engine: str, counted: tuple[int, int]
) -> None:
    usage = Usage(input_tokens=30, output_tokens=20, cache_read_tokens=4000, reasoning_tokens=2000)
    said = Response(id=None, model="m", message=Message.assistant([TextPart("7")]), finish_reason="stop", usage=usage)
    found = LMBackend(dspy.LM(model, api_key="k", engine=engine, cache=False))._counted(said).usage
    assert (found.input_tokens, found.output_tokens) == counted
    assert found.cache_read_tokens == 4000


def test_copies_share_engine_and_store(tmp_path: Path) -> None:
    with OpenAIServer(counting()) as server:
        lm = stored_lm(server, tmp_path)
        assert ask(copy.deepcopy(lm)) == ask(lm) == "1"


def test_no_key_is_written_to_the_run_folder(tmp_path: Path) -> None:
    with OpenAIServer(counting()) as server:
        inner = dspy.LM("openai/m", api_base=server.url, api_key="secret-key-123", cache=False)
        engine = StoredEngine(LMBackend(inner), "solver", "openai/m", RunStore(tmp_path))
        ask(role_lm(engine, temperature=None, max_tokens=None))
        assert server.keys == ["Bearer secret-key-123"]
    for file in tmp_path.iterdir():
        assert b"secret-key-123" not in file.read_bytes()


def test_a_full_disk_stops_the_asking(tmp_path: Path, items) -> None:
    """A reply that can't be kept isn't paid for."""
    store = RunStore(tmp_path)
    with OpenAIServer(lambda body: "1. What is " + "x" * 3000 + "?") as server:
        inner = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, num_retries=0)
        lm = role_lm(StoredEngine(LMBackend(inner), "teacher", "openai/m", store), temperature=None, max_tokens=None)
        decompose = RolePredict(Decompose, "teacher", lm=lm)
        collect(decompose, items[:1], store, "c")
        pages = store._db.execute("PRAGMA page_count").fetchone()[0]
        store._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StoreError, match="the disk has room"):
            collect(decompose, items, store, "c", concurrency=2)
        assert len(server.requests) <= 1 + 2 + 2
        assert len(store.trace_keys("c")) >= 1


def test_one_caller_who_gives_up_does_not_cancel_the_others(tmp_path: Path) -> None:
    with OpenAIServer(counting(), delay=0.3) as server:
        lm = stored_lm(server, tmp_path)

        async def three(cancelled: int) -> list:
            predict = RolePredict(Answer, "solver", lm=lm)
            tasks = [asyncio.create_task(predict.acall(question=f"Q{cancelled}?")) for _ in range(3)]
            await asyncio.sleep(0.15)
            tasks[cancelled].cancel()
            return await asyncio.gather(*tasks, return_exceptions=True)

        for cancelled in (0, 2):  # the one who asks, and one who waits
            found = asyncio.run(three(cancelled))
            assert isinstance(found.pop(cancelled), asyncio.CancelledError)
            assert len({prediction.answer for prediction in found}) == 1


def test_the_same_name_on_another_server_is_another_model(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: "1") as one, OpenAIServer(lambda body: "2") as two:
        store = RunStore(tmp_path)
        answers = []
        for server in (one, two):
            inner = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False)
            engine = StoredEngine(LMBackend(inner), "solver", "openai/m", store, identity=f"openai/m at {server.url}")
            answers.append(ask(role_lm(engine, temperature=None, max_tokens=None)))
        assert answers == ["1", "2"]


def test_a_call_on_the_loop_that_fetches_the_same_reply_does_not_wait_for_it(tmp_path: Path) -> None:
    with OpenAIServer(counting(), delay=0.3) as server:
        lm = stored_lm(server, tmp_path)
        role = RolePredict(Answer, "solver", lm=lm)

        async def both() -> tuple[str, str]:
            awaited = asyncio.create_task(role.acall(question="Q?"))
            while not server.requests:
                await asyncio.sleep(0.01)
            called = role(question="Q?").answer  # on the loop's own thread
            return called, (await awaited).answer

        assert asyncio.run(asyncio.wait_for(both(), 10)) == ("2", "1")
        assert ask(lm) == "1", "one reply is the stored one from then on"
