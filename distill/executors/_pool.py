"""The workers of a Ray cluster that do the jobs of a station."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from divcon.distill._jobs import Job
from divcon.distill.executors._cluster import RayError, kill, messages_of, ray_package
from divcon.distill.executors._driver import Sent, WorkerLost
from divcon.distill.executors._executor import Execution, Recipe
from divcon.distill.executors._worker import StoreLookup, Worker

_AT_ONCE = 256  # the most jobs that a worker does at a time; most of them wait for servers
_UNLUCKY = 30  # workers in a row that may be lost before they begin
_ROOM = 600.0  # seconds to wait for the cluster to have room for a first worker
_PAUSE = 1.0  # seconds from a worker that was lost before it began to the next, and between looks at one that starts
_ENDING = 60.0  # seconds that jobs may take to notice that their worker is gone


class RemoteLookup:
    """The lookup of a worker: a Ray actor on the driver's node."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def reply(self, key: str) -> str | None:
        found: str | None = ray_package().get(self._actor.reply.remote(key))
        return found

    def rows(self, table: str, key: str) -> str:
        found: str = ray_package().get(self._actor.rows.remote(table, key))
        return found


class LookupActor(StoreLookup):
    def __init__(self, folder: str) -> None:
        super().__init__(Path(folder))


class _WorkerActor(Worker):
    def __init__(self, recipe: dict[str, Any], lookup: Any) -> None:
        super().__init__(Recipe(**recipe), RemoteLookup(lookup))

    def ready(self) -> bool:
        """Whether it can do jobs."""
        return True


@dataclass(eq=False)
class _Hired:
    """A worker that is ready, and the number of jobs it is doing by item."""

    actor: Any
    doing: Counter[str] = field(default_factory=Counter)


class Pool:
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
        self._hiring: list[threading.Thread] = []
        self._failure: Exception | None = None
        self._jobs = 0  # that are under way
        self._unlucky = 0  # workers in a row that were lost before they began
        self._closed = False
        self._changed = threading.Condition()
        for _ in range(size):
            self._hire()

    @contextlib.contextmanager
    def under_way(self) -> Iterator[None]:
        """Counts a job, from before it is sent until nothing of it refers to Ray any more; `close` waits for that."""
        with self._changed:
            self._jobs += 1
        try:
            yield
        finally:
            with self._changed:
                self._jobs -= 1
                self._changed.notify_all()

    def send(self, job: Job, packed: str | None, station: str, cell: str) -> Sent:
        """Send a job to a worker; see `done_elsewhere`."""
        with self._worker_for(job.item.id) as worker:
            try:
                yield from messages_of(worker.actor.do.options(num_returns="streaming").remote(packed, station, cell))
            except WorkerLost:
                with self._changed:
                    if worker in self._there:
                        self._there.remove(worker)
                        self._hire()
                raise

    @contextlib.contextmanager
    def _worker_for(self, item: str) -> Iterator[_Hired]:
        """The worker to do an item's job, which counts as busy with it inside.

        Raises:
            RayError: See `_chosen`.
        """
        with self._changed:
            worker = self._chosen(item)
            worker.doing[item] += 1
        try:
            yield worker
        finally:
            with self._changed:
                worker.doing -= Counter([item])  # which drops items that nothing is done for any more

    def _chosen(self, item: str) -> _Hired:
        """The worker to do an item's job.

        Raises:
            RayError: No worker has started in time, workers fail when they start, or the pool is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._there or self._closed or (self._failure and not self._coming), _ROOM)
            if self._closed:
                raise RayError("The run was closed before its jobs ended.", "Start it again; it goes on from there.")
            if not self._there and not self._coming:
                raise RayError(f"Workers fail when they start: {self._failure}", "Look at the workers' logs.")
            if not self._there:
                failed = f" One that started failed: {self._failure}" if self._failure else ""
                raise RayError(
                    f"No worker has started within {_ROOM:.0f} s: the cluster has no room for one.{failed}",
                    "Add nodes, or lower run.worker_cpus and run.worker_gpus.",
                )
            at_it = next((worker for worker in self._there if worker.doing[item] > 0), None)
            return at_it or min(self._there, key=lambda one: one.doing.total())

    def _hire(self) -> None:
        """Ask for a worker, which joins the pool when it is ready."""
        with self._changed:
            if self._closed:
                return
            actor = self._actor.remote(self._recipe, self._lookup)
            self._coming.add(actor)
            thread = threading.Thread(target=self._join, args=(actor,), name="divcon-hire", daemon=True)
            thread.start()
            self._hiring = [*(one for one in self._hiring if one.is_alive()), thread]

    def _join(self, actor: Any) -> None:
        try:
            ready = actor.ready.remote()
            while not self._closed and not self._ray.wait([ready], timeout=_PAUSE)[0]:
                pass
            if not self._closed:
                self._ray.get(ready)
        except Exception as error:  # noqa: BLE001 - any error at a worker's start is raised by the jobs that wait for it
            self._not_begun(error)
        else:
            with self._changed:
                if not self._closed:
                    self._there.append(_Hired(actor))
                    self._failure, self._unlucky = None, 0
        with self._changed:
            self._coming.discard(actor)
            self._changed.notify_all()

    def _not_begun(self, error: Exception) -> None:
        """Ask for another worker in place of one that was lost before it began, or let the jobs that wait fail."""
        # A node that has just died is still given workers for a while; one that fails by itself fails again.
        unlucky = not getattr(error, "actor_init_failed", True)
        with self._changed:
            self._unlucky += unlucky
            again = unlucky and self._unlucky <= _UNLUCKY
            if again:
                self._changed.wait_for(lambda: self._closed, _PAUSE)
            else:
                self._failure = error
        if again:
            self._hire()

    def close(self) -> None:
        """End the workers, and wait until no thread of this pool refers to Ray any more.

        Ray ends the whole process where a thread waits for it, or drops its last reference to a worker, while it is
        shut down.
        """
        with self._changed:
            self._closed = True
            actors = [*(worker.actor for worker in self._there), *self._coming]
            hiring = self._hiring
            self._there.clear()
            self._changed.notify_all()
        kill(actors)
        for thread in hiring:
            thread.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs, _ENDING)
