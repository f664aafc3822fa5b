"""The report of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from divcon.benchmarks._outcomes import Records
from divcon.benchmarks.report._cells import accuracy_table, replies_table
from divcon.benchmarks.report._names import legend
from divcon.benchmarks.report._page import Page, Section, require_matplotlib
from divcon.benchmarks.report._progress import Station, progress_section, unfinished_card
from divcon.benchmarks.report._questions import Links, Shown, shown_values
from divcon.benchmarks.report._views import (
    CONFIGURED,
    RULE,
    accuracy_notes,
    accuracy_of,
    agreement_section,
    cards_of,
    comparisons_section,
    cost_plot,
    facts_of,
    line_notes,
    notes_of,
    paid_section,
    replies_section,
    training_section,
)
from divcon.distill import Exchange, write_whole
from divcon.programs import Item


def write_report(
    results: Mapping[str, Any],
    records: Mapping[str, Records],
    items: Sequence[Item],
    file: Path,
    calls: Mapping[str, Exchange] | None = None,
) -> None:
    """Write the report of a run.

    Args:
        results: The content of `results.json`.
        records: Outcomes by arm and item id.
        items: The test items.
        file: The file to write.
        calls: The calls that the outcomes name, by their keys; without them the page shows no prompts.

    Raises:
        ReportError: Jinja or Matplotlib is missing.
        StoreError: The file can't be written.
    """
    write_whole(file, run_page(results, records, items, calls or {}).render())


def run_page(
    results: Mapping[str, Any],
    records: Mapping[str, Records],
    items: Sequence[Item],
    calls: Mapping[str, Exchange],
    stations: Sequence[Station] | None = None,
    refresh: int | None = None,
) -> Page:
    """The report of a run as a page; see `write_report`.

    Args:
        results: The content of `results.json`, or that of a run that isn't finished.
        records: Outcomes by arm and item id.
        items: The test items.
        calls: The calls that the outcomes name, by their keys.
        stations: The stations of a run that isn't finished; None for a finished run.
        refresh: Seconds until the page loads itself again; None for never.
    """
    require_matplotlib()
    results = shown_values(results)
    stations = None if stations is None else [Station(*shown_values(one)) for one in stations]
    name, lines = results["task"]["name"], results["arms"]
    shown = [Shown(name, items, [(line, records[line["name"]]) for line in lines], calls)]
    links = Links(shown)
    cards = cards_of(results)
    sections = list(_sections(results, links))
    if stations is not None:
        cards = [unfinished_card(results, stations)]
        sections.insert(0, progress_section(stations))
    return Page(
        title=f"Which half to distil: {name}" + (" (not finished)" if stations is not None else ""),
        facts=[*facts_of(results), ("Questions", f"{results['questions']:,}")],
        notes=list(notes_of(results)),
        cards=cards,
        rule=RULE if cards and stations is None else "",
        programs=legend(lines),
        sections=sections,
        shown=shown,
        configuration={key: value for key, value in results.items() if key in CONFIGURED},
        refresh=refresh,
    )


def _sections(results: Mapping[str, Any], links: Links) -> Iterator[Section]:
    lines, costs = results["arms"], results.get("costs")
    plots = [accuracy_of("accuracy", "Accuracy of each program", lines, links)]
    if costs and not costs["unscored"] and costs["points"]:
        plots.append(cost_plot("pareto", "Accuracy and cost", lines, costs, links))
    notes = [*line_notes(lines), *accuracy_notes(results, lines)]
    if lines:
        yield Section("accuracy", "Accuracy", plots=plots, tables=[accuracy_table("", lines, links)], notes=notes)
    yield from comparisons_section(results["differences"], links)
    yield from paid_section(results.get("paid") or {})
    if not lines:
        return
    yield replies_section([replies_table("", lines)])
    yield from agreement_section([("", lines)])
    yield from training_section(_training(results))


_TRAINED = ("rows", "steps", "first_loss", "last_loss", "seconds")


def _training(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for student, counts in results["screening"]["by_student"].items():
        training = {key: results["training"].get(student, {}).get(key) for key in _TRAINED}
        rows.append({"cell": results["task"]["name"], "student": student, **counts, **training})
    return rows
