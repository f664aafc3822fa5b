"""The executor `ray`: jobs on the workers of a Ray cluster, and the cells of an experiment as Ray tasks.

The workers send back every reply as it comes, and only the driver writes the store. divcon passes nothing but JSON text
through Ray. The run folder has to be on storage that all nodes see, since adapters are read and written there. The
store in it is opened on the driver's node alone.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from divcon.distill._jobs import Job, Place
from divcon.distill._store import RunStore
from divcon.distill.executors._driver import WorkerLost, done_elsewhere
from divcon.distill.executors._executor import Execution, Recipe
from divcon.distill.executors._worker import StoreLookup, Worker
from divcon.signatures import FatalError

R = TypeVar("R")
_AT_ONCE = 256  # the most jobs that a worker does at a time; most of them wait for servers
_UNLUCKY = 30  # workers in a row that may be lost before they begin
_ROOM = 600.0  # seconds to wait for the cluster to have room for a first worker
_PAUSE = 1.0  # seconds from a worker that was lost before it began to the next, and between looks at one that starts


class RayError(FatalError):
    """Ray isn't installed, or there is no cluster."""


def _ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise RayError("The executor ray needs its package.", "pip install 'divcon[ray]'") from error
    return ray


class _Lookup:
    """The lookup of a worker: a Ray actor on the driver's node."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def reply(self, key: str) -> str | None:
        found: str | None = _ray().get(self._actor.reply.remote(key))
        return found

    def rows(self, table: str, key: str) -> str:
        found: str = _ray().get(self._actor.rows.remote(table, key))
        return found


class _LookupActor(StoreLookup):
    def __init__(self, folder: str) -> None:
        super().__init__(Path(folder))


class _WorkerActor(Worker):
    def __init__(self, recipe: dict[str, Any], lookup: Any) -> None:
        super().__init__(Recipe(**recipe), _Lookup(lookup))

    def ready(self) -> bool:
        """Whether it can do jobs."""
        return True


@dataclass(eq=False)
class _Hired:
    """A worker that is ready, and the number of jobs it is doing by item."""

    actor: Any
    doing: Counter[str] = field(default_factory=Counter)


class _Pool:
    """The workers of one recipe.

    A job goes to a worker that has another job of the same item, so that equal calls become one call there. Otherwise
    it goes to the worker with the fewest jobs. A worker that the cluster has no room for yet joins later.
    """

    def __init__(self, ray: Any, recipe: Recipe, lookup: Any, execution: Execution, size: int) -> None:
        self._ray = ray
        self._recipe = asdict(recipe)
        self._lookup = lookup
        options = {"num_cpus": execution.worker_cpus, "num_gpus": execution.worker_gpus}
        self._actor = ray.remote(_WorkerActor).options(**options, max_concurrency=_AT_ONCE, max_restarts=0)
        self._there: list[_Hired] = []
        self._coming: set[Any] = set()
        self._hiring: set[threading.Thread] = set()
        self._failure: Exception | None = None
        self._unlucky = 0  # workers in a row that were lost before they began
        self._closed = False
        self._changed = threading.Condition()
        for _ in range(size):
            self._hire()

    def send(self, job: Job, packed: str | None, station: str, cell: str) -> Iterator[tuple[str, str]]:
        """Send a job to a worker; see `done_elsewhere`."""
        worker = self._chosen(job.item.id)
        try:
            yield from _stream(
                self._ray, worker.actor.do.options(num_returns="streaming").remote(packed, station, cell)
            )
        except WorkerLost:
            with self._changed:
                gone = worker in self._there
                if gone:
                    self._there.remove(worker)
            if gone:
                self._hire()
            raise
        finally:
            with self._changed:
                worker.doing -= Counter([job.item.id])  # which drops items that nothing is done for any more

    def _chosen(self, item: str) -> _Hired:
        """The worker to do an item's job.

        Raises:
            RayError: No worker has started in time, or workers fail when they start.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._there or self._failure, _ROOM):
                raise RayError(
                    f"No worker has started within {_ROOM:.0f} s: the cluster has no room for one.",
                    "Add nodes, or lower run.worker_cpus and run.worker_gpus.",
                )
            if not self._there:
                assert self._failure is not None
                raise RayError(f"Workers fail when they start: {self._failure}", "Look at the workers' logs.")
            at_it = next((worker for worker in self._there if worker.doing[item] > 0), None)
            worker = at_it or min(self._there, key=lambda one: one.doing.total())
            worker.doing[item] += 1
            return worker

    def _hire(self) -> None:
        """Ask for a worker, which joins the pool when it is ready."""
        with self._changed:
            if self._closed:
                return
            actor = self._actor.remote(self._recipe, self._lookup)
            self._coming.add(actor)
            thread = threading.Thread(target=self._join, args=(actor,), name="divcon-hire", daemon=True)
            self._hiring.add(thread)
            thread.start()

    def _join(self, actor: Any) -> None:
        ready = actor.ready.remote()
        try:
            while not self._closed and not self._ray.wait([ready], timeout=_PAUSE)[0]:
                pass
            if not self._closed:
                self._ray.get(ready)
        except Exception as error:  # noqa: BLE001 - any error at a worker's start is raised by the jobs that wait for it
            self._not_begun(actor, error)
        else:
            with self._changed:
                self._coming.discard(actor)
                if not self._closed:
                    self._there.append(_Hired(actor))
                    self._failure, self._unlucky = None, 0
                    self._changed.notify_all()
        with self._changed:
            self._hiring.discard(threading.current_thread())

    def _not_begun(self, actor: Any, error: Exception) -> None:
        """Ask for another worker in place of one that was lost before it began, or let the jobs that wait fail."""
        # A node that has just died is still given workers for a while; one that fails by itself fails again.
        unlucky = not getattr(error, "actor_init_failed", True)
        with self._changed:
            self._coming.discard(actor)
            self._unlucky += unlucky
            again = unlucky and self._unlucky <= _UNLUCKY
            if not again:
                self._failure = error
                self._changed.notify_all()
            else:
                self._changed.wait_for(lambda: self._closed, _PAUSE)
        if again:
            self._hire()

    def close(self) -> None:
        """End the workers.

        No thread of this pool uses Ray after this. Ray ends the process with a segmentation fault where a thread waits
        for it while it is shut down.
        """
        with self._changed:
            self._closed = True
            actors = [*(worker.actor for worker in self._there), *self._coming]
            hiring = list(self._hiring)
            self._there.clear()
            self._coming.clear()
            self._changed.notify_all()
        for actor in actors:
            self._ray.kill(actor)
        for thread in hiring:
            thread.join()


def _stream(ray: Any, messages: Any) -> Iterator[tuple[str, str]]:
    """Yield the messages of a worker as they come.

    Raises:
        WorkerLost: The worker ended before the job was done.
    """
    lost = (
        ray.exceptions.RayActorError,
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.ObjectLostError,
    )
    try:
        for message in messages:
            yield ray.get(message)
    except lost as error:
        raise WorkerLost from error


def _cell(recipe: dict[str, Any], lookup: Any, station: str, cell: str) -> Iterator[tuple[str, str]]:
    yield from Worker(Recipe(**recipe), _Lookup(lookup)).do(None, station, cell)


class RayExecutor:
    """See `Executor`."""

    extra: ClassVar[str] = "ray"

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self._pools: dict[tuple[Path, str], _Pool] = {}
        self._lookups: dict[Path, Any] = {}
        self._lock = threading.Lock()
        self._started = False

    def place(self, recipe: Callable[[], Recipe], store: RunStore) -> Place:
        """See `Executor.place`."""

        def placed(work: Callable[[Job], R]) -> Callable[[Job], R]:
            pool = self._pool(recipe(), store)
            return lambda job: done_elsewhere(job, store, lambda *sent: pool.send(job, *sent))

        return placed

    def do_cells(self, cells: Sequence[Recipe], store: RunStore) -> list[Exception | None]:
        """See `Executor.do_cells`. Each cell is a Ray task with the CPUs and GPUs that the file declares."""
        ray, lookup = self._connected(), self._lookup(store)
        execution = self.execution
        options = {"num_cpus": execution.cell_cpus, "num_gpus": execution.cell_gpus}
        task = ray.remote(_cell).options(**options, num_returns="streaming", max_retries=0)

        def do(recipe: Recipe) -> None:
            name = str(recipe.arguments.get("cell", ""))
            done_elsewhere(
                None, store, lambda packed, station, cell: _stream(ray, task.remote(asdict(recipe), lookup, "", name))
            )

        with ThreadPoolExecutor(max(1, len(cells)), thread_name_prefix="divcon-cell") as pool:
            doing = [pool.submit(contextvars.copy_context().run, do, recipe) for recipe in cells]
            errors = [future.exception() for future in doing]
        return [error if isinstance(error, Exception) else None for error in errors]

    def release(self, store: RunStore) -> None:
        """See `Executor.release`."""
        with self._lock:
            gone = [self._pools.pop(key) for key in list(self._pools) if key[0] == store.folder]
        for pool in gone:
            pool.close()

    def close(self) -> None:
        """See `Executor.close`. A cluster that this executor started is shut down."""
        with self._lock:
            pools, self._pools = list(self._pools.values()), {}
            lookups, self._lookups = list(self._lookups.values()), {}
        for pool in pools:
            pool.close()
        for lookup in lookups:
            _ray().kill(lookup)
        if self._started:
            self._started = False
            _ray().shutdown()

    def _connected(self) -> Any:
        ray = _ray()
        if not ray.is_initialized():
            try:
                ray.init(
                    address=self.execution.address,
                    namespace="divcon",
                    include_dashboard=False if self.execution.address == "local" else None,
                    log_to_driver=False,
                    logging_level="ERROR",
                    **({"_node_ip_address": "127.0.0.1"} if self.execution.address == "local" else {}),
                )
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise RayError(
                    f"There is no Ray cluster at run.address {self.execution.address}: {error}.",
                    "Start one with 'ray start --head', or write address: local.",
                ) from error
            self._started = True
        return ray

    def _lookup(self, store: RunStore) -> Any:
        ray = self._connected()
        with self._lock:
            if store.folder not in self._lookups:
                from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

                here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
                actor = ray.remote(_LookupActor).options(num_cpus=0, max_concurrency=16, scheduling_strategy=here)
                self._lookups[store.folder] = actor.remote(str(store.folder.absolute()))
            return self._lookups[store.folder]

    def _pool(self, recipe: Recipe, store: RunStore) -> _Pool:
        ray, lookup = self._connected(), self._lookup(store)
        with self._lock:
            key = (store.folder, repr(recipe))
            if key not in self._pools:
                size = self.execution.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
                self._pools[key] = _Pool(ray, recipe, lookup, self.execution, size)
            return self._pools[key]
