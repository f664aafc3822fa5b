"""Two runs side by side, question by question."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from divcon.benchmarks._figures import p_in_words, p_value, points, points_between, score
from divcon.benchmarks._outcomes import Records
from divcon.benchmarks._tables import compare_over, is_shown
from divcon.benchmarks.report import _plots
from divcon.benchmarks.report._cells import NONE, Cell, Table
from divcon.benchmarks.report._names import legend, program_of
from divcon.benchmarks.report._page import Note, Page, ReportError, Section, require_matplotlib
from divcon.benchmarks.report._questions import Links, Shown, shown_values
from divcon.benchmarks.report._views import point_of
from divcon.distill import Exchange
from divcon.programs import Item


@dataclass(frozen=True)
class RunAnswers:
    """The answers of one of two runs.

    Attributes:
        name: What the run is called.
        results: Its results.
        records: The outcomes by arm and item id.
        items: Its test items.
        calls: The calls that the outcomes name, by their keys.
    """

    name: str
    results: Mapping[str, Any]
    records: Mapping[str, Records]
    items: Sequence[Item]
    calls: Mapping[str, Exchange] = field(default_factory=dict)


def comparison(a: RunAnswers, b: RunAnswers, resamples: int = 10_000) -> dict[str, Any]:
    """Compare the programs that two runs have in common, over the questions that both have answered.

    Two questions are the same where id, text, passage and gold answer are. Differences are those of the second run
    minus the first, with bootstrap intervals and Holm-corrected p-values of a paired permutation test.

    Args:
        a: The first run.
        b: The second run.
        resamples: The number of bootstrap samples.

    Returns:
        `a` and `b`, the runs' names; `questions`, those that both were asked; `programs`, a row for each with its
        results in both runs; `settings`, the settings that differ: (name, first, second).

    Raises:
        ReportError: They have no question or no program in common.
    """
    same = [item.id for item in _in_both(a, b)]
    lines = {line["name"]: line for line in b.results["arms"]}
    both = [(line, lines[line["name"]]) for line in a.results["arms"] if line["name"] in lines]
    if not same or not both:
        what = "question" if not same else "program with answers"
        raise ReportError(f"{a.name} and {b.name} have no {what} in common.", "Compare runs on the same questions.")
    pairs = []
    for line, _ in both:
        one, other = a.records[line["name"]], b.records[line["name"]]
        pairs.append((other, one, [key for key in same if key in one and key in other]))
    compared = dict(compare_over(pairs, resamples, max_failed=1.0))
    rows = []
    for number, (line, other) in enumerate(both):
        found = compared.get(number)
        kept = ("difference", "ci95", "p", "p_holm", "n", "left_out")
        figures = {key: found[key] if found else None for key in kept}
        rows.append({"name": line["name"], "label": line["label"], "a": line, "b": other, **figures})
    return {
        "a": a.name,
        "b": b.name,
        "questions": len(same),
        "programs": rows,
        "settings": list(_changed("", a.results["configuration"], b.results["configuration"])),
    }


def _in_both(a: RunAnswers, b: RunAnswers) -> list[Item]:
    """The questions that both runs were asked; one with the same id and another text is another question."""
    theirs = {item.id: (item.question, item.context, item.answer) for item in b.items}
    return [item for item in a.items if theirs.get(item.id) == (item.question, item.context, item.answer)]


def _changed(name: str, one: Any, other: Any) -> Iterator[tuple[str, Any, Any]]:
    """The settings that differ, with dotted names."""
    if one == other:
        return
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in dict.fromkeys([*one, *other]):
            yield from _changed(f"{name}.{key}" if name else str(key), one.get(key), other.get(key))
    else:
        yield name, one, other


def comparison_page(a: RunAnswers, b: RunAnswers, found: Mapping[str, Any]) -> Page:
    """The comparison of two runs as a page.

    Args:
        a: The first run.
        b: The second run.
        found: What `comparison` returns.

    Raises:
        ReportError: Matplotlib is missing.
    """
    require_matplotlib()
    found = shown_values(found)
    items = _in_both(a, b)
    asked = {item.id for item in items}
    arms = []
    for row in found["programs"]:
        for side, run in (("a", a), ("b", b)):
            program, name = program_of(row), f"{program_of(row).letters} in {side.upper()}"
            line = {**row[side], "name": name, "label": f"{program.words} ({name})"}
            records = run.records[row["name"]]
            arms.append((line, {key: record for key, record in records.items() if key in asked}))
    shown = [Shown("both", items, arms, {**a.calls, **b.calls})]
    links = Links(shown)
    title = f"{found['a']} beside {found['b']}"
    return Page(
        title=title,
        facts=[("A", found["a"]), ("B", found["b"]), ("Questions in both", f"{found['questions']:,}")],
        cards=[_card(found)],
        programs=legend(found["programs"]),
        sections=list(_sections(found, arms, links)),
        shown=shown,
    )


def _card(found: Mapping[str, Any]) -> dict[str, Any]:
    """Which run is more accurate, program by program."""
    rows = [row for row in found["programs"] if row["difference"] is not None]
    better = [program_of(row).letters for row in rows if is_shown(row) and row["difference"] > 0]
    worse = [program_of(row).letters for row in rows if is_shown(row) and row["difference"] < 0]
    said = [f"B is more accurate with {', '.join(better)}"] if better else []
    said += [f"A is more accurate with {', '.join(worse)}"] if worse else []
    sentences = []
    for row in rows:
        sentences.append(
            f"{program_of(row).full}: B minus A is {points(row['difference'])} points (95 % interval "
            f"{points_between(row['ci95'])}, {p_in_words(row['p_holm'])}) on {row['n']:,} questions."
        )
    return {
        "task": "A beside B",
        "status": None,
        "headline": "; ".join(said) or "No difference between the two runs is shown",
        "sentences": sentences,
    }


def _sections(found: Mapping[str, Any], arms: Sequence[tuple[Any, Records]], links: Links) -> Iterator[Section]:
    lines = [line for line, _ in arms if line["accuracy"] is not None]
    rows = []
    for row in found["programs"]:
        program, known = program_of(row), row["difference"] is not None
        pair = {"a": f"{program.letters} in A", "b": f"{program.letters} in B"}
        alone = [(f"{side} {count}", link) for side, (count, link) in zip("AB", links.between(pair), strict=False)]
        significant = known and is_shown(row)
        rows.append(
            [
                Cell(program.words, program.letters),
                Cell(score(row["a"])),
                Cell(score(row["b"])),
                Cell(points(row["difference"]) if known else NONE, strong=significant),
                Cell(points_between(row["ci95"]) if known else NONE),
                Cell(p_value(row["p_holm"]) if known else NONE, strong=significant),
                Cell(f"{row['n']:,}" if known else NONE),
                Cell(links=alone) if alone else Cell(NONE),
            ]
        )
    columns = [
        "program", "accuracy in A", "accuracy in B", "B minus A, points", "95 % interval", "p, corrected", "questions",
        "right where the other is wrong",
    ]  # fmt: skip
    plot = _plots.accuracy_plot("accuracy", "Accuracy in both runs", [point_of(line, links) for line in lines])
    notes = [
        Note(
            "Differences are over the questions that both runs have answered, with bootstrap intervals. p-values are "
            "of a paired permutation test, corrected for their number by Holm's method. The two accuracies are "
            "over each run's own questions."
        )
    ]
    yield Section("comparisons", "Comparison", plots=[plot], tables=[Table("", columns, rows, 1, "runs")], notes=notes)
    if found["settings"]:
        cells = [[Cell(name), Cell(_said(one)), Cell(_said(other))] for name, one, other in found["settings"]]
        table = Table("", ["setting", "in A", "in B"], cells, 3, "settings")
        yield Section("settings", "Settings that differ", tables=[table])


def _said(value: Any) -> str:
    return NONE if value is None else str(value)
