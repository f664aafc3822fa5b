"""Pace: how many requests an endpoint is sent at a time, found out by asking.

More at a time while replies come, half as many when it is too much for the server (429, 503, silence), as TCP does it.
A server that merely queues isn't asked less: its replies come, only later.
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

# DSPy's native client opens no more connections to a server; what is beyond waits here, where it is seen.
MOST = 100
# Replies that come within so many seconds, on average, show a quick server.
_QUICK = 5.0
_SHOWN = 16  # replies after which that is believed


class Pace:
    """The pace of one endpoint, shared by all that ask it. It belongs to one event loop.

    The setting of a station is its ceiling without being known here: a station has no more calls than that to send.

    Args:
        most: Requests at a time that are never exceeded; also where it begins.
        clock: Seconds, for tests.

    Attributes:
        limit: Requests at a time that the server has shown to take.
        running: Requests at the server.
        why: What made the limit smaller last, as `429`.
        streams: Whether the server streams; None while nobody has found out.
        finding_out: Done when the request that finds that out has.
        heard: Whether a token has ever come from there.
        quick: Whether its replies come so soon that nobody has to watch them grow. It isn't for a server that has
            slowed down: the next replies are watched again.
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
        self._usual = 0.0  # seconds a reply, the last ones weighing most
        self._most = float(most)
        self._clock = clock
        self._held_until = float("-inf")
        self._held_for = ""
        self._fewer_at = float("-inf")
        self._queue: deque[tuple[asyncio.Future[None], Call]] = deque()
        self._waking: asyncio.TimerHandle | None = None

    @asynccontextmanager
    async def turn(self, call: Call, again: bool = False) -> AsyncIterator[Turn]:
        """A place among the requests at the server, waited for.

        Args:
            call: Whose place; it is told what it waits for.
            again: Whether it was there before; then it comes before those who weren't.
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
                self._leave()  # it was its turn in the same moment
            elif waiting in self._queue:
                self._queue.remove(waiting)
            raise
        try:
            yield Turn(self, self._clock())
        finally:
            self._leave()

    def answered(self) -> None:
        """A reply came: after as many as there are at a time, one more at a time, and only where they are used."""
        if self._queue or self.running >= int(self.limit):
            self.limit = min(self._most, self.limit + 1 / self.limit)
        if self.limit >= self._most:
            self.why = ""

    def took(self, seconds: float) -> None:
        """A whole reply took so long."""
        self._replies += 1
        self._usual += (seconds - self._usual) / min(self._replies, _SHOWN)
        self.quick = self._replies >= _SHOWN and self._usual < _QUICK

    def too_much(self, sent: float, why: str, wait: float | None = None) -> None:
        """The server had too much: half as many at a time. Nothing that runs is ended.

        Args:
            sent: When the request was sent; the refusals of one burst are one sign, not thirty-two.
            why: As people read it, such as `429`.
            wait: Seconds that the server said to wait; nothing is sent before.
        """
        now = self._clock()
        if sent >= self._fewer_at:
            self.limit = max(1.0, min(self.limit, self.running) / 2)
            self._fewer_at = now
            self.why = why
        if wait:
            # Spread, so that those who were told the same don't come back in one moment, of several processes too.
            self._held_until = max(self._held_until, now + wait * random.uniform(1, 1.1))
            self._held_for = f"{why} (the server says {wait:.0f} s)"

    def may_send(self) -> bool:
        """Whether one more may be sent now."""
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
    """One request's place at the server.

    Args:
        pace: The endpoint's.
        sent: When it began.
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
    """The pace of an endpoint, the same one for all that name it while anybody holds it.

    Args:
        endpoint: A server's address, or the name of a provider's model where there is none.
    """
    pace = _paces.get(endpoint)
    if pace is None:
        pace = _paces[endpoint] = Pace()
    return pace


def forget_pace(endpoint: str) -> None:
    """Forget what is known of an endpoint: another server has started at its address."""
    _paces.pop(endpoint, None)
