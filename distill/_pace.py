"""Pace: how many requests are sent to an endpoint at a time, adapted to its replies.

As in TCP, the limit grows while replies come, and is halved when the server is overloaded (429, 503, silence). A server
that only queues requests keeps its limit: its replies come, only later.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from divcon.distill._traffic import Call

# DSPy's native client opens no more connections to a server. Further requests wait here, where divcon can show them.
MOST = 100
_QUICK = 5.0  # A server is quick when its replies take fewer seconds than this on average,
_SHOWN = 16  # over at least so many replies.


class Pace:
    """The pace of one endpoint, shared by all callers of it. It belongs to one event loop.

    A station's own limit isn't known here. It holds nonetheless, since a station has no more calls in flight.

    Args:
        most: The largest number of requests at a time; also the first limit.
        clock: Returns the time in seconds; tests replace it.

    Attributes:
        limit: The number of requests that may be at the server at a time.
        running: The number of requests that are at the server.
        why: Why the limit was last made smaller, such as `429`.
        streams: Whether the server streams; None while that isn't known.
        finding_out: Done when it is known whether the server streams.
        heard: Whether the server has ever sent a token.
        quick: Whether its replies come so soon that they needn't be streamed. It becomes False again when the server
            slows down.
    """

    def __init__(self, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = float(most)
        self.running = 0
        self.why = ""
        self.streams: bool | None = None
        self.finding_out: asyncio.Future[None] | None = None
        self.heard = False
        self.quick = False
        self._replies = 0
        self._usual = 0.0  # moving average of the seconds per reply
        self._most = float(most)
        self._clock = clock
        self._held_until = float("-inf")
        self._held_for = ""
        self._fewer_at = float("-inf")
        self._queue: deque[tuple[asyncio.Future[None], Call]] = deque()
        self._waking: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self, call: Call, again: bool = False) -> AsyncIterator[Turn]:
        """Wait until one more request may be at the server, and hold its place during the block.

        Args:
            call: The call that waits; its state is set to what it waits for.
            again: Whether the call is repeated; a repeated call goes to the head of the queue.
        """
        waiting = (asyncio.get_running_loop().create_future(), call)
        if again:
            self._queue.appendleft(waiting)
        else:
            self._queue.append(waiting)
        self._admit()
        admitted, _ = waiting
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self._leave()  # it was admitted and cancelled in the same moment
            elif waiting in self._queue:
                self._queue.remove(waiting)
            raise
        try:
            yield Turn(self, self._clock())
        finally:
            self._leave()

    def answered(self) -> None:
        """Raise the limit after a reply: by one per `limit` replies, and only where the limit is reached."""
        if self._queue or self.running >= int(self.limit):
            self.limit = min(self._most, self.limit + 1 / self.limit)
        if self.limit >= self._most:
            self.why = ""

    def took(self, seconds: float) -> None:
        """Record how long a whole reply took."""
        self._replies += 1
        self._usual += (seconds - self._usual) / min(self._replies, _SHOWN)
        self.quick = self._replies >= _SHOWN and self._usual < _QUICK

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

    def _admit(self) -> None:
        while self._queue and self.may_send():
            admitted, _ = self._queue.popleft()
            if not admitted.done():
                self.running += 1
                admitted.set_result(None)
        held = self._held_until - self._clock()
        for _, call in self._queue:
            if held > 0:
                call.holds(self._held_for)
            else:
                call.queues(f"{int(self.limit)} at a time after {self.why}" if self.why else "")
        if self._queue and held > 0 and self._waking is None:
            self._waking = asyncio.get_running_loop().call_later(held, self._wake)

    def _wake(self) -> None:
        self._waking = None
        self._admit()

    def _leave(self) -> None:
        self.running -= 1
        self._admit()


class Turn:
    """The place of one request at the server.

    Args:
        pace: The pace of the endpoint.
        sent: When the request was admitted, in seconds of the pace's clock.
    """

    def __init__(self, pace: Pace, sent: float) -> None:
        self._pace = pace
        self._sent = sent

    def answered(self) -> None:
        """See `Pace.answered`."""
        self._pace.answered()

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
        pace = _paces[endpoint] = Pace()
    return pace


def forget_pace(endpoint: str) -> None:
    """Forget the pace of an endpoint, after another server has started at its address."""
    _paces.pop(endpoint, None)
