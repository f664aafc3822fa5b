import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest
from dspy.utils.exceptions import LMServerError
from support.clock import Clock

from divcon.distill import GivenUpError
from divcon.distill._pace import MOST, Pace, forget_pace, pace_of
from divcon.distill._traffic import Call


@pytest.fixture
def clock() -> Clock:
    return Clock()


def soon(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


def test_it_begins_with_as_many_as_there_are_connections(clock: Clock) -> None:
    pace = Pace(clock=clock)
    pace.running = MOST - 1
    assert pace.may_send()
    pace.running = MOST
    assert not pace.may_send()


def test_a_burst_of_refusals_is_one_sign_and_nothing_that_runs_is_ended(clock: Clock) -> None:
    pace = Pace(clock=clock)
    pace.running = 32
    sent, clock.now = clock.now, clock.now + 1
    for _ in range(32):
        pace.too_much(sent, "429")
    assert (pace.limit, pace.running) == (16.0, 32)
    pace.running, clock.now = 16, clock.now + 1
    pace.too_much(clock.now, "429")
    assert pace.limit == 8.0


def test_it_never_stops_altogether(clock: Clock) -> None:
    pace = Pace(clock=clock)
    pace.running = 1
    for _ in range(5):
        pace.too_much(clock.now, "503")
        clock.now += 1
    assert pace.limit == 1.0


def test_one_more_after_as_many_replies_as_there_are_at_a_time(clock: Clock) -> None:
    pace = Pace(most=6, clock=clock)
    pace.running = 6
    pace.too_much(clock.now, "429")
    assert (pace.limit, pace.why) == (3.0, "429")
    pace.running = 3
    for _ in range(4):
        pace.answered()
    assert 4.0 <= pace.limit < 5.0
    pace.running = 1
    before = pace.limit
    pace.answered()
    assert pace.limit == before, "a limit that isn't reached tells nothing"
    pace.running = 6
    for _ in range(20):
        pace.answered()
    assert (pace.limit, pace.why) == (6.0, "")


def test_nothing_is_sent_before_the_time_that_the_server_named(clock: Clock) -> None:
    pace = Pace(clock=clock)
    pace.running = 1
    pace.too_much(clock.now, "429", wait=20)
    pace.running = 0
    clock.now += 19.9
    assert not pace.may_send()
    clock.now += 2.2  # a tenth more, so that not everybody comes back in one moment
    assert pace.may_send()


def test_who_was_there_before_comes_first_and_it_is_said_what_is_waited_for(clock: Clock) -> None:
    async def three() -> tuple[list[str], list[tuple[str, str]]]:
        pace = Pace(most=1, clock=clock)
        order: list[str] = []
        calls = [Call() for _ in range(3)]

        async def one(name: str, call: Call, again: bool = False) -> None:
            async with pace.turn(call, again):
                order.append(name)

        async with pace.turn(Call()) as turn:
            turn.too_much("429")
            waiting = [
                asyncio.create_task(one(name, call, name == "again"))
                for name, call in zip(["first", "second", "again"], calls, strict=True)
            ]
            await asyncio.sleep(0)
            said = [(call.state, call.why) for call in calls]
        await asyncio.gather(*waiting)
        return order, said

    order, said = soon(three())
    assert order == ["again", "first", "second"]
    assert said == [("queued", "1 at a time after 429")] * 3


def test_who_gives_up_waiting_takes_nobodys_place(clock: Clock) -> None:
    async def all_three() -> int:
        pace = Pace(most=1, clock=clock)

        async def one() -> None:
            async with pace.turn(Call()):
                await asyncio.sleep(0)

        async with pace.turn(Call()):
            gives_up, stays = asyncio.create_task(one()), asyncio.create_task(one())
            await asyncio.sleep(0)
            gives_up.cancel()
        await asyncio.gather(gives_up, stays, return_exceptions=True)
        assert gives_up.cancelled()
        return pace.running

    assert soon(all_three()) == 0


def test_who_gives_up_as_the_server_is_given_up_takes_nobodys_place(clock: Clock) -> None:
    async def both() -> int:
        pace = Pace(most=2, clock=clock)
        async with pace.turn(Call()):
            pace.limit = 1
            waits = asyncio.create_task(pace.turn(Call()).__aenter__())
            await asyncio.sleep(0)
            pace._queue[0].admitted.set_exception(GivenUpError("http://here/v1", LMServerError("boom"), 600.0))
            waits.cancel()
            await asyncio.gather(waits, return_exceptions=True)
            return pace.running

    assert soon(both()) == 1


def test_after_the_wait_those_who_wait_are_let_in() -> None:
    async def one() -> str:
        pace, call = Pace(), Call()
        async with pace.turn(Call()) as turn:
            turn.too_much("429", wait=0.1)

        async def enter() -> None:
            async with pace.turn(call, again=True):
                pass

        entering = asyncio.create_task(enter())
        await asyncio.sleep(0)
        said = f"{call.state}: {call.why}"
        await entering
        return said

    assert soon(one()) == "held: 429 (the server says 0 s)"


def test_all_who_ask_an_endpoint_share_its_pace() -> None:
    one = pace_of("http://127.0.0.1:1/v1")
    assert pace_of("http://127.0.0.1:1/v1") is one
    assert pace_of("http://127.0.0.1:2/v1") is not one
    one.limit = 3.0
    del one
    gc.collect()
    assert pace_of("http://127.0.0.1:1/v1").limit == MOST, "nobody holds it, so it is forgotten"


def test_nothing_is_known_of_a_server_that_has_started_at_the_address_of_another() -> None:
    one = pace_of("http://127.0.0.1:1/v1")
    forget_pace("http://127.0.0.1:1/v1")
    assert pace_of("http://127.0.0.1:1/v1") is not one


def test_a_quick_server_is_known_after_some_replies_and_a_slow_one_at_once(clock: Clock) -> None:
    pace = Pace(clock=clock)
    for _ in range(15):
        pace.took(0.2)
    assert not pace.quick
    pace.took(0.2)
    assert pace.quick
    pace.took(120.0)
    assert not pace.quick
