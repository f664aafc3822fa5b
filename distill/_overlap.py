"""Many calls at once, results as they come, and nothing lost when one fails or the user stops."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from dspy.utils.exceptions import LMAuthError, LMBillingError, LMConfigurationError, LMTransportError

from divcon.distill._http import SlowServerError, asks_for_too_long
from divcon.distill._store import StoreError
from divcon.distill.serving.server import ServerError
from divcon.signatures import DivconError

T = TypeVar("T")
R = TypeVar("R")

# After these every further call fails the same way, so going on only costs time.
HOPELESS = (LMAuthError, LMBillingError, LMConfigurationError)
# A server that can't be reached is given this many chances before a station gives up.
_UNREACHED_LIMIT = 3


def _ends_all(error: BaseException | None) -> DivconError | None:
    """The error of the store or of a server of ours behind an LM's, which is how DSPy passes on what an engine raises.

    What can't be kept isn't asked for, and a server that has died for good answers nothing.
    """
    found = error_behind(error)
    return found if isinstance(found, (StoreError, ServerError)) else None


def _is_unreached(error: BaseException | None) -> bool:
    return isinstance(error, LMTransportError) or (isinstance(error, SlowServerError) and error.mute)


def error_behind(error: BaseException | None) -> DivconError | None:
    """The error of divcon's own that an LM's error was made from, or None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, DivconError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def overlapped(
    work: Callable[[T], R], jobs: Sequence[T], concurrency: int
) -> Iterator[tuple[T, R | None, Exception | None]]:
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
    land = False
    pool = ThreadPoolExecutor(max_workers=concurrency, thread_name_prefix="divcon")
    try:
        waiting = iter(jobs)
        running: dict[Future[R], T] = {}

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
                if (final := _ends_all(error)) is not None:
                    raise final
                unreached = unreached + 1 if _is_unreached(error) else 0
                if error is not None and unreached >= _UNREACHED_LIMIT:
                    raise error
                yield job, None if error is not None else future.result(), error
                start_next()
    except Exception:
        land = True  # what is in flight is paid for, and kept where it lands before the error comes out
        raise
    finally:
        pool.shutdown(wait=land, cancel_futures=True)
