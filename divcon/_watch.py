"""Watching a station: how it goes is told every second, also while nothing ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from divcon.distill import Progress, RunStore, Traffic, watching

_TICK = 1.0  # seconds


class Reporter(Protocol):
    """Who is told how a run goes."""

    def station(self, name: str, text: str) -> None:
        """A station begins."""

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        """How far a station is; told every second, by another thread too.

        Args:
            name: The station.
            done: How much of `total` is there.
            total: In all.
            note: What that counts, and how it goes.
        """

    def finished(self, name: str, text: str) -> None:
        """A part of a station is over, or something else is worth a line."""


class Silent:
    """Tells nobody."""

    def station(self, name: str, text: str) -> None: ...

    def progress(self, name: str, done: int, total: int, note: str = "") -> None: ...

    def finished(self, name: str, text: str) -> None: ...


class Watch:
    """What is known of how a station goes, and what is said of it.

    Args:
        traffic: The calls it makes; None where it makes none.
        unit: What it counts.
        spent: US dollars that the run's calls cost before; None where none of them has a price.
        clock: Seconds, for tests.
    """

    def __init__(
        self,
        traffic: Traffic | None,
        unit: str,
        spent: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.done = 0
        self.total = 0
        self._remark = ""
        self._traffic = traffic
        self._unit = unit
        self._spent = spent
        self._clock = clock
        self._began: tuple[float, int] | None = None
        self._last = clock()

    def goes_on(self, done: int, total: int, remark: str = "") -> None:
        """Take how far it is."""
        self._last = self._clock()
        if self._began is None:
            self._began = (self._last, done)
        self.done, self.total, self._remark = done, total, remark

    def note(self) -> str:
        """How it goes, in words: what is counted, what waits and why, an estimate of the end, and money so far."""
        remaining = self.total - self.done
        parts = [self._unit + (f" ({self._remark})" if self._remark else "")]
        if remaining and self._traffic is not None:
            parts += self._traffic.said(remaining)
        if (left := self._seconds_left()) is not None:
            parts.append(f"~{_in_words(left)} left")
        if self._traffic is not None and (self._spent is not None or self._traffic.priced):
            parts.append(f"${(self._spent or 0.0) + self._traffic.cost:.4f} so far")
        return ", ".join(parts)

    def _seconds_left(self) -> float | None:
        """By the pace since it began; unknown until something has ended."""
        if self._began is None or self.total <= self.done:
            return None
        since, there = self._began
        if self.done == there:
            return None
        # Replies that are sent together end together, so the time since the last ones counts towards the next.
        worked = self._last - since
        return max(0.0, worked / (self.done - there) * (self.total - self.done) - (self._clock() - self._last))


@contextmanager
def watched(
    reporter: Reporter,
    name: str,
    store: RunStore | None = None,
    prices: Mapping[str, Mapping[str, float]] | None = None,
    unit: str = "answers",
) -> Iterator[Progress]:
    """Tell a reporter how a station goes while the block runs.

    Args:
        reporter: Is told every second.
        name: The station.
        store: The run's, for what was paid before; None where the station asks no model.
        prices: US dollars per million tokens by role, as they are known now.
        unit: What the station counts.

    Yields:
        What the station tells how far it is.
    """
    paid = store.paid(prices=prices).values() if store is not None else []
    spent = [role["cost"] for role in paid if role["cost"] is not None]
    over, telling = threading.Event(), threading.Lock()
    with watching() as traffic:
        watch = Watch(traffic if store is not None else None, unit, sum(spent) if spent else None)

        def tell() -> None:
            with telling:
                if watch.total and not over.is_set():
                    reporter.progress(name, watch.done, watch.total, watch.note())

        def goes_on(done: int, total: int, remark: str = "") -> None:
            watch.goes_on(done, total, remark)
            tell()

        def tick() -> None:
            while not over.wait(_TICK):
                tell()

        ticking = threading.Thread(target=tick, name="divcon-watch", daemon=True)
        ticking.start()
        try:
            yield goes_on
        finally:
            over.set()
            with telling:
                pass  # a line that is being told is told whole, and none after it


def by_loss(progress: Progress) -> Callable[[int, int, float], None]:
    """Progress as a training tells it: steps done, of how many, the loss of the last."""
    return lambda done, total, loss: progress(done, total, f"loss {loss:.3f}")


def _in_words(seconds: float) -> str:
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
