"""Traffic: what the calls of a station do at this moment, in words, and what they have cost."""

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
_WINDOW = 30.0  # seconds over which tokens a second are counted

State = Literal["answered", "waiting", "queued", "held"]


class Call:
    """One call, and what it does.

    Attributes:
        state: `answered` (it is being answered), `waiting` (for the server's first token), `queued` (nobody has been
            asked yet) or `held` (it will be asked later, for a reason).
        why: The reason, as people read it.
        written: Tokens that were counted as they came.
    """

    def __init__(self, traffic: Traffic | None = None) -> None:
        self.state: State = "answered"
        self.why = ""
        self.written = 0
        self._traffic = traffic

    def queues(self, why: str = "") -> None:
        self.state, self.why = "queued", why

    def holds(self, why: str) -> None:
        self.state, self.why = "held", why

    def waits(self) -> None:
        self.state, self.why, self.written = "waiting", "", 0

    def writes(self, tokens: int = 1) -> None:
        self.state, self.why = "answered", ""
        self.written += tokens
        if self._traffic is not None:
            self._traffic.wrote(tokens)


class Traffic:
    """The calls made inside `watching`, also by other threads. Safe to use from many.

    Args:
        clock: Seconds, for tests.

    Attributes:
        cost: US dollars of the calls that were answered and have a price.
        priced: How many those are.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
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
        """Count tokens that have just come."""
        now = self._clock()
        with self._lock:
            if self._tokens and now - self._tokens[-1][0] < 0.25:
                self._tokens[-1] = (self._tokens[-1][0], self._tokens[-1][1] + tokens)
            else:
                self._tokens.append((now, tokens))

    def ended(self, call: Call, output_tokens: int | None, cost: float | None) -> None:
        """A call was answered.

        Args:
            call: Which.
            output_tokens: As the server counted them; those that weren't seen coming are counted now.
            cost: US dollars, where it has a price.
        """
        if output_tokens is not None and output_tokens > call.written:
            self.wrote(output_tokens - call.written)
        if cost is not None:
            with self._lock:
                self.cost += cost
                self.priced += 1

    @property
    def tokens_a_second(self) -> float:
        """Over the last half minute."""
        now = self._clock()
        with self._lock:
            while self._tokens and now - self._tokens[0][0] > _WINDOW:
                self._tokens.popleft()
            written = sum(tokens for _, tokens in self._tokens)
        return written / max(1.0, min(_WINDOW, now - self._since))

    def said(self, remaining: int) -> list[str]:
        """What happens now, in words: tokens a second, what is being answered, what waits and why.

        Args:
            remaining: What the station still has to have answered; those that no call is made for yet are queued.
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
        return parts

    @contextmanager
    def call(self) -> Iterator[Call]:
        """A call that is made inside the block."""
        call = Call(self)
        with self._lock:
            self._calls.add(call)
        token = _call.set(call)
        try:
            yield call
        finally:
            _call.reset(token)
            with self._lock:
                self._calls.discard(call)


_call: ContextVar[Call | None] = ContextVar("divcon_call", default=None)


def current_call() -> Call:
    """The call that is being made here; one that nobody looks at where none is."""
    return _call.get() or Call()


def current_traffic() -> Traffic:
    """What is watched here; one that nobody looks at where nothing is."""
    found: Traffic | None = dspy.settings.get(_SETTING)
    return found or Traffic()


@contextmanager
def watching() -> Iterator[Traffic]:
    """Watch the calls made inside the block, in DSPy's threads and tasks too."""
    traffic = Traffic()
    with dspy.context(**{_SETTING: traffic}):
        yield traffic
