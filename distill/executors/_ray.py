"""The executor `ray`: jobs on the workers of a Ray cluster, and the cells of an experiment as Ray tasks.

The workers send back every reply as it comes, and only the driver writes the store. divcon passes nothing but JSON text
through Ray. The run folder has to be on storage that all nodes see, since adapters are read and written there. The
store in it is opened on the driver's node alone.
"""

from __future__ import annotations

import atexit
import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from divcon.distill._jobs import Job, Place, nothing_begins_after
from divcon.distill._stopping import step
from divcon.distill._store import RunStore
from divcon.distill.executors._cluster import connected, kill, left, messages_of
from divcon.distill.executors._driver import Sent, done_elsewhere
from divcon.distill.executors._executor import Execution, Recipe
from divcon.distill.executors._pool import LookupActor, Pool, RemoteLookup
from divcon.distill.executors._worker import Worker

R = TypeVar("R")
_LOOK = 1.0  # seconds between looks at whether the cells should stop


class _NotBegun(Exception):
    """A cell that no worker had begun when Ctrl-C was pressed."""


def _cell(recipe: dict[str, Any], lookup: Any, station: str, cell: str) -> Iterator[tuple[str, str]]:
    yield "begun", ""
    yield from Worker(Recipe(**recipe), RemoteLookup(lookup)).do(None, station, cell)


class _Cells:
    """Cells of an experiment as Ray tasks. Those that no worker has begun can be called off.

    Args:
        ray: The package, connected.
        lookup: The lookup of their workers.
        execution: The CPUs and GPUs of each.
        stops: Whether no other cell should begin.
    """

    def __init__(self, ray: Any, lookup: Any, execution: Execution, stops: Callable[[], bool]) -> None:
        self._ray, self._lookup, self._stops = ray, lookup, stops
        options = {"num_cpus": execution.cell_cpus, "num_gpus": execution.cell_gpus}
        self._task = ray.remote(_cell).options(**options, num_returns="streaming", max_retries=0)
        self._waiting: dict[str, Any] = {}  # by the cell's name, what its worker will send once it has begun

    def do(self, recipe: Recipe, store: RunStore) -> None:
        """Have a worker do a cell.

        Raises:
            _NotBegun: It was called off.
        """
        done_elsewhere(None, store, lambda *sent: self._send(recipe))

    def _send(self, recipe: Recipe) -> Sent:
        name = str(recipe.arguments.get("cell", ""))
        if self._stops():
            raise _NotBegun
        stream = self._waiting[name] = self._task.remote(asdict(recipe), self._lookup, "", name)
        try:
            for kind, text in messages_of(stream):
                self._waiting.pop(name, None)
                if kind != "begun":
                    yield kind, text
        except self._ray.exceptions.TaskCancelledError as error:
            raise _NotBegun from error

    def call_off(self) -> None:
        """End the cells that no worker has begun."""
        for name in list(self._waiting):
            if (stream := self._waiting.pop(name, None)) is not None:
                self._ray.cancel(stream)


class RayExecutor:
    """See `Executor`."""

    extra: ClassVar[str] = "ray"

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self._pools: dict[tuple[Path, str], Pool] = {}
        self._lookups: dict[Path, Any] = {}
        self._lock = threading.Lock()

    def place(self, recipe: Callable[[], Recipe], store: RunStore) -> Place:
        """See `Executor.place`."""

        def placed(work: Callable[[Job], R]) -> Callable[[Job], R]:
            pool = self._pool(recipe(), store)

            def do(job: Job) -> R:
                with pool.under_way():
                    found: R = done_elsewhere(job, store, lambda *sent: pool.send(job, *sent))
                    return found

            return do

        return placed

    def do_cells(self, cells: Sequence[Recipe], store: RunStore) -> list[Exception | None]:
        """See `Executor.do_cells`. Each cell is a Ray task with the CPUs and GPUs that the file declares.

        All are given to the cluster at once, which may grow for them.
        """
        ray, lookup = self._connected(), self._lookup(store)
        pool = ThreadPoolExecutor(max(1, len(cells)), thread_name_prefix="divcon-cell")
        with step() as stops, nothing_begins_after(pool):
            made = _Cells(ray, lookup, self.execution, stops)
            doing = [pool.submit(contextvars.copy_context().run, made.do, recipe, store) for recipe in cells]
            going = set(doing)
            while going:
                going = wait(going, timeout=_LOOK).not_done
                if stops():
                    made.call_off()
            errors = [future.exception() for future in doing]
            if any(isinstance(error, _NotBegun) for error in errors):
                raise KeyboardInterrupt
        return [error if isinstance(error, Exception) else None for error in errors]

    def release(self, store: RunStore) -> None:
        """See `Executor.release`."""
        with self._lock:
            gone = [self._pools.pop(key) for key in list(self._pools) if key[0] == store.folder]
        for pool in gone:
            pool.close()

    def close(self) -> None:
        """See `Executor.close`. A cluster that was started here is shut down once nothing in this process uses it."""
        atexit.unregister(self.close)
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
            lookups, self._lookups = list(self._lookups.values()), {}
        for pool in pools:
            pool.close()
        kill(lookups)
        left(self)

    def _connected(self) -> Any:
        ray = connected(self, self.execution.address)
        # A command leaves its workers to the end of the process. This comes before what Ray does there, which would
        # interrupt the threads that wait for workers.
        atexit.unregister(self.close)
        atexit.register(self.close)
        return ray

    def _lookup(self, store: RunStore) -> Any:
        ray = self._connected()
        with self._lock:
            if store.folder not in self._lookups:
                from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

                here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
                actor = ray.remote(LookupActor).options(num_cpus=0, max_concurrency=16, scheduling_strategy=here)
                self._lookups[store.folder] = actor.remote(str(store.folder.absolute()))
            return self._lookups[store.folder]

    def _pool(self, recipe: Recipe, store: RunStore) -> Pool:
        ray, lookup = self._connected(), self._lookup(store)
        with self._lock:
            key = (store.folder, repr(recipe))
            if key not in self._pools:
                size = self.execution.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
                self._pools[key] = Pool(ray, recipe, lookup, self.execution, size)
            return self._pools[key]
