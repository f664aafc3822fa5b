"""A driver's side: what workers send back becomes rows of the store and results of jobs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from divcon.distill._engine import booking
from divcon.distill._jobs import Job
from divcon.distill._store import RunStore
from divcon.distill._traffic import Call, current_traffic
from divcon.distill.executors._wire import pack_job, unpack_error, unpack_result
from divcon.signatures import FatalError

_LOSSES = 5  # workers that one job may outlive; a job that ends its workers would go on for ever

Sent = Iterable[tuple[str, str]]


class WorkerLost(Exception):
    """A worker ended in the middle of a job, with its node or by itself."""


class WorkersLost(FatalError):
    """Workers keep ending."""


def done_elsewhere(job: Job | None, store: RunStore, send: Callable[[str | None, str, str], Sent]) -> Any:
    """Have a job done by a worker, and write here what it would have written.

    Where its worker is lost it is done again: what was answered before is in the store by then, so that only what was
    in flight is asked again.

    Args:
        job: The job; None for a cell.
        store: The run's.
        send: Sends the job, the station and the cell to a worker and gives what comes back. It raises `WorkerLost`
            where the worker is, and takes another one the next time.

    Raises:
        WorkersLost: One job has outlived too many workers.
        Exception: What the job raised there.
    """
    packed = None if job is None else pack_job(job)
    for _ in range(_LOSSES):
        try:
            with current_traffic().call() as call:
                return _received(job, store, send(packed, *booking()), call)
        except WorkerLost:
            continue
    what = "a cell" if job is None else f"'{job.work}' of {job.item.id}"
    raise WorkersLost(
        f"{_LOSSES} workers ended in the middle of {what}.", "Look at the workers' logs: memory is the usual reason."
    )


def _received(job: Job | None, store: RunStore, sent: Sent, call: Call) -> Any:
    for kind, text in sent:
        if kind == "row":
            table, row = json.loads(text)
            store.write_row(table, row)
            if table == "calls":
                current_traffic().ended(call, row[8], row[11])
        elif kind == "error":
            raise unpack_error(text)
        else:
            return None if job is None else unpack_result(job, text)
    raise WorkerLost
