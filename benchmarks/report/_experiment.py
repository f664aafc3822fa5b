"""The report of an experiment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from divcon.benchmarks._advice import lines_of
from divcon.benchmarks._tables import FACTORS
from divcon.benchmarks.report import _plots
from divcon.benchmarks.report._cells import accuracy_table, replies_table
from divcon.benchmarks.report._names import legend, program_of
from divcon.benchmarks.report._page import Page, Section, require_matplotlib
from divcon.benchmarks.report._plots import Plot, Point
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
    point_of,
    replies_section,
    training_section,
    with_failed,
)
from divcon.distill import write_whole

# What is drawn along the x axis, by the kind of experiment.
_AXES = {"depth": "steps", "curve": "questions", "cap": "cap"}


def write_experiment_report(results: Mapping[str, Any], shown: Sequence[Shown], file: Path) -> None:
    """Write the report of an experiment.

    Args:
        results: The content of the experiment's JSON file.
        shown: The questions and answers of each task.
        file: The file to write.

    Raises:
        ReportError: Jinja or Matplotlib is missing.
        StoreError: The file can't be written.
    """
    write_whole(file, experiment_page(results, shown).render())


def experiment_page(
    results: Mapping[str, Any],
    shown: Sequence[Shown],
    stations: Sequence[Station] | None = None,
    refresh: int | None = None,
) -> Page:
    """The report of an experiment as a page; see `write_experiment_report`.

    Args:
        results: The content of the experiment's JSON file, or that of an experiment that isn't finished.
        shown: The questions and answers of each task.
        stations: The cells of an experiment that isn't finished; None for a finished one.
        refresh: Seconds until the page loads itself again; None for never.

    Raises:
        ReportError: Matplotlib is missing.
    """
    require_matplotlib()
    results = shown_values(results)
    links = Links(shown)
    if stations is None:
        cards, sections = cards_of(results), list(_sections(results, links))
    else:
        cells = [Station(*shown_values(one)) for one in stations]
        cards, sections = [unfinished_card(results, cells)], list(_sections_so_far(results, cells, links))
    return Page(
        title=f"{results['experiment']}: {results['question']}" + (" (not finished)" if stations is not None else ""),
        facts=facts_of(results),
        notes=list(notes_of(results)),
        cards=cards,
        rule=RULE if results["costs"] else "",
        programs=legend(results["rows"]),
        sections=sections,
        shown=shown,
        configuration={key: value for key, value in results.items() if key in CONFIGURED},
        refresh=refresh,
    )


def _sections_so_far(results: Mapping[str, Any], stations: Sequence[Station], links: Links) -> Iterator[Section]:
    """The sections of an experiment that isn't finished: no plots, since most would have a point each."""
    yield progress_section(stations)
    by_task = {task: [row for row in results["rows"] if row["task"] == task] for task in results["tasks"]}
    there = {task: [row for row in rows if "steps" not in row] for task, rows in by_task.items() if rows}
    if there:
        tables = [accuracy_table(task, rows, links) for task, rows in there.items()]
        notes = [*line_notes([row for rows in there.values() for row in rows])]
        yield Section("accuracy", "Accuracy so far", tables=tables, notes=notes)
    yield from comparisons_section(results["comparisons"], links)


def _sections(results: Mapping[str, Any], links: Links) -> Iterator[Section]:
    rows = results["rows"]
    by_task = {task: [row for row in rows if row["task"] == task] for task in results["tasks"]}
    whole = {task: [row for row in lines if "steps" not in row] for task, lines in by_task.items()}
    yield Section(
        "accuracy",
        "Accuracy",
        plots=list(_accuracy_plots(results, by_task, links)),
        tables=[accuracy_table(task, lines, links) for task, lines in whole.items()],
        notes=[*line_notes([row for lines in whole.values() for row in lines]), *accuracy_notes(results, rows)],
    )
    if len(rows) > sum(map(len, whole.values())):
        yield Section(
            "steps",
            "Accuracy by the steps that a question needs",
            tables=[
                accuracy_table(task, [row for row in lines if "steps" in row], links) for task, lines in by_task.items()
            ],
            folded=f"All {len(rows) - sum(map(len, whole.values()))} figures",
        )
    plots = [
        cost_plot(f"pareto-{number}", f"{where}: accuracy and cost", lines_of(rows, costs), costs, links)
        for number, (where, costs) in enumerate(results["costs"].items())
        if not costs["unscored"]
    ]
    if plots:
        yield Section("costs", "Accuracy and cost", plots=plots)
    yield from comparisons_section(results["comparisons"], links)
    yield replies_section([replies_table(task, lines) for task, lines in whole.items()])
    yield from agreement_section(list(whole.items()))
    yield from training_section(results["screening"])


def _accuracy_plots(
    results: Mapping[str, Any], by_task: Mapping[str, Sequence[Mapping[str, Any]]], links: Links
) -> Iterator[Plot]:
    kind = results["experiment"]
    if kind == "transfer":
        yield from _heat_plots(results, links)
    for task, lines in by_task.items():
        if axis := _AXES.get(kind):
            yield _curves(task, axis, [line for line in lines if line["accuracy"] is not None], links)
        else:
            yield accuracy_of(f"accuracy-{task}", f"{task}: accuracy", lines, links)


def _curves(task: str, axis: str, lines: Sequence[Mapping[str, Any]], links: Links) -> Plot:
    """Accuracy along what an experiment varies, a curve for each program."""
    points: dict[str, list[Point]] = {}
    failed: Counter[str] = Counter()
    for line in lines:
        if axis in line:
            label = program_of(line).full
            points.setdefault(label, []).append(point_of(line, links, x=line[axis]))
            failed[label] += line["failed"]
    series = {with_failed({"failed": failed[label]}, label): found for label, found in points.items()}
    name = FACTORS[axis]
    return _plots.lines_plot(f"lines-{task}", f"{task}: accuracy by {name}", series, name)


def _heat_plots(results: Mapping[str, Any], links: Links) -> Iterator[Plot]:
    tasks = list(results["tasks"])
    moved = list(dict.fromkeys(row["name"] for row in results["rows"] if "trained_on" in row))
    for name in moved:
        rows = {(row["trained_on"], row["task"]): row for row in results["rows"] if row["name"] == name}
        cells = [[rows.get((origin, task)) for task in tasks] for origin in tasks]
        failed = sum(row["failed"] for row in rows.values() if row["accuracy"] is not None)
        words = next((program.full for program in legend([{"name": name}])), name)
        yield _plots.heat_plot(
            f"heat-{name}",
            with_failed({"failed": failed}, f"{words}: accuracy on other tasks, %"),
            tasks,
            tasks,
            [[cell and cell["accuracy"] for cell in line] for line in cells],
            [[links.to(cell, "wrong") if cell else "" for cell in line] for line in cells],
        )
