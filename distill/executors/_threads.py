"""The executor `threads`: all jobs are done in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from divcon.distill._jobs import Place, here
from divcon.distill._store import RunStore
from divcon.distill.executors._executor import Execution, Recipe


class ThreadExecutor:
    """See `Executor`. Cells aren't done in advance: on one machine they would compete for the same processor."""

    extra: ClassVar[str] = ""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution

    def place(self, recipe: Callable[[], Recipe], store: RunStore) -> Place:
        """See `Executor.place`."""
        return here

    def do_cells(self, cells: Sequence[Recipe], store: RunStore) -> list[Exception | None]:
        """See `Executor.do_cells`."""
        return [None] * len(cells)

    def release(self, store: RunStore) -> None:
        """See `Executor.release`."""

    def close(self) -> None:
        """See `Executor.close`."""
