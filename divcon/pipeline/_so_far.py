"""What a run folder holds so far: the answers of its arms, and the results from them. No model is called."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from divcon.benchmarks import Arm, Record, Records, calls_of
from divcon.benchmarks.report import Page, Station, run_page
from divcon.pipeline._context import Context
from divcon.pipeline._results import results_files, results_so_far, run_results
from divcon.pipeline._status import StationStatus, arms_there, run_status


@dataclass(frozen=True)
class SoFar:
    """The answers in a run folder.

    Attributes:
        context: The run's context.
        arms: The arms that have answers.
        records: Their outcomes so far, by arm and item, in the order of the items.
        stations: The status of the stations.
    """

    context: Context
    arms: Sequence[Arm]
    records: dict[str, Records]
    stations: Sequence[StationStatus]

    @classmethod
    def of(cls, context: Context) -> SoFar:
        """The answers that the folder of a run holds."""
        arms: list[Arm] = []
        records: dict[str, Records] = {}
        for name, arm in arms_there(context):
            there = context.store.outcomes(name, arm.key.digest) if arm is not None else {}
            found = {item.id: cast(Record, there[item.id]) for item in context.task.test if item.id in there}
            if arm is not None and found:
                arms.append(arm)
                records[name] = found
        return cls(context, arms, records, list(run_status(context)))

    @property
    def asked(self) -> int:
        """The number of answers when all arms have answered all test questions."""
        return len(self.context.task.test) * (len(self.context.pipeline.arms) + len(self.context.recordings))

    @property
    def answered(self) -> int:
        """The number of answers that are there; those that failed count."""
        return sum(map(len, self.records.values()))

    @property
    def finished(self) -> bool:
        """Whether every arm has answered every test question."""
        return self.answered == self.asked

    @property
    def report_file(self) -> Path:
        """Where the run writes its report."""
        return results_files(self.context.folder, "results")[2]

    def results(self, compare: bool = True) -> dict[str, Any]:
        """The results: those of `results.json` where the run is finished; see `results_so_far` where it isn't."""
        if self.finished:
            return run_results(self.context, self.arms, self.records, self._seconds())
        return results_so_far(self.context, self.arms, self.records, compare)

    def page(self, results: dict[str, Any], calls: bool = True, refresh: int | None = None) -> Page:
        """The report as a page.

        Args:
            results: What `results` returns.
            calls: Whether the page holds the prompts and replies of every call.
            refresh: Seconds until the page loads itself again; None for never.
        """
        test = self.context.task.test
        return run_page(
            results,
            self.records,
            test,
            calls_of(self.context.store, self.records) if calls else {},
            None if self.finished else shown_stations(self.stations),
            refresh,
        )

    def _seconds(self) -> dict[str, float]:
        """The seconds that the stations took, as the run has written them."""
        try:
            written = json.loads(results_files(self.context.folder, "results")[0].read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return dict(written.get("seconds") or {}) if isinstance(written, dict) else {}


def shown_stations(stations: Sequence[StationStatus]) -> list[Station]:
    """The status of stations, as a report shows it."""
    return [Station(one.station, one.state, one.done, one.total, one.note) for one in stations]
