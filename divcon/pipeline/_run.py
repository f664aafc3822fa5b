"""`Run`: a pipeline file and its run folder, with a method for every station."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dspy

from divcon._models import Models
from divcon._watch import Reporter, Silent
from divcon.benchmarks import (
    Arm,
    Records,
    RunResults,
    as_csv,
    calls_of,
    counted,
    evaluate_arms,
    log_to_mlflow,
    write_report,
)
from divcon.benchmarks.tasks import LoadedTask
from divcon.config import Pipeline
from divcon.distill import Export, Place, RunStore, Screened, write_whole
from divcon.distill._paths import expanded_path
from divcon.distill.executors import Executor
from divcon.pipeline import _preflight
from divcon.pipeline._arms import bound_arm, check_arms, recorded_arms
from divcon.pipeline._cards import write_cards
from divcon.pipeline._context import Context
from divcon.pipeline._errors import Failures
from divcon.pipeline._estimate import Measured, StationEstimate, compared, estimate, total_of
from divcon.pipeline._keys import Keys
from divcon.pipeline._programs import Compiled, Programs, compiled_prompt
from divcon.pipeline._record import record_key
from divcon.pipeline._results import about_fallbacks, require_all_answered, results_files, run_results
from divcon.pipeline._saved import SavedRun
from divcon.pipeline._so_far import SoFar
from divcon.pipeline._stations import Stations, compile_prompt
from divcon.pipeline._status import StationStatus, run_status
from divcon.pipeline._works import recipe_of
from divcon.programs import DivideAndConquer, Item
from divcon.programs._arguments import require_instance


class Run:
    """A pipeline and its run folder. Each station does only what is missing from the folder.

    Args:
        pipeline: The validated pipeline file.
        folder: The run folder.
        reporter: Gets progress and result lines; by default nothing is reported.
        shared: A store that several runs share; by default the run has its own.
        loaded: The questions; by default those of the file's task.
        executor: An executor that several runs share; by default the run has its own.

    Raises:
        UnusableArgument: `pipeline` is no pipeline, such as the name of its file.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        folder: Path | str,
        reporter: Reporter | None = None,
        shared: RunStore | None = None,
        loaded: LoadedTask | None = None,
        executor: Executor | None = None,
    ) -> None:
        require_instance("The pipeline", pipeline, Pipeline, "load_pipeline('pipeline.yaml')")
        self.context = Context(pipeline, expanded_path(folder), reporter or Silent(), shared, loaded, executor)

    # -- what the stations share -----------------------------------------------------------------------------------

    @property
    def pipeline(self) -> Pipeline:
        return self.context.pipeline

    @property
    def folder(self) -> Path:
        return self.context.folder

    @property
    def reporter(self) -> Reporter:
        return self.context.reporter

    @property
    def store(self) -> RunStore:
        return self.context.store

    @property
    def task(self) -> LoadedTask:
        return self.context.task

    @property
    def models(self) -> Models:
        return self.context.models

    @property
    def compiled(self) -> Compiled | None:
        """The teacher's optimized prompt, or None."""
        return compiled_prompt(self.context)

    @property
    def programs(self) -> Programs:
        """The programs of this run, with the current optimized prompt."""
        return Programs(self.context, self.compiled)

    @property
    def keys(self) -> Keys:
        """The keys of the stations' results, with the current optimized prompt."""
        return self.stations.keys

    @property
    def stations(self) -> Stations:
        """The stations after compiling, with the current optimized prompt."""
        return Stations(self.context, self.programs, self.place)

    @property
    def place(self) -> Place:
        """The place where the jobs of stations are done."""
        return self.context.executor.place(lambda: recipe_of(self.context), self.store)

    def hold(self, wait: bool = False) -> None:
        """Let no other process work on the folder until `close` or `leave`; stations do it by themselves.

        Args:
            wait: Wait for another process to end.

        Raises:
            FolderBusy: Another process works on the folder.
            RepliesLost: The folder holds results, and its store no replies.
        """
        self.context.hold(wait)

    def close(self) -> None:
        """Stop the student's server if one was started, close the store, and let other processes work on the folder."""
        self.context.close()

    def leave(self) -> None:
        """Close the store and let other processes work on the folder; servers and workers go on."""
        self.context.leave()

    # -- stations --------------------------------------------------------------------------------------------------

    def check(self, failures: Failures | None = None) -> None:
        """Check everything that can fail, before a call is paid for: folder, data, base, endpoints, arms.

        Args:
            failures: Gets what would stop the run; by default that is raised.

        Raises:
            DivconError: Something would stop the run; the message names all of it.
        """
        self.hold()
        found = Failures(self.reporter) if failures is None else failures
        _preflight.check(self.context, found)
        with found.gathering():
            check_arms(self.context, self.compiled)
        if failures is None:
            found.require_none()

    def examine(self, failures: Failures | None = None) -> None:
        """Have the doctor check the models that still have to be called.

        Args:
            failures: Gets what would stop the run; by default that is raised.

        Raises:
            DivconError: Something would stop the run; the message names all of it.
        """
        found = Failures(self.reporter) if failures is None else failures
        _preflight.examine(self.context, lambda: self.keys, found)
        if failures is None:
            found.require_none()

    def compile(self) -> None:
        """Optimize the teacher's prompt, if the file asks for it."""
        self.hold()
        compile_prompt(self.context)

    def collect(self) -> None:
        """Ask the teacher for the decompositions that are missing."""
        self.hold()
        self.stations.collect()

    def screen(self) -> dict[str, Screened]:
        """Judge the decompositions by every rule. Returns the result of each rule."""
        self.hold()
        return self.stations.screen()

    def export(self, screened: dict[str, Screened] | None = None) -> dict[str, Export]:
        """Write the training rows of every student. Returns them by student."""
        self.hold()
        stations = self.stations
        return stations.export(screened if screened is not None else stations.screen())

    def train(self) -> dict[str, Path]:
        """Train an adapter on every export that has none. Returns the adapters' folders by student."""
        self.hold()
        return self.stations.train()

    def arms(self) -> list[Arm]:
        """The arms of the evaluation, bound to their models, and then those that ran elsewhere."""
        return [*(self.arm(name) for name in self.pipeline.arms), *recorded_arms(self.context)]

    def arm(self, name: str, lora: Path | None = None, origin: str = "") -> Arm:
        """One arm, bound to its models.

        Args:
            name: The arm's name in `evaluate.arms`.
            lora: The adapter of a student of another run, trained with the same prompt; None for this run's own.
            origin: Where that adapter comes from, for the label.

        Raises:
            MissingStation: The student isn't trained, or was trained on other rows or settings.
            ManifestError: The student was trained with another prompt or base.
        """
        return bound_arm(self.context, self.compiled, name, lora, origin)

    def evaluate(self, seconds: dict[str, float] | None = None) -> RunResults:
        """Measure every arm on the test questions, and write `results.json`, `results.csv` and `report.html`.

        Raises:
            Incomplete: Some answers failed. They are in no accuracy, and the next run asks for them again.
        """
        self.hold()
        context, arms, test = self.context, self.arms(), self.task.test
        records = self.answers(arms)
        for arm in arms:
            said = counted(records[arm.name], self.pipeline.evaluate.max_failed)
            fallbacks = about_fallbacks(records[arm.name], context.store)
            context.reporter.finished(f"evaluate {arm.name}", f"{said}{fallbacks}")
        results = run_results(context, arms, records, seconds or {})
        figures, table, report = files = results_files(self.folder, "results")
        write_whole(figures, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        write_whole(table, as_csv(results["arms"]))
        write_report(results, records, test, report, calls_of(context.store, records))
        write_cards(self.folder, results)
        if tracking := self.pipeline.tracking:
            log_to_mlflow(tracking.mlflow, tracking.experiment, self.folder.name, results, files)
        require_all_answered(results, results["arms"])
        for arm in arms:
            record_key(self.folder, f"evaluate {arm.name}", arm.key)
        return results

    def answers(self, arms: Sequence[Arm]) -> dict[str, Records]:
        """The outcomes of arms on the test questions, by arm and item."""
        self.hold()
        context, test = self.context, self.task.test
        context.reporter.station("evaluate", f"{len(arms)} arms on {len(test)} questions")
        return self.outcomes(arms, test, "evaluate")

    def outcomes(self, arms: Sequence[Arm], items: Sequence[Item], station: str) -> dict[str, Records]:
        """The outcomes of arms on some questions, by arm and item, with progress under a station's name."""
        with self.context.watched(station) as progress:
            found = evaluate_arms(
                arms,
                items,
                self.context.store,
                concurrency=self.pipeline.evaluate.concurrency,
                progress=progress,
                place=self.place,
            )
        return {arm.name: records for arm, records in zip(arms, found, strict=True)}

    def run(self) -> RunResults:
        """Do all stations in order. Returns the results."""
        seconds: dict[str, float] = {}

        def timed(name: str, station: Callable[[], Any]) -> Any:
            started = time.perf_counter()
            found = station()
            seconds[name] = round(time.perf_counter() - started, 1)
            return found

        failures = Failures(self.reporter)
        timed("check", lambda: self.check(failures))
        self.examine(failures)
        failures.require_none()
        if self.pipeline.only_recorded:
            return self.evaluate(seconds)
        expected, before = total_of(self.estimate()), self._paid()
        timed("compile", self.compile)
        timed("collect", self.collect)
        screened = timed("screen", self.screen)
        timed("export", lambda: self.export(screened))
        timed("train", self.train)
        results = self.evaluate(seconds)
        calls, tokens, usd = (now - then for now, then in zip(self._paid(), before, strict=True))
        if calls:
            self.reporter.finished("estimate", "; ".join(compared(expected, int(calls), int(tokens), usd)))
        return results

    def estimate(self, measured: Measured | None = None, rounds: int = 1) -> list[StationEstimate]:
        """What the missing stations will take in calls, tokens, money and time. No model is called.

        Args:
            measured: Lengths and speeds that were measured on other questions.
            rounds: In how many parts the test questions are asked, each of which waits for its longest reply.
        """
        return estimate(self.context, measured, rounds)

    def _paid(self) -> tuple[float, float, float]:
        """Calls, tokens and US dollars so far, of the models that are asked."""
        roles = self.store.paid(price_of=self.pipeline.price_of)
        paid = [spent for role, spent in roles.items() if role not in self.pipeline.unpaid]
        tokens = sum(role["input_tokens"] + role["output_tokens"] for role in paid)
        return sum(role["calls"] for role in paid), tokens, sum(role["cost"] or 0.0 for role in paid)

    def status(self) -> list[StationStatus]:
        """Which stations are done, and why a station would run again. No model is called."""
        return list(run_status(self.context))

    def so_far(self) -> SoFar:
        """The answers that the folder holds, whether the run is finished or not. No model is called."""
        return SoFar.of(self.context)

    # -- answering -------------------------------------------------------------------------------------------------

    @property
    def saved(self) -> SavedRun:
        """The program and students in this run folder, even if its data and settings have changed since."""
        return SavedRun(self.context)

    def ask(self, question: str, context: str | None = None, student: str | None = None) -> dspy.Prediction:
        """Answer one question; see `SavedRun.ask`."""
        return self.saved.ask(question, context, student)

    def answering_program(self, student: str | None = None) -> tuple[DivideAndConquer, str]:
        """The program with a student in place, and the student's name; see `SavedRun.program`."""
        return self.saved.program(student)

    def lms(self, student: str | None = None) -> dict[str, dspy.LM]:
        """The LMs of this run by role, for `divcon.bind`; see `SavedRun.program`."""
        return self.saved.lms(student)
