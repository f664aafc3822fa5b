"""The cells of an experiment: the runs that each kind needs, and the arms that are measured."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from divcon._watch import Reporter, Silent
from divcon.benchmarks import Arm
from divcon.benchmarks.arms import read_arm
from divcon.benchmarks.tasks import Fold, LoadedTask, Task, TaskError, load_task
from divcon.config import Design, Experiment, Pipeline
from divcon.distill import Hold, ManifestError, NothingToLearn, RunStore, booked_to
from divcon.distill.executors import EXECUTORS, Executor
from divcon.pipeline import MissingStation, Run, adapter_folder, open_store, recipe_of, worker_context
from divcon.programs import Item

_ALL = "_all"  # not a valid name of a task


class Draw(NamedTuple):
    """A draw of training and test questions. It doesn't depend on the task.

    Attributes:
        seed: The training seed.
        fold: The part of the questions that is tested; None where the test questions are the same for all students.
    """

    seed: int
    fold: Fold | None = None

    @property
    def cell(self) -> str:
        """The beginning of its cells' names."""
        return f"seed-{self.seed}" + (f",fold-{self.fold.number}" if self.fold else "")

    def __str__(self) -> str:
        return f"seed {self.seed}" + (f", fold {self.fold.number} of {self.fold.of}" if self.fold else "")


@dataclass(frozen=True)
class Cell:
    """One arm to be measured on one task's test questions, for one draw.

    Attributes:
        run: The run whose solver and test questions are used.
        arm: The arm.
        draw: The draw of the questions.
        factors: The values of what the experiment varies, by name.
    """

    run: Run
    arm: Arm
    draw: Draw
    factors: dict[str, Any]


class Lent(NamedTuple):
    """The students of another run than the one whose questions they answer.

    Attributes:
        run: The run that trained them.
        origin: Where they come from, for the label; empty where it goes without saying.
        renamed: The arm's name with a place for the one it is measured by; empty to keep that name.
    """

    run: Run
    origin: str = ""
    renamed: str = ""


@dataclass
class Runs:
    """The runs of an experiment, which share its store.

    Attributes:
        experiment: The validated experiment file.
        folder: The experiment's folder.
        reporter: Gets progress and result lines.
        opened: The store; by default it is opened on first use.
        looking: Whether the experiment is only looked at. Then nothing is asked, trained or written, and arms whose
            students aren't trained are left out.
        trained: The runs whose students are trained.
        made: All runs.
        waiting: The answers that wait for a student to be trained, by cell; counted where `looking` is set.
    """

    experiment: Experiment
    folder: Path
    reporter: Reporter = field(default_factory=Silent)
    opened: RunStore | None = None
    looking: bool = False
    trained: list[Run] = field(default_factory=list, init=False)
    made: list[Run] = field(default_factory=list, init=False)
    waiting: dict[str, int] = field(default_factory=lambda: defaultdict(int), init=False)
    _tasks: dict[tuple[str, Draw, int | str], LoadedTask] = field(default_factory=dict, init=False)
    _hold: Hold | None = field(default=None, init=False)

    def hold(self, wait: bool = False) -> None:
        """Let no other process work on the experiment's folder, as `Run.hold` does. Its runs share the hold."""
        if self._hold is None:
            report = lambda who: self.reporter.station("wait", f"for {who}")  # noqa: E731
            self._hold = Hold(self.folder, report if wait else None)
        self.store.require_replies_of_results()

    @property
    def store(self) -> RunStore:
        if self.opened is None:
            self.opened = open_store(self.experiment, self.folder)
        return self.opened

    @cached_property
    def executor(self) -> Executor:
        return EXECUTORS[self.experiment.run.executor](self.experiment.run)

    @property
    def design(self) -> Design:
        return self.experiment.experiment

    @property
    def draws(self) -> list[Draw]:
        """The draws of questions: one for each seed, or for each seed and fold."""
        design, count = self.design, self.design.folds
        folds = [Fold(number, count) for number in range(1, count + 1)] if count else [None]
        return [Draw(seed, fold) for seed in design.seeds for fold in folds]

    def of(self, task: str, draw: Draw, arms: Sequence[str] | None = None, **changes: Any) -> Run:
        """The run of one cell.

        Args:
            task: The task's name in the design.
            draw: One of the design's draws.
            arms: The arms that it measures, which decide the students it trains; all arms of the experiment by default.
            changes: See `Experiment.pipeline`.
        """
        measured = arms if arms is not None else self.design.measured
        pipeline = self.experiment.pipeline(task, draw.seed, measured, **changes)
        shown = {key.rpartition("__")[2]: value for key, value in changes.items() if not isinstance(value, dict)}
        cell = ",".join([draw.cell, *(f"{key}-{value}" for key, value in shown.items())])
        loaded = self._loaded(task, draw, pipeline.task.train)
        folder = self.folder / "cells" / task / cell
        return self._made(pipeline, folder, loaded)

    def together(self, runs: dict[str, Run], draw: Draw) -> Run:
        """The run that trains one student on the questions of all tasks."""
        union = LoadedTask(
            [item for group in zip_longest(*(run.task.train for run in runs.values())) for item in group if item],
            [item for run in runs.values() for item in run.task.test],
            allowed=tuple(one for run in runs.values() for one in run.task.allowed),
        )
        first = next(iter(runs.values()))
        folder = self.folder / "cells" / _ALL / draw.cell
        return self._made(first.pipeline, folder, union)

    def _made(self, pipeline: Pipeline, folder: Path, loaded: LoadedTask) -> Run:
        self.made.append(Run(pipeline, folder, self.reporter, self.store, loaded, self.executor))
        return self.made[-1]

    def _loaded(self, task: str, draw: Draw, train: int | str) -> LoadedTask:
        """A task's questions. Their ids begin with the task's name, since all tasks share the store."""
        key = (task, draw, train)
        if key not in self._tasks:  # files may be large, and many cells read the same one
            given = self.design.tasks[task].model_dump()
            try:
                loaded = load_task(Task(**{**given, "train_seed": draw.seed, "train": train}), draw.fold)
            except TaskError as error:
                # The settings that an error names have other names in an experiment's file.
                remedy = re.sub(r"\btask\.", f"experiment.tasks.{task}.", error.remedy)
                raise TaskError(error.problem, remedy) from error
            named: Callable[[Item], Item] = lambda item: replace(item, id=f"{task}:{item.id}")  # noqa: E731
            allowed = (one._replace(train=f"{task}:{one.train}", test=f"{task}:{one.test}") for one in loaded.allowed)
            self._tasks[key] = LoadedTask(
                [*map(named, loaded.train)],
                [*map(named, loaded.test)],
                loaded.dropped_overlap,
                loaded.numbers_only_twins,
                tuple(allowed),
            )
        return self._tasks[key]

    def cells(
        self, run: Run, names: Sequence[str], draw: Draw, factors: dict[str, Any], lent: Lent | None = None
    ) -> Iterator[Cell]:
        """The cells of arms that share a run.

        Args:
            run: The run whose solver and test questions are used.
            names: The arms.
            draw: The draw of the questions.
            factors: The values of what the experiment varies, by name.
            lent: The students that answer, where they are those of another run.
        """
        for name in names:
            lora = lora_of(lent.run, name) if lent is not None and needs_training(name) else None
            try:
                arm = run.arm(name, lora, lent.origin if lent is not None and lora is not None else "")
            except (MissingStation, ManifestError):
                if not self.looking:
                    raise
                self.waiting[self.cell_of(run)] += len(run.task.test)
                continue
            if lent is not None and lent.renamed:
                arm = replace(arm, name=lent.renamed.format(name))
            yield Cell(run, arm, draw, factors)

    def train(self, run: Run, name: str) -> Run:
        """Have a run collect, screen and train whatever is missing, and return it."""
        if self.looking:
            return run
        self.reporter.station("cell", name)
        with booked_to(self.cell_of(run)):
            try:
                if not train_students(run):
                    return run
            except NothingToLearn as error:
                raise NothingToLearn(f"{name}: {error.problem}", error.remedy) from error
        self.trained.append(run)
        return run

    def train_alone(self, run: Run, name: str) -> Run:
        """`train`, and end the servers of the run's models: other runs are trained or measured next."""
        self.train(run, name).models.close()
        return run

    def could_train(self, run: Run, name: str) -> bool:
        """Train a cell of a series. Returns False for a cell without training rows, which the series leaves out."""
        try:
            self.train(run, name)
        except NothingToLearn as error:
            self.reporter.finished("cell", f"left out: {error.problem}")
            return False
        return True

    def cell_of(self, run: Run) -> str:
        """The name of a run's cell, under which its calls are recorded."""
        return str(run.folder.relative_to(self.folder / "cells"))

    def train_elsewhere(self) -> None:
        """Have the executor train the students of all cells that it can, before they are measured.

        Under a budget it trains none: the cells' calls on other machines couldn't be held to it.

        Raises:
            DivconError: A cell failed. A cell without training rows isn't an error here; `could_train` handles it.
        """
        if self.store.budget is not None:
            return
        cells = [run for run in planned_runs(self) if any(map(needs_training, run.pipeline.arms))]
        recipes = [
            recipe_of(run.context, "divcon.experiments._cells:make_cell", cell=self.cell_of(run)) for run in cells
        ]
        for error in self.executor.do_cells(recipes, self.store):
            if error is not None and getattr(error, "code", "") != NothingToLearn.code:
                raise error

    def close(self) -> None:
        """Close all runs, release workers, and leave the folder, also where one of these fails."""
        with contextlib.ExitStack() as last_first:
            last_first.callback(self.leave)
            if "executor" in self.__dict__:
                last_first.callback(self.__dict__.pop("executor").close)
            for run in self.made:
                last_first.callback(run.close)

    def leave(self) -> None:
        """Close the store, and let other processes work on the folder."""
        if self.opened is not None:
            self.opened.close()
            self.opened = None
        if self._hold is not None:
            self._hold.release()
            self._hold = None


def train_students(run: Run) -> bool:
    """Do a run's stations up to training. Returns False where none of its arms needs a student."""
    run.check()
    run.compile()
    if not any(needs_training(name) for name in run.pipeline.arms):
        return False
    run.collect()
    run.export(run.screen())
    run.train()
    return True


def make_cell(arguments: dict[str, Any], store: RunStore) -> Callable[[None], None]:
    """The function that trains the students of a cell in a worker; see `Recipe`."""
    context = worker_context(arguments, store)
    run = Run(context.pipeline, context.folder, None, store, context.loaded)

    def train(job: None) -> None:
        try:
            train_students(run)
        finally:
            run.close()  # the next cell may get its processors

    return train


def planned_runs(all_runs: Runs) -> Iterator[Run]:
    """The runs of an experiment that don't depend on other runs."""
    design = all_runs.design
    for draw, task in product(all_runs.draws, design.tasks):
        changes: list[dict[str, Any]] = [
            *({"task__train": size} for size in design.questions or []),
            *({"program__max_subquestions": cap} for cap in design.caps or []),
        ]
        for change in changes or [{}]:
            yield all_runs.of(task, draw, **change)


def needs_training(arm: str) -> bool:
    """Whether an arm's student has to be trained."""
    return read_arm(arm)[0].student is not None


def lora_of(run: Run, arm: str) -> Path:
    """The folder of the adapter that answers an arm."""
    student = read_arm(arm)[0].student
    assert student is not None
    return adapter_folder(run.folder, student.name)
