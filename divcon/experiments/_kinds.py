"""The kinds of experiments: which runs each needs, and which arms it measures on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

from divcon.experiments._cells import Cell, Draw, Lent, Runs, needs_training


def cells_of(runs: Runs) -> Iterator[list[Cell]]:
    """The cells of an experiment, in batches that share a run. Their students are trained before each batch."""
    yield from _KINDS[runs.design.kind](runs, list(runs.design.tasks), runs.draws)


def _main(all_runs: Runs, tasks: Sequence[str], draws: Sequence[Draw]) -> Iterator[list[Cell]]:
    for draw, task in product(draws, tasks):
        run = all_runs.train(all_runs.of(task, draw), f"{task}, {draw}")
        yield [*all_runs.cells(run, all_runs.design.measured, draw, {"task": task})]


def _transfer(all_runs: Runs, tasks: Sequence[str], draws: Sequence[Draw]) -> Iterator[list[Cell]]:
    moved = [name for name in all_runs.design.measured if needs_training(name)]
    own = [name for name in all_runs.design.measured if name not in moved]
    for draw in draws:
        runs = {task: all_runs.train_alone(all_runs.of(task, draw), f"{task}, {draw}") for task in tasks}
        for task, run in runs.items():
            batch = [*all_runs.cells(run, own, draw, {"task": task})]
            for name, origin in product(moved, tasks):
                lent = Lent(runs[origin], f"trained on {origin}")
                batch += all_runs.cells(run, [name], draw, {"task": task, "trained_on": origin}, lent)
            yield batch


def _solvers(all_runs: Runs, tasks: Sequence[str], draws: Sequence[Draw]) -> Iterator[list[Cell]]:
    for draw, task in product(draws, tasks):
        run = all_runs.train_alone(all_runs.of(task, draw), f"{task}, {draw}")
        for solver, change in all_runs.design.solver_changes.items():
            factors = {"task": task, "solver": solver}
            yield [
                *all_runs.cells(all_runs.of(task, draw, **change), all_runs.design.measured, draw, factors, Lent(run))
            ]


def _multitask(all_runs: Runs, tasks: Sequence[str], draws: Sequence[Draw]) -> Iterator[list[Cell]]:
    moved = [name for name in all_runs.design.measured if needs_training(name)]
    for draw in draws:
        runs = {task: all_runs.train_alone(all_runs.of(task, draw), f"{task}, {draw}") for task in tasks}
        together = all_runs.together(runs, draw)
        all_runs.train_alone(together, f"all {len(tasks)} tasks, {draw}")
        lent = Lent(together, "of all tasks", "{}/all")
        for task, run in runs.items():
            yield [
                *all_runs.cells(run, all_runs.design.measured, draw, {"task": task}),
                *all_runs.cells(run, moved, draw, {"task": task}, lent),
            ]


def _curve(all_runs: Runs, tasks: Sequence[str], draws: Sequence[Draw]) -> Iterator[list[Cell]]:
    sizes = all_runs.design.questions or []
    yield from _varied(all_runs, tasks, draws, "questions", sizes, "task__train", "{} questions")


def _cap(all_runs: Runs, tasks: Sequence[str], draws: Sequence[Draw]) -> Iterator[list[Cell]]:
    caps = all_runs.design.caps or []
    yield from _varied(all_runs, tasks, draws, "cap", caps, "program__max_subquestions", "at most {} subquestions")


def _varied(
    all_runs: Runs,
    tasks: Sequence[str],
    draws: Sequence[Draw],
    factor: str,
    values: Sequence[int],
    setting: str,
    words: str,
) -> Iterator[list[Cell]]:
    """The cells of a series of students, each trained with another value of a setting."""
    for draw, task, value in product(draws, tasks, values):
        changes: dict[str, Any] = {setting: value}
        run = all_runs.of(task, draw, **changes)
        if all_runs.could_train(run, f"{task}, {draw}, {words.format(value)}"):
            yield [*all_runs.cells(run, all_runs.design.measured, draw, {"task": task, factor: value})]


_KINDS: dict[str, Callable[[Runs, Sequence[str], Sequence[Draw]], Iterator[list[Cell]]]] = {
    "main": _main,
    "depth": _main,
    "dynamic": _main,
    "transfer": _transfer,
    "solvers": _solvers,
    "multitask": _multitask,
    "curve": _curve,
    "cap": _cap,
}
