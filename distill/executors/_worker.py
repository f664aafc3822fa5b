"""The worker: it does jobs, and sends its rows to the driver instead of writing them into the run's store."""

from __future__ import annotations

import contextvars
import importlib
import json
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from divcon.distill._booking import at_station, booked_to
from divcon.distill._files import has_ended
from divcon.distill._jobs import Job
from divcon.distill._store import RunStore, masked_row
from divcon.distill._stored import StoredCall
from divcon.distill.executors._executor import Recipe
from divcon.distill.executors._wire import pack_error, pack_result, unpack_job
from divcon.signatures import masked_json

_outbox: contextvars.ContextVar[queue.SimpleQueue[tuple[str, str]] | None] = contextvars.ContextVar(
    "divcon_outbox", default=None
)


_PREFIX = "divcon-worker-"


def _sweep() -> None:
    """Remove the temporary folders that killed workers left behind."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        process = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if process.isdigit() and has_ended(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


class Lookup(Protocol):
    """Reads the run's store for a worker."""

    def reply(self, key: str) -> str | None:
        """A stored reply as JSON: response, seconds and cost."""

    def rows(self, table: str, key: str) -> str:
        """The rows of a table with a key, as a JSON list."""


class StoreLookup:
    """A lookup in a store on this machine.

    Args:
        folder: The folder of the store.
    """

    def __init__(self, folder: Path) -> None:
        self._store = RunStore(folder)

    def reply(self, key: str) -> str | None:
        """See `Lookup.reply`."""
        stored = self._store.reply(key)
        return None if stored is None else json.dumps([stored.response, stored.seconds, stored.cost])

    def rows(self, table: str, key: str) -> str:
        """See `Lookup.rows`."""
        return json.dumps(self._store.rows(table, key))


class ForwardingStore(RunStore):
    """A worker's store: it reads the run's store through a lookup, and sends new rows to the driver.

    New rows are also kept in a folder of the worker's own, so that it can read them before the driver has written them.

    Args:
        folder: The worker's own folder, which is removed with the worker.
        lookup: Reads the run's store.
    """

    def __init__(self, folder: Path, lookup: Lookup) -> None:
        super().__init__(folder)
        self._lookup = lookup
        self._fetched: set[tuple[str, str]] = set()
        self._fetching = threading.Lock()

    def reply(self, key: str) -> StoredCall | None:
        """See `RunStore.reply`."""
        if (found := super().reply(key)) is not None:
            return found
        text = self._lookup.reply(key)
        return None if text is None else StoredCall(*json.loads(text))

    def know_items(self, contents: dict[str, str]) -> None:
        """Does nothing: the driver has recorded the items."""

    def write_row(self, table: str, row: Sequence[Any]) -> None:
        """See `RunStore.write_row`."""
        super().write_row(table, row)
        outbox = _outbox.get()
        assert outbox is not None, "a row was written outside of a job"
        outbox.put(("row", json.dumps([table, masked_row(table, row)])))

    def _before_reading(self, table: str, key: str) -> None:
        with self._fetching:
            if (table, key) not in self._fetched:
                self.write_rows(table, json.loads(self._lookup.rows(table, key)))
                self._fetched.add((table, key))


class Worker:
    """Does jobs in another process than the driver's.

    Args:
        recipe: Makes the function that does the jobs.
        lookup: Reads the run's store.
    """

    def __init__(self, recipe: Recipe, lookup: Lookup) -> None:
        module, _, function = recipe.maker.partition(":")
        _sweep()
        self._folder = tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-")
        self._store = ForwardingStore(Path(self._folder.name), lookup)
        self._make: Callable[..., Callable[[Job | None], Any]] = getattr(importlib.import_module(module), function)
        self._arguments = recipe.arguments
        self._made: Callable[[Job | None], Any] | None = None
        self._making = threading.Lock()

    def do(self, packed: str | None, station: str, cell: str) -> Iterator[tuple[str, str]]:
        """Do a job. Yield the rows to write as they come, then the result or the error.

        Args:
            packed: The job as JSON; None for a cell.
            station: The station that its calls are recorded under.
            cell: The cell of an experiment that its calls are recorded under.

        Yields:
            Pairs of a kind (`row`, `result` or `error`) and its content as JSON.
        """
        outbox: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        job = None if packed is None else unpack_job(packed)

        def work() -> None:
            token = _outbox.set(outbox)
            try:
                with at_station(station), booked_to(cell):
                    result = self._work()(job)
                outbox.put(("result", "" if job is None else masked_json(pack_result(job, result))))
            except BaseException as error:  # noqa: BLE001 - sent to the driver, which raises it
                outbox.put(("error", masked_json(pack_error(error))))
            finally:
                _outbox.reset(token)

        threading.Thread(target=work, name="divcon-job", daemon=True).start()
        while True:
            kind, text = outbox.get()
            yield kind, text
            if kind != "row":
                return

    def _work(self) -> Callable[[Job | None], Any]:
        with self._making:
            if self._made is None:
                self._made = self._make(self._arguments, self._store)
            return self._made
