"""The driver: it sends jobs to workers, writes the rows they send back into the store, and returns their results."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any

from divcon.distill._booking import booking
from divcon.distill._jobs import Job
from divcon.distill._store import RunStore
from divcon.distill._traffic import Call, current_traffic
from divcon.distill.executors._wire import pack_job, unpack_error, unpack_result
from divcon.signatures import FatalError, masked_json

_LOSSES = 5  # workers that may end during one job; without a limit, a job that crashes its worker would repeat forever

Sent = Iterable[tuple[str, str]]
"""(kind, text) of what a worker sends back: rows, and then a result or an error."""


class WorkerLost(Exception):
    """A worker ended in the middle of a job, alone or with its node."""


class WorkersLost(FatalError):
    """Too many workers have ended in the middle of the same job."""


def done_elsewhere(job: Job | None, store: RunStore, send: Callable[[str | None, str, str], Sent]) -> Any:
    """Have a worker do a job, and write the rows it sends back into the store.

    Where the worker is lost, the job is repeated. Replies that arrived before are in the store, so only the calls in
    flight are made again.

    Args:
        job: The job; None for a cell.
        store: The run's store.
        send: Sends (job, station, cell) to a worker and yields what the worker sends back. It raises `WorkerLost` where
            the worker is lost, and uses another worker the next time.

    Raises:
        WorkersLost: Too many workers ended during this job.
        BudgetSpent: The run's budget leaves room for no further call. Jobs that have begun end first.
        Exception: The error that the job raised on the worker.
    """
    station, cell = booking()
    if store.budget is not None:
        store.budget.check(station)
    packed = None if job is None else pack_job(job)
    for _ in range(_LOSSES):
        try:
            # An error that is kept keeps its frames, and the worker would count as busy.
            with current_traffic().call() as call, closing(_each(send(packed, station, cell))) as sent:
                return _received(job, store, sent, call)
        except WorkerLost:
            continue
    what = "a cell" if job is None else f"'{job.work}' of {job.item.id}"
    raise WorkersLost(
        f"{_LOSSES} workers ended in the middle of {what}.", "Look at the workers' logs; most often memory ran out."
    )


def _each(sent: Sent) -> Generator[tuple[str, str], None, None]:
    """What is sent; closing it closes the sender too, where that is a generator."""
    yield from sent


def _received(job: Job | None, store: RunStore, sent: Sent, call: Call) -> Any:
    for kind, text in sent:
        if kind == "row":
            table, row = json.loads(text)
            store.write_row(table, row)
            if table == "calls":
                current_traffic().ended(call, row[8], row[11])
        elif kind == "error":
            raise unpack_error(masked_json(text))
        else:
            return None if job is None else unpack_result(job, masked_json(text))
    raise WorkerLost
