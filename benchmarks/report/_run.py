"""The report of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from divcon.benchmarks._outcomes import Records
from divcon.benchmarks.report._cells import accuracy_table, replies_table
from divcon.benchmarks.report._names import legend
from divcon.benchmarks.report._page import Page, Section, require_matplotlib
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
) -> Page:
    """The report of a run as a page; see `write_report`."""
    require_matplotlib()
    results = shown_values(results)
    name, lines = results["task"]["name"], results["arms"]
    shown = [Shown(name, items, [(line, records[line["name"]]) for line in lines], calls)]
    links = Links(shown)
    cards = cards_of(results)
    return Page(
        title=f"Which half to distil: {name}",
        facts=[*facts_of(results), ("Questions", f"{results['questions']:,}")],
        notes=list(notes_of(results)),
        cards=cards,
        rule=RULE if cards else "",
        programs=legend(lines),
        sections=list(_sections(results, links)),
        shown=shown,
        configuration={key: value for key, value in results.items() if key in CONFIGURED},
    )


def _sections(results: Mapping[str, Any], links: Links) -> Iterator[Section]:
    lines, costs = results["arms"], results.get("costs")
    plots = [accuracy_of("accuracy", "Accuracy", lines, links)]
    if costs and not costs["unscored"] and costs["points"]:
        plots.append(cost_plot("pareto", "Accuracy and cost", lines, costs, links))
    notes = [*line_notes(lines), *accuracy_notes(results, lines)]
    yield Section("accuracy", "Accuracy", plots=plots, tables=[accuracy_table("", lines, links)], notes=notes)
    yield from comparisons_section(results["differences"], links)
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
