"""What a report says of a run that isn't finished: its stations, what is missing, and what has failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from divcon.benchmarks._figures import failures
from divcon.benchmarks.report._cells import Cell, Table
from divcon.benchmarks.report._names import program_of
from divcon.benchmarks.report._page import Section

_NAMED = 12  # stations that the card names


class Station(NamedTuple):
    """A station of a run.

    Attributes:
        name: Its name, such as `collect`; for a cell of an experiment `evaluate` and the cell's name.
        state: `done`, `partly`, `to do` or `again`.
        done: The number of results that are there.
        total: The number of all results.
        note: Why it would run again.
    """

    name: str
    state: str
    done: int
    total: int
    note: str


def progress_section(stations: Sequence[Station]) -> Section:
    """The stations of a run, with what is there."""
    rows = [
        [
            Cell(one.name),
            Cell(one.state, strong=one.state != "done"),
            Cell(f"{one.done:,} of {one.total:,}"),
        ]
        for one in stations
    ]
    table = Table("", ["station", "state", "results"], rows, 2, "stations", cards=False)
    return Section("progress", "So far", "A run does only what is missing.", tables=[table])


def unfinished_card(results: Mapping[str, Any], stations: Sequence[Station]) -> dict[str, Any]:
    """A card in place of the advice: what is there, what is missing, and the first failure."""
    lines = results["arms"] if "arms" in results else [row for row in results["rows"] if "steps" not in row]
    evaluated = [one for one in stations if one.name.startswith("evaluate ")]
    there, asked = sum(one.done for one in evaluated), sum(one.total for one in evaluated)
    unfinished = [one for one in stations if one.done < one.total]
    missing = [f"{one.name} ({one.done:,} of {one.total:,})" for one in unfinished[:_NAMED]]
    sentences = ["Nothing is advised before the end: programs may have answered different questions so far."]
    scored = [line for line in lines if line["accuracy"] is not None]
    if scored:
        best = max(scored, key=lambda line: line["accuracy"])
        low, high = best["ci95"]
        where = f" on {best['task']}" if "task" in best else ""
        sentences.append(
            f"The most accurate so far is {program_of(best).full}{where} with {100 * best['accuracy']:.1f} % of "
            f"{best['right'] + best['wrong']:,} answers (95 % interval {100 * low:.0f} % to {100 * high:.0f} %)."
        )
    failed = sum(line["failed"] for line in lines)
    if failed:
        first = next(error for line in lines for error in line["errors"])
        sentences.append(failures(failed, first))
    if missing:
        more = f" and {len(unfinished) - _NAMED} more" if len(unfinished) > _NAMED else ""
        sentences.append(f"Missing: {', '.join(missing)}{more}.")
    return {
        "task": results["task"]["name"] if "task" in results else "",
        "status": None,
        "headline": f"Not finished: {there:,} of {asked:,} answers are there",
        "sentences": sentences,
        "tested": [],
        "warnings": [],
    }
