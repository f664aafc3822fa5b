"""What a shell completes besides commands: experiments, tasks, students, keys of a file, and questions of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import typer

_MOST = 200  # names that are offered at once


def named(names: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """A completion of names. Where they can't be found out, nothing is completed."""

    def complete(incomplete: str) -> list[str]:
        from divcon.signatures import DivconError

        try:
            return [name for name in names() if name.startswith(incomplete)][:_MOST]
        except (DivconError, OSError):
            return []

    return complete


def complete_question(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids of the questions of the run folder that stands before it."""
    from divcon.distill import items_of

    folder = ctx.params.get("folder")
    return named(lambda: items_of(Path(folder)) if folder else [])(incomplete)


def experiments() -> list[str]:
    """The experiments that ship with divcon, by name."""
    from divcon.experiments import shipped_experiments

    return shipped_experiments()


def task_names() -> list[str]:
    """The tasks."""
    from divcon.benchmarks.tasks import TASKS

    return sorted(TASKS)


def students() -> list[str]:
    """The names of the decomposer's students."""
    from divcon.benchmarks.arms import UNTUNED
    from divcon.distill import student_names

    return [*student_names("decomposer"), UNTUNED.name]


def keys() -> list[str]:
    """The keys of a pipeline file, as `--set` takes them."""
    from pydantic import BaseModel

    from divcon.config import Pipeline

    def below(model: type[BaseModel], before: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            inner = [field.annotation, *getattr(field.annotation, "__args__", ())]
            section = next((one for one in inner if isinstance(one, type) and issubclass(one, BaseModel)), None)
            if section is None:
                yield f"{before}{name}="
            else:
                yield from below(section, f"{before}{name}.")

    return list(below(Pipeline, ""))
