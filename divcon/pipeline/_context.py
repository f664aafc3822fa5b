"""The context that all stations of a run share: its file, folder, store, questions and models."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from divcon._models import Models
from divcon._watch import Reporter, Silent, watched
from divcon.benchmarks import GRADERS, Matching, Recording, read_recording
from divcon.benchmarks.arms import read_arm
from divcon.benchmarks.tasks import LoadedTask, load_task
from divcon.config import Pipeline, Sections
from divcon.distill import Author, Budget, Hold, Limits, Progress, RunStore
from divcon.distill.executors import EXECUTORS, Executor
from divcon.distill.serving.embedded import EmbeddedBaseMissing, is_converted
from divcon.pipeline._errors import Failures, Unfit
from divcon.programs import Item


def open_store(file: Sections, folder: Path) -> RunStore:
    """The store of a folder, with the budget of a pipeline or experiment file."""
    store, budget = RunStore(folder), file.budget
    limited: dict[str, Limits] = {name: limits for name, limits in budget.stations.items() if limits.any}
    if budget.any or limited:
        store.budget = Budget(budget, limited, store, file.price_of, unpaid=file.unpaid)
    return store


@dataclass
class Context:
    """The context of a run's stations.

    Attributes:
        pipeline: The validated pipeline file.
        folder: The run folder.
        reporter: Gets progress and result lines.
        shared: A store that several runs share; by default the run has its own.
        loaded: The questions; by default those of the file's task.
        given_executor: An executor that several runs share; by default the run has its own.
    """

    pipeline: Pipeline
    folder: Path
    reporter: Reporter = field(default_factory=Silent)
    shared: RunStore | None = None
    loaded: LoadedTask | None = None
    given_executor: Executor | None = None
    _hold: Hold | None = field(default=None, init=False, repr=False)

    def hold(self, wait: bool = False) -> None:
        """Let no other process work on the run folder until `close` or `leave`. Every method that writes calls it.

        A run with a shared store takes no hold: whoever owns the store has it.

        Args:
            wait: Wait for another process to end, and report which.

        Raises:
            FolderBusy: Another process works on the folder.
            RepliesLost: The folder holds results, and its store no replies.
        """
        if self.shared is not None:
            return
        if self._hold is None:
            report = lambda who: self.reporter.station("wait", f"for {who}")  # noqa: E731
            self._hold = Hold(self.folder, report if wait else None)
        self.store.require_replies_of_results()

    @cached_property
    def store(self) -> RunStore:
        return self.shared or open_store(self.pipeline, self.folder)

    @cached_property
    def executor(self) -> Executor:
        execution = self.pipeline.run
        return self.given_executor or EXECUTORS[execution.executor](execution)

    @cached_property
    def _given(self) -> LoadedTask:
        return self.loaded if self.loaded is not None else load_task(self.pipeline.task)

    @cached_property
    def task(self) -> LoadedTask:
        """The questions. Training questions for which a recorded teacher has no plan are left out."""
        if (matching := self._matching) is None:
            return self._given
        rows, grade, samples = matching.rows, GRADERS[self.pipeline.evaluate.grader], self.pipeline.collect.samples
        learn = [
            replace(item, plans_right=tuple(row.outcome(item, grade) for row in rows[item.id][:samples]))
            for item in self._given.train
            if item.id in rows
        ]
        return replace(self._given, train=learn)

    @property
    def to_collect(self) -> set[tuple[str, int]]:
        """The plans of the training questions that are collected, as pairs of an item's id and a sample."""
        samples = self.pipeline.collect.samples
        return {(item.id, sample) for item in self.task.train for sample in range(item.plans(samples))}

    @cached_property
    def _matching(self) -> Matching | None:
        """The rows of a recorded teacher's file, by the questions; None for another teacher."""
        return None if self.models.plans is None else self.models.plans.match(self._items)

    @property
    def _items(self) -> list[Item]:
        return [*self._given.train, *self._given.test]

    @cached_property
    def recordings(self) -> dict[str, Recording]:
        """The files of the recorded arms, by the arms' names."""
        failures, found = Failures(Silent()), {}
        for name, arm in self.pipeline.evaluate.recorded.items():
            with failures.gathering():
                found[name] = read_recording(arm.path, arm.fields, "reply", f"evaluate.recorded.{name}")
        failures.require_none()
        return found

    @property
    def teacher(self) -> Author:
        """Who writes the plans, as outputs name it."""
        endpoint, plans = self.pipeline.roles.teacher, self.models.plans
        if plans is not None:
            name = f"{endpoint.name} (recorded)"
            return Author(model=name, kind="recorded", file=plans.file.name, sha256=plans.sha256)
        return Author(model=endpoint.title, kind="scripted" if endpoint.scripted else "model")

    @property
    def unknown_usage(self) -> bool:
        """Whether a recorded teacher's file doesn't say what the plans of these questions took, so that no cost can be
        compared."""
        if (matching := self._matching) is None:
            return False
        rows, samples = matching.rows, self.pipeline.collect.samples
        learnt = [row for item in self._given.train for row in rows.get(item.id, ())[:samples]]
        tested = [row for item in self._given.test for row in rows.get(item.id, ())[:1]]
        return any(row.input_tokens is None or row.output_tokens is None for row in (*learnt, *tested))

    def coverage(self) -> list[str]:
        """How many questions the recorded plans and replies are of, a sentence a file.

        Raises:
            DivconError: Files are broken, or no row of one matches a question. All of it is said.
        """
        failures, said, tested = Failures(Silent()), [], {"test": self._given.test}
        with failures.gathering():
            plans, matching = self.models.plans, self._matching
            if plans is not None and matching is not None and not self.pipeline.only_recorded:
                planning = any(read_arm(arm)[0].planner == "teacher" for arm in self.pipeline.arms)
                parts = {"training": self._given.train, **(tested if planning else {})}
                left = len(self._given.train) - len(self.task.train)
                one = "question without one is" if left == 1 else "questions without one are"
                more = f"; {left:,} training {one} left out" if left else ""
                samples = self.pipeline.collect.samples
                most = max((len(matching.rows.get(item.id, ())) for item in self._given.train), default=0)
                if most > samples:
                    more += f"; collect.samples: {most} would take all plans of the training questions"
                said.append(self._covered(plans, matching, "a plan", parts, "roles.teacher", samples) + more)
        with failures.gathering():
            for name, recording in self.recordings.items():
                matching = recording.match(self._given.test, self._given.train)
                with failures.gathering():
                    said.append(self._covered(recording, matching, "a reply", tested, f"evaluate.recorded.{name}"))
        failures.require_none()
        return said

    def _covered(
        self,
        recording: Recording,
        matching: Matching,
        what: str,
        parts: dict[str, list[Item]],
        key: str,
        taken: int = 1,
    ) -> str:
        if not any(item.id in matching.rows for items in parts.values() for item in items):
            raise Unfit(
                f"No row of {recording.file} matches a question of the task.",
                f"Give the rows the ids or the questions of the task, or name their fields in {key}.fields.",
            )
        return matching.coverage(recording.file.name, what, parts, taken)

    @cached_property
    def models(self) -> Models:
        return Models(
            self.pipeline,
            self.store,
            lambda: self._items,
            self.folder / f"{self.pipeline.roles.decomposer.serve}.log",
            lambda text: self.reporter.finished("serve", text),
        )

    @property
    def graders(self) -> dict[str, str]:
        """The settings of the grader that aren't the default, as parts of a key."""
        pipeline = self.pipeline
        paper = {"grader": "paper"} if pipeline.evaluate.grader == "paper" else {}
        return paper | ({"shares": "percent"} if pipeline.task.percent else {})

    def is_right(self, item: Item, answer: str) -> bool:
        """Whether an answer is right by this run's grader."""
        return GRADERS[self.pipeline.evaluate.grader](item, answer).right

    def watched(self, name: str) -> AbstractContextManager[Progress]:
        """Report the progress of a station that calls models, while the block runs."""
        return watched(self.reporter, name, self.store, self.pipeline.price_of, unpaid=self.pipeline.unpaid)

    def close(self) -> None:
        """Stop the servers that were started, release workers, and leave the folder, also where one of these fails."""
        with contextlib.ExitStack() as last_first:
            last_first.callback(self.leave)
            if "models" in self.__dict__:
                last_first.callback(self.models.close)
            if "executor" in self.__dict__:
                executor = self.__dict__.pop("executor")
                if self.given_executor is None:
                    last_first.callback(executor.close)
                last_first.callback(executor.release, self.store)

    def leave(self) -> None:
        """Close the store, so that `run.sqlite` alone holds everything, and let other processes work on the folder.

        Servers and workers go on: a command that ends leaves them to the end of its process.
        """
        if "store" in self.__dict__ and self.shared is None:
            self.__dict__.pop("store").close()
        if self._hold is not None:
            self._hold.release()
            self._hold = None


def announce_conversion(pipeline: Pipeline, reporter: Reporter) -> None:
    """Report that the embedded base will be dequantized, if it has to be; the conversion itself reports nothing."""
    with contextlib.suppress(EmbeddedBaseMissing):  # the doctor reports what to install
        roles = pipeline.roles
        if "embedded" in (roles.decomposer.base, roles.teacher.base, roles.solver.base) and not is_converted():
            reporter.station("base", "dequantizing the embedded base, once; 20 seconds or so")
