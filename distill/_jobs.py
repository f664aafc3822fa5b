"""Jobs: run many calls at once and yield each result as it ends; a failed job or Ctrl-C loses no other result."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from dspy.utils.exceptions import (
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMTransportError,
    LMUnsupportedModelError,
)

from divcon.distill._budget import BudgetSpent
from divcon.distill._stopping import step
from divcon.distill._stored import Trace
from divcon.distill._trouble import GivenUpError, SlowServerError, asks_for_too_long, causes_of, is_too_long, refusal
from divcon.programs import Item
from divcon.signatures import DivconError, FatalError

J = TypeVar("J")
R = TypeVar("R")

# After one of these errors every further call would fail in the same way.
HOPELESS = (LMAuthError, LMBillingError, LMConfigurationError, LMUnsupportedModelError, GivenUpError)
# A station gives up after so many calls in a row that couldn't reach the server.
_UNREACHED_LIMIT = 3
# A station gives up where its first so many calls are refused in the same words, and none is answered.
_REFUSED_LIMIT = 3


class Progress(Protocol):
    """Gets the number of a station's jobs that are done, the total, and a remark on the job that ended last.

    `unit` names what is counted where it isn't what the station counts.
    """

    def __call__(self, done: int, total: int, remark: str = "", unit: str = "") -> None: ...


@dataclass(frozen=True)
class Job:
    """One piece of a station's work, as plain data, so that it can be done in another process.

    Attributes:
        work: The name of the work, such as `collect`, `screen oracle` or `evaluate sd-r`.
        item: The item with the question.
        sample: The number of the sample, from 0.
        traces: The decompositions to judge or solve.
        lora: The adapter that answers; None for the run's own.
        position: The item's index in its set; results are stored in that order.
        warm_up: Whether the job runs alone first, while a server starts or weights are loaded.
    """

    work: str
    item: Item
    sample: int = 0
    traces: tuple[Trace, ...] = ()
    lora: str | None = None
    position: int = 0
    warm_up: bool = False


class Place(Protocol):
    """Where jobs are done: takes the function that does a job here, and returns the function to call for each job."""

    def __call__(self, work: Callable[[Job], R]) -> Callable[[Job], R]: ...


def here(work: Callable[[Job], R]) -> Callable[[Job], R]:
    """The place that does jobs in this process."""
    return work


@dataclass
class Tally:
    """Counts of a station's jobs.

    Attributes:
        total: All jobs, including those of earlier runs.
        done: Jobs that ended, with or without an error.
        failed: Jobs that ended with an error.
        first_error: The error of the first job that failed.
    """

    total: int
    done: int = 0
    failed: int = 0
    first_error: Exception | None = None

    @property
    def said(self) -> str | None:
        """The type and message of the first error, or None."""
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
    enough: Callable[[], Exception | None] = lambda: None,
) -> Tally:
    """Do every job, keep each result as it comes, and count the failures.

    Args:
        work: Does one job; see `overlapped`.
        jobs: The jobs that aren't done yet.
        concurrency: Jobs at a time.
        keep: Stores a result. It is called in the caller's thread only, so there is one writer.
        tally: The counts to continue from; by default they start at 0 of `len(jobs)`.
        failed: Called with each job that failed and its error.
        progress: Called after each job that ended.
        remark: Returns the remark on a job that `progress` gets.
        enough: See `overlapped`.

    Returns:
        The counts.

    Raises:
        FatalError: No further call can be made, or no further result stored.
        dspy.LMError: Every further call would fail in the same way.
    """
    tally = tally if tally is not None else Tally(len(jobs))
    try:
        for job, result, error in overlapped(work, jobs, concurrency, enough):
            if error is None:
                keep(job, result)  # type: ignore[arg-type]
            else:
                tally.failed += 1
                tally.first_error = tally.first_error or error
                if failed is not None:
                    failed(job, error)
            tally.done += 1
            if progress is not None:
                progress(tally.done, tally.total, remark(job))
    except BudgetSpent as spent:
        missing = tally.total - tally.done + tally.failed
        left = f"{missing:,} of the station's {tally.total:,} jobs are missing."
        raise BudgetSpent(f"{spent.problem} {left}", spent.remedy) from spent
    return tally


def cause_of_ours(error: BaseException | None) -> DivconError | None:
    """The divcon error in an error and its causes, or None; DSPy wraps the errors of an engine in LM errors."""
    found = () if error is None else (error, *causes_of(error))
    return next((one for one in found if isinstance(one, DivconError)), None)


def overlapped(
    work: Callable[[J], R],
    jobs: Sequence[J],
    concurrency: int,
    enough: Callable[[], Exception | None] = lambda: None,
) -> Iterator[tuple[J, R | None, Exception | None]]:
    """Run `work` on every job, `concurrency` at a time, and yield (job, result, error) as each ends.

    It stops early where every further call would fail too: the server refuses the API key, refuses all requests in the
    same words, can't be reached, has never sent a token, asks for a long wait, or was given up. Then no further job is
    begun, the results of those that run are yielded, and the error is raised. A slow or overloaded server doesn't stop
    it.

    Args:
        work: Called in threads, each time in a copy of the caller's context.
        jobs: The jobs to do.
        concurrency: Jobs at a time.
        enough: Asked after each job. Where it returns an error, no further job is begun, and the error is raised once
            the running ones have ended.

    Raises:
        KeyboardInterrupt: On Ctrl-C: at once, or inside `stopping_after_steps` once the running jobs have ended.
    """
    unreached = 0
    refusals = _Refusals(len(jobs))
    stopped: Exception | None = None
    pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="divcon")
    with step() as stops, nothing_begins_after(pool):
        waiting = iter(jobs)
        running: dict[Future[R], J] = {}

        def start_next() -> None:
            for job in () if stops() else waiting:
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
                if stopped is not None:
                    if error is None:
                        yield job, future.result(), None
                    continue
                unreached = unreached + 1 if _is_unreached(error) else 0
                stopped = _hopeless(error)
                if stopped is None and error is not None and (unreached >= _UNREACHED_LIMIT or refusals.are_all(error)):
                    stopped = error
                if stopped is not None:
                    continue  # calls in flight are paid for, so their results are yielded before the error is raised
                if error is None:
                    refusals.answered()
                yield job, None if error is not None else future.result(), error
                stopped = enough()
                if stopped is None:
                    start_next()
        if stopped is not None:
            raise stopped
        if next(waiting, None) is not None:
            raise KeyboardInterrupt


@contextmanager
def nothing_begins_after(pool: ThreadPoolExecutor) -> Iterator[None]:
    """Let the pool begin nothing more after the block, and don't wait for what it is at."""
    try:
        yield
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _hopeless(error: Exception | None) -> Exception | None:
    """The error to raise where every further call would fail as this one did, or None."""
    if error is not None and (isinstance(error, HOPELESS) or asks_for_too_long(error)):
        return error
    return ours if isinstance(ours := cause_of_ours(error), FatalError) else None


def _is_unreached(error: BaseException | None) -> bool:
    return isinstance(error, LMTransportError) or (isinstance(error, SlowServerError) and error.mute)


class _Refusals:
    """Finds out whether all calls are refused in the same words.

    Args:
        jobs: The number of the station's calls.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._words: str | None = None
        self._count = 0
        self._answered = False

    def answered(self) -> None:
        """Record that a call was answered, so that not all are refused."""
        self._answered = True

    def are_all(self, error: Exception) -> bool:
        """Whether this call was refused, as all calls before it."""
        words = refusal(error)
        if words is None or self._answered:
            return False
        self._count = self._count + 1 if words == self._words else 1
        self._words = words
        # Prompts differ in length, so that some may fit although the first ones are too long.
        enough = self._jobs if is_too_long(error) else min(_REFUSED_LIMIT, self._jobs)
        return self._count >= enough
