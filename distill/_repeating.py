"""Which failed calls are repeated, how often, and after which pause."""

from __future__ import annotations

import asyncio
import functools
import random
from dataclasses import dataclass

from dspy.utils.exceptions import LMError, is_retryable_lm_error
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from divcon.distill._pace import Pace, Turn
from divcon.distill._traffic import Call
from divcon.distill._trouble import Patience, SlowServerError, asks_for_too_long, overload, reason

RETRY_SHARE = 0.5
_RESERVE = 20  # retries that are allowed however few calls there were
_LONGEST_PAUSE = 60.0  # seconds between a failed request and its repetition


@dataclass
class Attempts:
    """The attempts of one call.

    Attributes:
        began: When the first one was sent, on the pace's clock; None before.
        counted: Attempts that count as the call's own. A probe finds out about the server for all calls, and doesn't.
        probe: Whether the last one was a probe.
    """

    began: float | None = None
    counted: int = 0
    probe: bool = False

    def add(self, turn: Turn, now: float) -> None:
        """Count an attempt that is sent now."""
        self.began = now if self.began is None else self.began
        self.probe = turn.probe
        self.counted += not turn.probe


class RetryBudget:
    """How many retries a role may make: a share of its calls, and a small reserve, as in Finagle's `RetryBudget`.

    Args:
        share: Retries that each call adds.
    """

    def __init__(self, share: float) -> None:
        self._share = share
        self._left = float(_RESERVE)

    def add_call(self) -> None:
        """Count a call, which adds its share."""
        self._left += self._share

    def take(self) -> bool:
        """Take one retry from the budget. Returns whether there was one."""
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Repeating:
    """The rule by which an LM's failed calls are repeated.

    Args:
        retries: Attempts after the first one.
        patience: `give_up` limits the seconds in all.
        share: Retries in all, as a share of the calls.
        pace: The pace of the endpoint.
    """

    def __init__(self, retries: int, patience: Patience, share: float, pace: Pace) -> None:
        self._retries = retries
        self._give_up = patience.give_up
        self._budget = RetryBudget(share)
        self._pace = pace

    def of_call(self, call: Call, attempts: Attempts) -> AsyncRetrying:
        """The retrying of one call, which is counted in the budget."""
        self._budget.add_call()
        return AsyncRetrying(
            retry=retry_if_exception(self._may_repeat),
            stop=functools.partial(self._is_enough, attempts),
            wait=functools.partial(self._pause, call),
            sleep=asyncio.sleep,
            reraise=True,
        )

    def _may_repeat(self, error: BaseException) -> bool:
        if not isinstance(error, Exception) or not is_retryable_lm_error(error):
            return False
        if isinstance(error, SlowServerError) and error.limit == "longest":
            return False  # it would take as long again
        return not asks_for_too_long(error, self._give_up)

    def _is_enough(self, attempts: Attempts, state: RetryCallState) -> bool:
        """Whether a failed call isn't repeated, although its error allows it."""
        if attempts.probe:
            return False  # the breaker ends it
        if attempts.counted > self._retries:
            return True
        assert attempts.began is not None
        return self._pace.now() - attempts.began >= self._give_up or not self._budget.take()

    def _pause(self, call: Call, state: RetryCallState) -> float:
        """Seconds until a failed request is sent again.

        Where the pace makes all requests wait, it is 0: an overloaded server said how long, or the circuit is open.
        """
        assert state.outcome is not None
        error = state.outcome.exception()
        assert isinstance(error, LMError)  # no other error is retried
        if self._pace.breaker.is_open or (overload(error) and error.retry_after):
            return 0.0
        seconds = error.retry_after or 2.0 ** min(state.attempt_number - 1, 10) * random.uniform(0.5, 1.0)
        seconds = min(_LONGEST_PAUSE, seconds)
        call.holds(f"{reason(error)}, asked again within {max(1, round(seconds))} s")
        return seconds
