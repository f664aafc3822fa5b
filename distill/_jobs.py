"""Jobs: many calls at once, results as they come, and nothing lost when one fails or the user stops."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dspy.utils.exceptions import LMAuthError, LMBillingError, LMConfigurationError, LMTransportError

from divcon.distill._store import Trace
from divcon.distill._trouble import SlowServerError, asks_for_too_long
from divcon.programs import Item
from divcon.signatures import DivconError, FatalError

J = TypeVar("J")
R = TypeVar("R")

# After these every further call fails the same way, so going on only costs time.
HOPELESS = (LMAuthError, LMBillingError, LMConfigurationError)
# A server that can't be reached is given this many chances before a station gives up.
_UNREACHED_LIMIT = 3


class Progress(Protocol):
    """Takes how much of a station's work is done, of how much, and a remark on what was done last."""

    def __call__(self, done: int, total: int, remark: str = "") -> None: ...


@dataclass(frozen=True)
class Job:
    """One piece of a station's work, as plain data, so that it can be done in another process.

    Attributes:
        work: The name of what is to be done: `collect`, `screen oracle`, `evaluate sd-r`.
        item: The question it is about.
        sample: Which of several samples.
        traces: Decompositions that are judged or solved.
        lora: The adapter that answers, where it isn't the run's own.
        position: Where the item stands in its set; results are kept in that order.
        warm_up: Whether it is done alone, while a server or weights are loaded.
    """

    work: str
    item: Item
    sample: int = 0
    traces: tuple[Trace, ...] = ()
    lora: str | None = None
    position: int = 0
    warm_up: bool = False


class Place(Protocol):
    """Where jobs are done: takes a station's work as this process does it, and gives what is called for each job."""

    def __call__(self, work: Callable[[Job], R]) -> Callable[[Job], R]: ...


def here(work: Callable[[Job], R]) -> Callable[[Job], R]:
    """Jobs are done in this process."""
    return work


@dataclass
class Tally:
    """What became of a station's jobs.

    Attributes:
        total: All, those of earlier runs included.
        done: Those that ended, well or not.
        failed: Those that failed.
        first_error: The error of the first that failed.
        first_failed: That job's question.
    """

    total: int
    done: int = 0
    failed: int = 0
    first_error: Exception | None = None
    first_failed: str = ""

    @property
    def said(self) -> str | None:
        """The first error in words, or None."""
        return None if self.first_error is None else f"{type(self.first_error).__name__}: {self.first_error}"


def run_jobs(
    work: Callable[[J], R],
    jobs: Sequence[J],
    concurrency: int,
    keep: Callable[[J, R], None],
    *,
    tally: Tally | None = None,
    failed: Callable[[J, Exception], None] | None = None,
    progress: Progress | None = None,
    remark: Callable[[J], str] = lambda job: "",
) -> Tally:
    """Do every job, keep each result as it comes, and count what failed.

    Args:
        work: Does one job; see `overlapped`.
        jobs: Those that aren't done yet.
        concurrency: Jobs at a time.
        keep: Takes a result; called in the caller's thread, so whatever it writes has one writer.
        tally: Goes on counting there; by default `jobs` are all there are.
        failed: Told of a job that failed.
        progress: Told of every job that ended.
        remark: What it is told of the job.

    Returns:
        The counts.

    Raises:
        FatalError: Nothing more can be asked or kept.
        dspy.LMError: Every further call would fail the same way.
    """
    tally = tally if tally is not None else Tally(len(jobs))
    for job, result, error in overlapped(work, jobs, concurrency):
        if error is None:
            keep(job, result)  # type: ignore[arg-type]
        else:
            tally.failed += 1
            if tally.first_error is None:
                tally.first_error, tally.first_failed = error, getattr(getattr(job, "item", None), "question", "")
            if failed is not None:
                failed(job, error)
        tally.done += 1
        if progress is not None:
            progress(tally.done, tally.total, remark(job))
    return tally


def cause_of_ours(error: BaseException | None) -> DivconError | None:
    """The error of divcon's own behind an LM's, which is how DSPy passes on what an engine raises; or None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, DivconError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def overlapped(
    work: Callable[[J], R], jobs: Sequence[J], concurrency: int
) -> Iterator[tuple[J, R | None, Exception | None]]:
    """Run `work` on every job, `concurrency` at a time, and yield (job, result, error) as each ends.

    Stops early where going on is hopeless: a refused key, a server that can't be reached or has never given a token,
    or one that wants to be left alone for long. The error is raised; what was yielded before stands. A slow or
    overloaded server stops nothing.

    Args:
        work: Called in threads, each in a copy of the caller's context.
        jobs: What to work on.
        concurrency: Calls at a time.
    """
    unreached = 0
    wait_for_running = False
    pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="divcon")
    try:
        waiting = iter(jobs)
        running: dict[Future[R], J] = {}

        def start_next() -> None:
            for job in waiting:
                running[pool.submit(contextvars.copy_context().run, work, job)] = job
                return

        for _ in range(concurrency):
            start_next()
        while running:
            ended, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in ended:
                job = running.pop(future)
                error = future.exception()
                if error is not None and not isinstance(error, Exception):
                    raise error
                if error is not None and (isinstance(error, HOPELESS) or asks_for_too_long(error)):
                    raise error
                if isinstance(ours := cause_of_ours(error), FatalError):
                    raise ours
                unreached = unreached + 1 if _is_unreached(error) else 0
                if error is not None and unreached >= _UNREACHED_LIMIT:
                    raise error
                yield job, None if error is not None else future.result(), error
                start_next()
    except Exception:
        wait_for_running = True  # what is in flight is paid for: it is kept before the error comes out
        raise
    finally:
        pool.shutdown(wait=wait_for_running, cancel_futures=True)


def _is_unreached(error: BaseException | None) -> bool:
    return isinstance(error, LMTransportError) or (isinstance(error, SlowServerError) and error.mute)
