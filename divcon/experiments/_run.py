"""Experiments: many runs that share one store.

A cell is a run of its own on one task and seed, with a folder of its own. Its replies are kept in the experiment's
store, so that no call is made twice and a stopped experiment can be resumed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from divcon._doctor import diagnose
from divcon._watch import Reporter, Silent, watched
from divcon.benchmarks import (
    Records,
    RunResults,
    as_csv,
    evaluate_arms,
    log_to_mlflow,
    write_experiment_report,
)
from divcon.benchmarks.tasks import refuse_overlap_across
from divcon.config import EXPERIMENT_FILE, Experiment
from divcon.distill import RunStore, write_whole
from divcon.distill._paths import expanded_path
from divcon.experiments._cells import Cell, Draw, Runs
from divcon.experiments._kinds import cells_of
from divcon.experiments._results import Answers, experiment_results
from divcon.experiments._so_far import ExperimentSoFar, shown_of
from divcon.pipeline import Failures, Run, Unfit, announce_conversion, require_all_answered, results_files


class ExperimentRun:
    """An experiment and its folder.

    Args:
        experiment: The validated experiment file.
        folder: The experiment's folder.
        reporter: Gets progress and result lines; by default nothing is reported.
        store: The folder's store; by default it is opened on first use.
    """

    def __init__(
        self, experiment: Experiment, folder: Path, reporter: Reporter | None = None, store: RunStore | None = None
    ) -> None:
        self.experiment = experiment
        self.folder = expanded_path(folder)
        self.reporter = reporter or Silent()
        self.runs = Runs(experiment, self.folder, self.reporter, store)

    @property
    def store(self) -> RunStore:
        return self.runs.store

    @property
    def kind(self) -> str:
        return self.experiment.experiment.kind

    def check(self) -> None:
        """Check everything that can fail, before a call is paid for: data, references, overlaps, endpoints.

        Raises:
            DivconError: Something would stop the experiment; the message says what to do.
        """
        design = self.experiment.experiment
        self.hold()
        failures = Failures(self.reporter)
        most: dict[str, Any] = {"task__train": max(design.questions)} if design.questions else {}
        by_draw: dict[Draw, list[Run]] = {draw: [] for draw in self.runs.draws}
        for task, draw in product(design.tasks, by_draw):
            with failures.gathering():
                by_draw[draw].append(self.runs.of(task, draw, **most))
        runs = [run for among in by_draw.values() for run in among]
        for run in runs:
            run.check(failures)
        if self.kind in ("transfer", "multitask"):
            for one, other in ((one, other) for among in by_draw.values() for one, other in product(among, among)):
                with failures.gathering():
                    refuse_overlap_across(one.task, one.pipeline.task, other.task, other.pipeline.task)
        if self.kind == "depth":
            for run in runs:
                with failures.gathering():
                    _require_references(run)
        seed, first = design.seeds[0], next(iter(design.tasks))
        differ: list[tuple[str, dict[str, Any]]] = [
            (first, {}),
            *((task, {}) for task in design.teachers if task != first),
        ]
        for task, change in [*differ, *((first, change) for change in design.solver_changes.values())]:
            pipeline = self.experiment.pipeline(task, seed, design.measured, **change)
            announce_conversion(pipeline, self.reporter)
            failures.look_at(diagnose(pipeline, self.folder, data=False))
        failures.require_none()
        # Its cells' pipelines and its results are made of what the file sets.
        written = self.experiment.model_dump_json(indent=2, exclude_unset=True)
        write_whole(self.folder / EXPERIMENT_FILE, written + "\n")
        if design.folds is not None:
            self._say_folds(runs)

    def _say_folds(self, runs: Sequence[Run]) -> None:
        """Report the size of the folds, and what was asked for where it is more."""
        for name, task in self.experiment.experiment.tasks.items():
            cells = [run for run in runs if self.runs.cell_of(run).partition("/")[0] == name]
            tested = len({item.id for run in cells for item in run.task.test})
            trained = [len(run.task.train) for run in cells]
            drawn = max(len(run.task.train) + run.task.dropped_overlap for run in cells)
            asked = {"task.test": (task.test, tested), "task.train": (task.train, drawn)}
            lowered = "".join(
                f"; {key} asks for {wanted:,}"
                for key, (wanted, got) in asked.items()
                if isinstance(wanted, int) and wanted > got
            )
            sizes = " to ".join(f"{size:,}" for size in sorted({min(trained), max(trained)}))
            self.reporter.finished(
                "folds",
                f"{name}: {tested:,} questions in {self.experiment.experiment.folds} folds, each tested with students "
                f"of {sizes} others{lowered}",
            )

    def run(self) -> RunResults:
        """Train and measure whatever is missing, and write `KIND.json`, `KIND.csv` and `KIND.html`.

        Raises:
            Incomplete: Some answers failed. They are in no figure, and the next run asks for them again.
        """
        started = time.perf_counter()
        self.check()
        self.runs.train_elsewhere()
        measured: list[tuple[Cell, Records]] = []
        for batch in cells_of(self.runs):
            measured.extend(zip(batch, self._answers(batch), strict=True))
            for run in {id(cell.run): cell.run for cell in batch}.values():
                run.close()  # stops the server of its students, whose memory the next training may need
        results, answers = experiment_results(self.runs, measured)
        results["seconds"] = round(time.perf_counter() - started, 1)
        self._write(results, answers, measured)
        # The rows by steps are parts of the others.
        require_all_answered(results, [row for row in results["rows"] if "steps" not in row])
        return results

    def so_far(self) -> ExperimentSoFar:
        """The answers that the folder holds. No model is called, nothing is trained, and nothing is written."""
        return ExperimentSoFar.of(Runs(self.experiment, self.folder, self.reporter, self.store, looking=True))

    def _answers(self, batch: Sequence[Cell]) -> list[Records]:
        """The outcomes of a batch of cells, which share a run."""
        context = batch[0].run.context
        pipeline, test = context.pipeline, context.task.test
        self.reporter.station("evaluate", f"{len(batch)} arms on {len(test)} questions")
        with watched(self.reporter, "evaluate", self.store, pipeline.price_of, unpaid=pipeline.unpaid) as progress:
            return evaluate_arms(
                [cell.arm for cell in batch],
                test,
                self.store,
                concurrency=self.experiment.evaluate.concurrency,
                progress=progress,
                place=batch[0].run.place,
            )

    def hold(self, wait: bool = False) -> None:
        """Let no other process work on the folder until `close` or `leave`; see `Run.hold`."""
        self.runs.hold(wait)

    def close(self) -> None:
        """Stop servers and workers that were started, close the store, and let other processes work on the folder."""
        self.runs.close()

    def leave(self) -> None:
        """Close the store and let other processes work on the folder; servers and workers go on."""
        self.runs.leave()

    def _write(
        self,
        results: dict[str, Any],
        answers: Answers,
        measured: Sequence[tuple[Cell, Records]],
    ) -> None:
        """Write the figures as JSON and CSV, and the report, which shows the first seed's answers."""
        figures, table, report = files = results_files(self.folder, self.kind)
        write_whole(figures, json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        write_whole(table, as_csv(results["rows"]))
        shown = shown_of(self.runs, results, answers, [cell for cell, _ in measured])
        write_experiment_report(results, shown, report)
        if tracking := self.experiment.tracking:
            log_to_mlflow(tracking.mlflow, tracking.experiment, f"{self.folder.name}/{self.kind}", results, files)


def _require_references(run: Run) -> None:
    """Refuse test questions without reference subquestions, by which the experiment depth groups them.

    Raises:
        Unfit: There are such.
    """
    bare = [item.id for item in run.task.test if not item.subquestions]
    if bare:
        raise Unfit(
            f"The experiment depth needs reference subquestions, and {bare[0]} has none.",
            "Take a task whose data has them.",
        )
