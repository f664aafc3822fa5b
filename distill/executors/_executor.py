"""The protocol of executors, which do jobs and the cells of an experiment, and the table of executors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from divcon.distill._jobs import Place
from divcon.distill._store import RunStore
from divcon.distill._table import Choices, Table


class Execution(BaseModel):
    """Where jobs are done.

    Attributes:
        executor: `threads` (in this process) or `ray` (on the workers of a Ray cluster).
        address: The Ray cluster: `local` starts one on this machine, `auto` uses the one that runs here; else its
            address.
        workers: The number of Ray processes that do jobs; by default one for each CPU of the cluster.
        worker_cpus: CPUs that each worker claims.
        worker_gpus: GPUs that each worker claims.
        cell_cpus: CPUs that a cell of an experiment claims while it collects, screens and trains.
        cell_gpus: GPUs that a cell of an experiment claims while it collects, screens and trains.
    """

    model_config = ConfigDict(extra="forbid")

    executor: Annotated[str, AfterValidator(lambda name: EXECUTORS.known(name)), Choices(lambda: EXECUTORS.own)] = (
        "threads"
    )
    address: str = "local"
    workers: int | None = Field(None, ge=1)
    worker_cpus: float = Field(1.0, ge=0)
    worker_gpus: float = Field(0.0, ge=0)
    cell_cpus: float = Field(1.0, ge=0)
    cell_gpus: float = Field(0.0, ge=0)


@dataclass(frozen=True)
class Recipe:
    """How a worker makes the function that does jobs. It holds no secrets: a worker reads them from its environment.

    Attributes:
        maker: `module:function`. The function takes the arguments and a store, and returns a function of a job.
        arguments: The arguments, JSON-ready.
    """

    maker: str
    arguments: dict[str, Any]


class Executor(Protocol):
    """Does jobs, in this process or elsewhere; made from `run` of a pipeline file.

    Attributes:
        extra: The extra of divcon that it needs; empty for none.
    """

    extra: ClassVar[str]

    def __init__(self, execution: Execution) -> None: ...

    def place(self, recipe: Callable[[], Recipe], store: RunStore) -> Place:
        """The place where the jobs of a station are done.

        Args:
            recipe: Returns the recipe by which a worker makes the function that does the jobs.
            store: The store for the replies; only this process writes it.
        """

    def do_cells(self, cells: Sequence[Recipe], store: RunStore) -> list[Exception | None]:
        """Have the cells of an experiment train their students before they are measured.

        Args:
            cells: A recipe for each cell; the function that it makes is called with None for a job.
            store: The experiment's store.

        Returns:
            The error of each cell, or None. A cell that isn't done here is done when it is measured.
        """

    def release(self, store: RunStore) -> None:
        """Release the workers that do jobs for a store. The next call of `place` gets new ones."""

    def close(self) -> None:
        """Release all workers and connections."""


EXECUTORS: Table[type[Executor]] = Table(
    "executor",
    "divcon.executors",
    {
        "threads": "divcon.distill.executors._threads:ThreadExecutor",
        "ray": "divcon.distill.executors._ray:RayExecutor",
    },
    needs=("extra", "place", "do_cells", "release", "close"),
)
