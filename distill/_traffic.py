"""Traffic: what the calls of a station are doing at the moment, and what they have cost."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

import dspy

_SETTING = "_divcon_traffic"
_WINDOW = 30.0  # seconds over which the tokens per second are averaged

State = Literal["answered", "waiting", "queued", "held"]


class Call:
    """One call and its state.

    Attributes:
        state: `answered` (the reply is being written), `waiting` (for the server's first token), `queued` (not sent
            yet) or `held` (to be sent later, for the reason `why`).
        why: The reason, as users read it.
        outlook: How long it goes on like this at most, as users read it; empty where nothing is wrong.
        written: Tokens counted while the reply was streamed.
    """

    def __init__(self, traffic: Traffic | None = None) -> None:
        self.state: State = "answered"
        self.why = ""
        self.outlook = ""
        self.written = 0
        self._traffic = traffic

    def queues(self, why: str = "") -> None:
        self.state, self.why, self.outlook = "queued", why, ""

    def holds(self, why: str) -> None:
        self.state, self.why, self.outlook = "held", why, ""

    def expects(self, server: str, again: float | None, given_up: float) -> None:
        """Say when the server is asked again, and when it is given up.

        Args:
            server: The server, as users read it.
            again: Seconds until it is asked again; None where it is being asked.
            given_up: Seconds until it is given up; infinite where that isn't known.
        """
        asked = "is being asked again" if again is None else f"is asked again at {_clock_time(again)}"
        end = f", given up at {_clock_time(given_up)}" if given_up < float("inf") else ""
        self.outlook = f"{server} {asked}{end}"

    def hears_nothing(self, server: str, silent: float, given_up: float) -> None:
        """Say how long the server has been silent, and until when it is waited for.

        Args:
            server: The server, as users read it.
            silent: Seconds since its last sign.
            given_up: Seconds until the call is ended.
        """
        self.outlook = f"no token from {server} for {silent:.0f} s, waited for until {_clock_time(given_up)}"

    def waits(self) -> None:
        self.state, self.why, self.outlook, self.written = "waiting", "", "", 0

    def writes(self, tokens: int = 1) -> None:
        self.state, self.why, self.outlook = "answered", "", ""
        self.written += tokens
        if self._traffic is not None:
            self._traffic.wrote(tokens)


class Traffic:
    """The calls made inside `watching`, by any thread. Threads may share it.

    Args:
        clock: Returns the time in seconds; tests replace it.

    Attributes:
        cost: US dollars of the calls that ended and have a price.
        priced: The number of these calls.
        begun: The number of calls that were begun. Replies from the store aren't calls.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.begun = 0
        self.cost = 0.0
        self.priced = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: set[Call] = set()
        self._tokens: deque[tuple[float, int]] = deque()
        self._since = clock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Traffic:
        return self

    def wrote(self, tokens: int) -> None:
        """Count tokens that have just arrived."""
        now = self._clock()
        with self._lock:
            if self._tokens and now - self._tokens[-1][0] < 0.25:
                self._tokens[-1] = (self._tokens[-1][0], self._tokens[-1][1] + tokens)
            else:
                self._tokens.append((now, tokens))

    def ended(self, call: Call, output_tokens: int | None, cost: float | None) -> None:
        """Record that a call was answered.

        Args:
            call: The call.
            output_tokens: The server's count; tokens that weren't counted while streaming are counted now.
            cost: US dollars; None where the call has no price.
        """
        if output_tokens is not None and output_tokens > call.written:
            self.wrote(output_tokens - call.written)
        if cost is not None:
            with self._lock:
                self.cost += cost
                self.priced += 1

    @property
    def tokens_a_second(self) -> float:
        """Output tokens per second, over the last 30 seconds."""
        now = self._clock()
        with self._lock:
            while self._tokens and now - self._tokens[0][0] > _WINDOW:
                self._tokens.popleft()
            written = sum(tokens for _, tokens in self._tokens)
        return written / max(1.0, min(_WINDOW, now - self._since))

    @property
    def under_way(self) -> int:
        """The number of calls that are at a server."""
        with self._lock:
            return sum(call.state in ("answered", "waiting") for call in self._calls)

    def said(self, remaining: int) -> list[str]:
        """The current state as phrases: tokens per second, calls being answered, calls that wait, why and until when.

        Args:
            remaining: The number of replies that the station still needs; those without a call yet count as queued.
        """
        with self._lock:
            calls = list(self._calls)
        doing = Counter((call.state, call.why) for call in calls)
        parts = [f"{speed:.0f} tok/s"] if (speed := self.tokens_a_second) >= 0.5 else []
        if answered := doing.pop(("answered", ""), 0):
            parts.append(f"{answered} being answered")
        if waiting := doing.pop(("waiting", ""), 0):
            parts.append(f"{waiting} waiting for the server")
        queued = doing.pop(("queued", ""), 0) + max(0, remaining - len(calls))
        for (state, why), count in sorted(doing.items(), key=str):
            parts.append(f"{count} wait after {why}" if state == "held" else f"{count} wait their turn ({why})")
        if queued:
            parts.append(f"{queued} queued")
        # Calls to one server differ by moments; the latest says most.
        return parts + sorted({call.outlook for call in calls if call.outlook})[-1:]

    @contextmanager
    def call(self) -> Iterator[Call]:
        """Track a call that is made inside the block."""
        call = Call(self)
        with self._lock:
            self.begun += 1
            self._calls.add(call)
        token = _call.set(call)
        try:
            yield call
        finally:
            _call.reset(token)
            with self._lock:
                self._calls.discard(call)


def _clock_time(seconds: float) -> str:
    """The time of day so many seconds from now."""
    return time.strftime("%H:%M:%S", time.localtime(time.time() + seconds))


_call: ContextVar[Call | None] = ContextVar("divcon_call", default=None)


def current_call() -> Call:
    """The call that is being made in this context; outside of one, a new call that isn't tracked."""
    return _call.get() or Call()


def current_traffic() -> Traffic:
    """The traffic that is watched in this context; outside of `watching`, a new one."""
    found: Traffic | None = dspy.settings.get(_SETTING)
    return found or Traffic()


@contextmanager
def watching() -> Iterator[Traffic]:
    """Watch the calls made inside the block, in DSPy's threads and tasks too."""
    traffic = Traffic()
    with dspy.context(**{_SETTING: traffic}):
        yield traffic
