"""Watching a station: report its progress every second, even while no call ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from divcon.distill import Progress, RunStore, Traffic, watching
from divcon.programs import PriceOf

_TICK = 1.0  # seconds


class Reporter(Protocol):
    """Gets the progress and the result lines of a run."""

    def station(self, name: str, text: str) -> None:
        """Report that a station begins."""

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        """Report the progress of a station. It is called every second, also from another thread.

        Args:
            name: The station.
            done: The count that is done.
            total: The count when all is done.
            note: The unit of the counts, and the state of the calls.
        """

    def finished(self, name: str, text: str) -> None:
        """Report that a part of a station is done, or another line."""


class Silent:
    """A reporter that shows nothing."""

    def station(self, name: str, text: str) -> None: ...

    def progress(self, name: str, done: int, total: int, note: str = "") -> None: ...

    def finished(self, name: str, text: str) -> None: ...


class _Since(NamedTuple):
    """From where speed and cost are taken."""

    time: float
    done: int
    cost: float
    calls: int  # that had begun; 0 for a station that makes none


class Watch:
    """The progress of a station, and the note that is reported with it.

    Args:
        traffic: The calls of the station; None where it makes none.
        unit: The unit of its counts, such as `answers`.
        spent: US dollars of the run's earlier calls; None where none of them has a price.
        clock: Returns the time in seconds; tests replace it.
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
        self._counted = unit
        self._traffic = traffic
        self._unit = unit
        self._spent = spent
        self._clock = clock
        self._since: _Since | None = None
        self._last = clock()

    def update(self, done: int, total: int, remark: str = "", unit: str = "") -> None:
        """Take new counts; see `Progress`.

        With another total, a lower count or another unit, another part of the station's work begins.
        """
        self._last = self._clock()
        counted = unit or self._unit
        traffic = self._traffic
        now = _Since(self._last, done, traffic.cost if traffic else 0.0, traffic.begun if traffic else 0)
        if self._since is None or total != self.total or done < self.done or counted != self._counted:
            self._since = now
        elif traffic and now.calls == self._since.calls:
            self._since = now  # without a call, what has ended came from the store
        self.done, self.total, self._remark, self._counted = done, total, remark, counted

    def note(self) -> str:
        """The note: the unit, the rate, the time left, the cost so far and with all, and the state of the calls."""
        remaining = self.total - self.done
        parts = [self._counted + (f" ({self._remark})" if self._remark else "")]
        if (left := self._seconds_left()) is not None:
            # The last replies of a batch are its longest, so they may end long after the average says.
            parts += [self._rate(), f"~{in_words(left)} left" if left > 0 else "later than estimated"]
        parts += self._money()
        if remaining and self._traffic is not None:
            parts += self._traffic.said(remaining)
        return ", ".join(parts)

    def _rate(self) -> str:
        """How many end in a second, a minute or an hour, on average so far."""
        assert self._since is not None
        each_second = (self.done - self._since.done) / max(self._last - self._since.time, 1e-3)
        for seconds, unit in ((1, "s"), (60, "min")):
            if each_second * seconds >= 1:
                return f"{each_second * seconds:.2g}/{unit}" if each_second * seconds < 100 else f"{each_second:.0f}/s"
        return f"{each_second * 3600:.2g}/h"

    def _money(self) -> Iterator[str]:
        """The cost so far, and with all that is counted, if the rest costs as much as what has ended."""
        traffic = self._traffic
        if traffic is None or (self._spent is None and not traffic.priced):
            return
        so_far = (self._spent or 0.0) + traffic.cost
        yield f"${so_far:.4f} so far"
        since = self._since
        if since is not None and traffic.priced and since.done < self.done < self.total:
            each = (traffic.cost - since.cost) / (self.done - since.done)
            yield f"~${so_far + each * (self.total - self.done):.4f} with all {self.total:,}"

    def _seconds_left(self) -> float | None:
        """The estimated seconds left, from the average speed so far; None until enough has ended to tell it.

        They are 0 or less where nothing has ended for as long as the rest was estimated to take.
        """
        if self._since is None or self.total <= self.done:
            return None
        ended = self.done - self._since.done
        # Calls that were sent together have worked side by side. The first of 100 to end says nothing of the speed.
        if ended < max(1, self._traffic.under_way if self._traffic is not None else 0):
            return None
        # Replies often end in batches, so the time since the last one is counted as work on the next ones.
        worked = self._last - self._since.time
        return worked / ended * (self.total - self.done) - (self._clock() - self._last)


@contextmanager
def watched(
    reporter: Reporter,
    name: str,
    store: RunStore | None = None,
    price_of: PriceOf | None = None,
    unit: str = "answers",
    unpaid: Collection[str] = (),
) -> Iterator[Progress]:
    """Report the progress of a station every second while the block runs.

    Args:
        reporter: Gets the progress.
        name: The station.
        store: The run's store, which knows the cost of earlier calls; None where the station makes no calls.
        price_of: Tells current prices.
        unit: The unit of the station's counts.
        unpaid: Roles whose calls ask nobody.

    Yields:
        A function that the station calls with its counts.
    """
    paid = store.paid(price_of=price_of) if store is not None else {}
    spent = [of["cost"] for role, of in paid.items() if role not in unpaid and of["cost"] is not None]
    over, reporting = threading.Event(), threading.Lock()
    with watching() as traffic:
        watch = Watch(traffic if store is not None else None, unit, sum(spent) if spent else None)

        def report() -> None:
            with reporting:
                if watch.total and not over.is_set():
                    reporter.progress(name, watch.done, watch.total, watch.note())

        def update(done: int, total: int, remark: str = "", unit: str = "") -> None:
            watch.update(done, total, remark, unit)
            report()

        def tick() -> None:
            while not over.wait(_TICK):
                report()

        ticking = threading.Thread(target=tick, name="divcon-watch", daemon=True)
        ticking.start()
        try:
            yield update
        finally:
            over.set()
            with reporting:
                pass  # wait for a report that has begun; no other begins


def by_loss(progress: Progress) -> Callable[[int, int, float], None]:
    """The progress callback of a training: takes the steps done, all steps, and the loss of the last step."""
    return lambda done, total, loss: progress(done, total, f"loss {loss:.3f}")


def in_words(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
