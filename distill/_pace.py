"""Pace: how many requests are sent to an endpoint at a time, adapted to its replies.

As in TCP, the limit grows while replies come, and is halved when the server is overloaded (429, 503, silence). A server
that only queues requests keeps its limit: its replies come, only later. Nothing is sent but a probe now and then while
the endpoint's circuit is open (see `Breaker`).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from dspy.utils.exceptions import LMError, LMTimeoutError

from divcon.distill._breaker import Breaker
from divcon.distill._traffic import Call
from divcon.distill._trouble import LONGEST_WAIT, overload, reason

# DSPy's native client opens no more connections to a server. Further requests wait here, where divcon can show them.
MOST = 100
_QUICK = 5.0  # A server is quick when its replies take fewer seconds than this on average,
_SHOWN = 16  # over at least so many replies.


@dataclass(eq=False)
class _Waiting:
    """A request that waits for its turn.

    Attributes:
        admitted: Done when it may be sent, or when the server is given up.
        call: The call, whose state is set to what it waits for.
        give_up: Seconds after the server's first failure until this request gives it up.
        held: Whether it waits while the circuit is open.
        probe: Whether it was admitted as a probe.
    """

    admitted: asyncio.Future[None]
    call: Call
    give_up: float
    held: bool
    probe: bool = False


class Pace:
    """The pace of one endpoint, shared by all callers of it. It belongs to one event loop.

    A station's own limit isn't known here. It holds nonetheless, since a station has no more calls in flight.

    Args:
        most: The largest number of requests at a time; also the first limit.
        clock: Returns the time in seconds; tests replace it.
        server: The endpoint, as users read it.

    Attributes:
        breaker: The endpoint's circuit breaker.
        limit: The number of requests that may be at the server at a time.
        running: The number of requests that are at the server.
        why: Why the limit was last made smaller, such as `429`.
        streams: Whether the server streams; None while that isn't known.
        finding_out: Done when it is known whether the server streams.
        heard_at: When the server last sent a token or a reply, on the clock; minus infinity before.
        usual: Seconds per whole reply, as a moving average.
        quick: Whether its replies come so soon that they needn't be streamed. It becomes False again when the server
            slows down.
    """

    def __init__(
        self, most: int = MOST, clock: Callable[[], float] = time.monotonic, server: str = "the server"
    ) -> None:
        self.server = server
        self.breaker = Breaker(clock)
        self.limit = float(most)
        self.running = 0
        self.why = ""
        self.streams: bool | None = None
        self.finding_out: asyncio.Future[None] | None = None
        self.heard_at = float("-inf")
        self.usual = 0.0
        self.quick = False
        self._replies = 0
        self._most = float(most)
        self._clock = clock
        self._held_until = float("-inf")
        self._held_for = ""
        self._fewer_at = float("-inf")
        self._queue: deque[_Waiting] = deque()
        self._waking: asyncio.TimerHandle | None = None

    @property
    def heard(self) -> bool:
        """Whether the server has ever sent a token."""
        return self.heard_at > float("-inf")

    @asynccontextmanager
    async def turn(
        self, call: Call, again: bool = False, give_up: float = LONGEST_WAIT, held: bool = True
    ) -> AsyncIterator[Turn]:
        """Wait until one more request may be at the server, and hold its place during the block.

        Args:
            call: The call that waits; its state is set to what it waits for.
            again: Whether the call is repeated; a repeated call goes to the head of the queue.
            give_up: Seconds after the server's first failure until the call gives it up.
            held: Whether the call waits while the circuit is open.

        Raises:
            GivenUpError: The server has failed for too long.
        """
        waiting = _Waiting(asyncio.get_running_loop().create_future(), call, give_up, held)
        if again:
            self._queue.appendleft(waiting)
        else:
            self._queue.append(waiting)
        self._admit()
        try:
            await waiting.admitted
        except asyncio.CancelledError:
            admitted = waiting.admitted
            if admitted.done() and not admitted.cancelled() and admitted.exception() is None:
                self._leave(waiting)  # it was admitted and cancelled in the same moment
            elif waiting in self._queue:
                self._queue.remove(waiting)
            raise
        try:
            yield Turn(self, self.now(), waiting.probe)
        finally:
            self._leave(waiting)

    def now(self) -> float:
        """The time on the pace's clock, in seconds."""
        return self._clock()

    def hears(self) -> None:
        """Take note of a token or a reply, which shows that the server works."""
        self.heard_at = self._clock()
        if self.breaker.last is not None:
            self.breaker.answered()
            self._admit()

    def answered(self) -> None:
        """Raise the limit after a reply: by one per `limit` replies, and only where the limit is reached."""
        if self._queue or self.running >= int(self.limit):
            self.limit = min(self._most, self.limit + 1 / self.limit)
        if self.limit >= self._most:
            self.why = ""

    def took(self, seconds: float) -> None:
        """Record how long a whole reply took."""
        self._replies += 1
        self.usual += (seconds - self.usual) / min(self._replies, _SHOWN)
        self.quick = self._replies >= _SHOWN and self.usual < _QUICK

    def too_much(self, sent: float, why: str, wait: float | None = None) -> None:
        """Halve the limit, because the server is overloaded. Requests that are at the server go on.

        Args:
            sent: When the refused request was sent. A request sent before the last halving doesn't halve it again.
            why: The reason as users read it, such as `429`.
            wait: Seconds that the server said to wait; until then nothing is sent.
        """
        now = self._clock()
        if sent >= self._fewer_at:
            self.limit = max(1.0, min(self.limit, self.running) / 2)
            self._fewer_at = now
            self.why = why
        if wait:
            # The random factor keeps processes that got the same answer from all coming back in the same moment.
            self._held_until = max(self._held_until, now + wait * random.uniform(1, 1.1))
            self._held_for = f"{why} (the server says {wait:.0f} s)"

    def may_send(self) -> bool:
        """Whether one more request may be sent now."""
        return self._clock() >= self._held_until and self.running < int(self.limit)

    def _may_go(self, waiting: _Waiting) -> bool:
        if not (waiting.held and self.breaker.is_open):
            return True
        return not self.breaker.probing and self._clock() >= self.breaker.probe_at

    def _admit(self) -> None:
        self._give_up()
        while self.may_send() and (waiting := next(filter(self._may_go, self._queue), None)):
            self._queue.remove(waiting)
            if not waiting.admitted.done():
                self.running += 1
                waiting.probe = waiting.held and self.breaker.is_open
                self.breaker.probing = self.breaker.probing or waiting.probe
                waiting.admitted.set_result(None)
        if not self._queue:
            return
        now, moments = self._clock(), []
        for waiting in self._queue:
            until = self._sent_at(waiting)
            ends = self.breaker.ends(waiting.give_up)
            if until > now:
                waiting.call.holds(self._held_for if self._held_until > now else self.breaker.why())
                waiting.call.expects(self.server, until - now, ends - now)
                moments += [until, ends]
            elif waiting.held and self.breaker.is_open:
                waiting.call.holds(self.breaker.why())
                waiting.call.expects(self.server, None, ends - now)
                moments.append(ends)
            else:
                waiting.call.queues(f"{int(self.limit)} at a time after {self.why}" if self.why else "")
        self._wake_at(min((moment for moment in moments if moment > now), default=float("inf")))

    def _sent_at(self, waiting: _Waiting) -> float:
        """The earliest time at which a request may be sent, on the clock."""
        held = self._held_until
        return max(held, self.breaker.probe_at) if waiting.held and self.breaker.is_open else held

    def _give_up(self) -> None:
        """End the requests that have waited for the failing server for too long, or would have to."""
        if self.breaker.last is None or self.breaker.probing:
            return
        now = self._clock()
        for waiting in list(self._queue):
            if waiting.held and max(now, self._held_until) >= self.breaker.ends(waiting.give_up):
                self._queue.remove(waiting)
                if not waiting.admitted.done():
                    waiting.admitted.set_exception(self.breaker.given_up(self.server))

    def _wake_at(self, moment: float) -> None:
        """Look at the queue again at a time on the clock."""
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        if moment < float("inf"):
            seconds = max(0.0, moment - self._clock())
            self._waking = asyncio.get_running_loop().call_later(seconds, self._wake)

    def _wake(self) -> None:
        self._waking = None
        self._admit()

    def _leave(self, waiting: _Waiting) -> None:
        self.running -= 1
        if waiting.probe:
            self.breaker.probing = False
        self._admit()


class Turn:
    """The place of one request at the server.

    Args:
        pace: The pace of the endpoint.
        sent: When the request was admitted, in seconds of the pace's clock.
        probe: Whether the request finds out whether a failing server is back.
    """

    def __init__(self, pace: Pace, sent: float, probe: bool = False) -> None:
        self.probe = probe
        self._pace = pace
        self._sent = sent

    def answered(self) -> None:
        """Record that the request was answered."""
        pace = self._pace
        pace.answered()
        pace.took(pace.now() - self._sent)
        pace.hears()

    def refused(self) -> None:
        """Record that the server refused this request for its content, so that the server is there."""
        self._pace.breaker.answered()

    def failed(self, error: LMError, longest: float) -> None:
        """Record that the server failed.

        Args:
            error: The failure.
            longest: A server that asks for more seconds than these isn't waited for.
        """
        self._pace.breaker.failed(error, self.probe)
        if overload(error) is not None:
            wait = error.retry_after
            self.too_much(reason(error), wait if wait is None or wait <= longest else None)
        elif isinstance(error, LMTimeoutError):
            self.too_much(reason(error))

    def too_much(self, why: str, wait: float | None = None) -> None:
        """See `Pace.too_much`."""
        self._pace.too_much(self._sent, why, wait)


_paces: WeakValueDictionary[str, Pace] = WeakValueDictionary()


def pace_of(endpoint: str) -> Pace:
    """The pace of an endpoint. All callers that name the endpoint share it while any of them holds it.

    Args:
        endpoint: A server's address; without one, the name of a provider's model.
    """
    pace = _paces.get(endpoint)
    if pace is None:
        pace = _paces[endpoint] = Pace(server=endpoint)
    return pace


def forget_pace(endpoint: str) -> None:
    """Forget the pace of an endpoint, after another server has started at its address."""
    _paces.pop(endpoint, None)
