"""What an executor is: where jobs are done, and the cells of an experiment."""

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
        address: Of `ray`: `local` starts a cluster on this machine, `auto` takes the one that runs here, else its
            address.
        workers: Of `ray`: processes that do jobs; one for each CPU of the cluster by default.
        worker_cpus: CPUs that each of them claims.
        worker_gpus: GPUs that each of them claims.
        cell_cpus: CPUs that a cell of an experiment claims while it collects, screens and trains.
        cell_gpus: GPUs that it claims.
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
    """How another process makes what does jobs. It holds no secret: a worker has those in its own environment.

    Attributes:
        maker: `module:function`, called with the arguments and a store; what it gives is called with a job.
        arguments: JSON-ready.
    """

    maker: str
    arguments: dict[str, Any]


class Executor(Protocol):
    """Where jobs are done; made from `run` of a pipeline file.

    Attributes:
        extra: The extra of divcon that it needs; empty for none.
    """

    extra: ClassVar[str]

    def __init__(self, execution: Execution) -> None: ...

    def place(self, recipe: Callable[[], Recipe], store: RunStore) -> Place:
        """Where the jobs of a station are done.

        Args:
            recipe: Gives how a worker makes what does them.
            store: Where replies go; only this process writes it.
        """

    def do_cells(self, cells: Sequence[Recipe], store: RunStore) -> list[Exception | None]:
        """Have the cells of an experiment train their students before they are measured.

        Args:
            cells: How a worker makes what does each; called without a job.
            store: The experiment's.

        Returns:
            The error of each, or None. A cell that isn't done here is done when it is measured.
        """

    def release(self, store: RunStore) -> None:
        """Let go of the workers that do jobs for a store, until the next ones are placed."""

    def close(self) -> None:
        """Let go of everything."""


EXECUTORS: Table[type[Executor]] = Table(
    "executor",
    "divcon.executors",
    {
        "threads": "divcon.distill.executors._threads:ThreadExecutor",
        "ray": "divcon.distill.executors._ray:RayExecutor",
    },
)
