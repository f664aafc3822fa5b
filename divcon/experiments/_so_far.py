"""What an experiment's folder holds so far: the answers of its cells, and the results from them. No model is called."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from divcon.benchmarks import FACTORS, Record, Records, RunResults, Shown, calls_of
from divcon.benchmarks.report import Page, experiment_page
from divcon.experiments._cells import Cell, Runs
from divcon.experiments._kinds import cells_of
from divcon.experiments._results import Answers, answers_of_rows, designed, experiment_so_far, fullest
from divcon.pipeline import State, StationStatus, results_files, shown_stations


@dataclass(frozen=True)
class ExperimentSoFar:
    """The answers in an experiment's folder.

    Attributes:
        runs: The runs, which are looked at.
        measured: The cells whose arms are there, and their outcomes so far.
        stations: For each cell of the folder, how many answers there are.
    """

    runs: Runs
    measured: Sequence[tuple[Cell, Records]]
    stations: Sequence[StationStatus]

    @classmethod
    def of(cls, runs: Runs) -> ExperimentSoFar:
        """The answers that the folder of an experiment holds.

        Args:
            runs: The runs, with `looking` set.
        """
        measured: list[tuple[Cell, Records]] = []
        counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        known: dict[tuple[str, str], dict[str, Record]] = {}
        for batch in cells_of(runs):
            for cell in batch:
                key = (cell.arm.name, cell.arm.key.digest)
                if key not in known:
                    known[key] = cast(dict[str, Record], runs.store.outcomes(*key))
                test = cell.run.task.test
                found = {item.id: known[key][item.id] for item in test if item.id in known[key]}
                measured.append((cell, found))
                count = counts[runs.cell_of(cell.run)]
                count[0] += len(found)
                count[1] += len(test)
        for name, waiting in runs.waiting.items():
            counts[name][1] += waiting
        stations = []
        for name, (there, asked) in sorted(counts.items()):
            state: State = "done" if there == asked else "partly" if there else "to do"
            stations.append(StationStatus(f"evaluate {name}", state, there, asked))
        return cls(runs, measured, stations)

    @property
    def answered(self) -> int:
        """The number of answers that are there; those that failed count."""
        return sum(one.done for one in self.stations)

    @property
    def asked(self) -> int:
        """The number of answers when all arms have answered all test questions."""
        return sum(one.total for one in self.stations)

    @property
    def finished(self) -> bool:
        """Whether the experiment has written its results, with the settings that it has now."""
        return self._written is not None

    @cached_property
    def _written(self) -> dict[str, Any] | None:
        """The results that the experiment has written; None where they are of other settings, or not there."""
        file = results_files(self.runs.folder, self.runs.design.kind)[0]
        try:
            written = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        same = isinstance(written, dict) and all(
            written.get(key) == value for key, value in designed(self.runs.experiment).items()
        )
        return written if same else None

    @property
    def report_file(self) -> Path:
        """Where the experiment writes its report."""
        return results_files(self.runs.folder, self.runs.design.kind)[2]

    @cached_property
    def _answers(self) -> Answers:
        groups = answers_of_rows(self.runs, self.measured)
        return groups if self.finished else fullest(groups)

    def results(self, compare: bool = True) -> Mapping[str, Any]:
        """The results: those of `KIND.json` where the experiment is finished; see `experiment_so_far` where it isn't.

        Args:
            compare: Whether the programs of an unfinished experiment are compared, which takes the longest.
        """
        if self._written is not None:
            return RunResults(self._written)
        return experiment_so_far(self.runs, self.measured, self._answers, compare)

    def page(self, results: Mapping[str, Any], calls: bool = True, refresh: int | None = None) -> Page:
        """The report as a page.

        Args:
            results: What `results` returns.
            calls: Whether the page holds the prompts and replies of every call.
            refresh: Seconds until the page loads itself again; None for never.
        """
        shown = shown_of(self.runs, results, self._answers, [cell for cell, _ in self.measured], calls)
        return experiment_page(results, shown, None if self.finished else shown_stations(self.stations), refresh)


def shown_of(
    runs: Runs, results: Mapping[str, Any], answers: Answers, cells: Sequence[Cell], calls: bool = True
) -> list[Shown]:
    """The questions of each task, with the first seed's answers.

    Args:
        runs: The runs of the experiment.
        results: Its results.
        answers: The answers of each row for each seed.
        cells: The cells, which have the questions.
        calls: Whether the prompts and replies of every call are shown.
    """
    shown = []
    for task in results["tasks"]:
        items = {item.id: item for cell in cells if cell.factors["task"] == task for item in cell.run.task.test}
        arms = [
            (row, answers[(*(row.get(name) for name in FACTORS), row["name"])][0])
            for row in results["rows"]
            if row["task"] == task and "steps" not in row
        ]
        asked = {str(place): records for place, (_, records) in enumerate(arms)}
        shown.append(Shown(task, list(items.values()), arms, calls_of(runs.store, asked) if calls else {}))
    return shown
