import asyncio

import pytest
from dspy.utils.exceptions import LMRateLimitError, LMServerError, LMTransportError
from support.clock import Clock

from divcon.distill import GivenUpError
from divcon.distill._breaker import Breaker
from divcon.distill._pace import Pace
from divcon.distill._repeating import RetryBudget
from divcon.distill._traffic import Call


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.failed(LMServerError("boom", status=500))


def test_five_failures_in_a_row_open_the_circuit_and_an_answer_closes_it(clock: Clock) -> None:
    breaker = Breaker(clock)
    fail(breaker, 4)
    breaker.answered()
    fail(breaker, 4)
    assert not breaker.is_open
    fail(breaker, 1)
    assert breaker.is_open
    breaker.answered()
    assert not breaker.is_open and breaker.last is None


def test_the_pauses_between_probes_double_up_to_a_minute(clock: Clock) -> None:
    breaker, pauses = Breaker(clock), []
    fail(breaker, 5)
    for _ in range(9):
        pauses.append(breaker.probe_at - clock.now)
        clock.now = breaker.probe_at
        breaker.failed(LMServerError("boom", status=500), probe=True)
    for pause, most in zip(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert 0.75 * most <= pause <= most


def test_requests_sent_before_the_circuit_opened_put_no_probe_off(clock: Clock) -> None:
    breaker = Breaker(clock)
    fail(breaker, 5)
    at = breaker.probe_at
    fail(breaker, 27)
    assert breaker.probe_at == at


def test_a_server_is_given_up_so_long_after_its_first_failure_and_sooner_if_it_was_never_reached(clock: Clock) -> None:
    breaker = Breaker(clock)
    assert breaker.ends(600) == float("inf")
    breaker.failed(LMTransportError("refused"))
    clock.now += 20
    breaker.failed(LMTransportError("refused"))
    assert breaker.ends(600) == 130
    breaker.failed(LMRateLimitError("slow", status=429))
    assert breaker.ends(600) == 700, "it has answered, so that it is there"


def test_one_probe_at_a_time_is_sent_and_who_waited_too_long_gives_up(clock: Clock) -> None:
    async def station() -> tuple[list[str], list[GivenUpError]]:
        pace = Pace(clock=clock, server="http://here/v1")
        sent: list[str] = []

        async def one(name: str, held: bool = True) -> None:
            async with pace.turn(Call(), give_up=60, held=held) as turn:
                sent.append(name)
                await asyncio.sleep(0)
                turn.failed(LMServerError("boom", status=503), 60)

        await asyncio.gather(*(one(f"first {n}") for n in range(5)))
        waiting = [asyncio.create_task(one(f"held {n}")) for n in range(3)]
        await asyncio.sleep(0.01)
        assert len(sent) == 5, "nothing is sent before the pause is over"
        await one("not held", held=False)
        clock.now += 2
        pace._admit()
        await asyncio.sleep(0.01)
        assert sent[5:] == ["not held", "held 0"], "one of those that wait is the probe"
        clock.now += 60
        pace._admit()
        return sent, [error for error in await asyncio.gather(*waiting, return_exceptions=True) if error]

    sent, errors = asyncio.run(asyncio.wait_for(station(), 20))
    assert len(sent) == 7
    assert [type(error) for error in errors] == [GivenUpError] * 2
    assert "http://here/v1 is overloaded: it answers 503 (boom). Given up after 62 s." in str(errors[0])


def test_a_wait_that_ends_after_the_server_is_given_up_is_not_begun(clock: Clock) -> None:
    async def two() -> None:
        pace = Pace(clock=clock)
        async with pace.turn(Call(), give_up=60) as turn:
            turn.failed(LMRateLimitError("slow", status=429, retry_after=50), 60)
        clock.now += 55.1
        async with pace.turn(Call(), give_up=60) as turn:
            turn.failed(LMRateLimitError("slow", status=429, retry_after=50), 60)
        with pytest.raises(GivenUpError):
            async with pace.turn(Call(), give_up=60):
                raise AssertionError("it was sent")

    asyncio.run(asyncio.wait_for(two(), 20))


def test_retries_are_a_share_of_the_calls_and_a_reserve() -> None:
    budget = RetryBudget(0.5)
    assert [budget.take() for _ in range(21)] == [True] * 20 + [False]
    for _ in range(4):
        budget.add_call()
    assert [budget.take() for _ in range(3)] == [True, True, False]
