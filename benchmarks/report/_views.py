"""The parts that reports of runs and of experiments have in common: facts, notes, plots and sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from divcon.benchmarks._advice import advise
from divcon.benchmarks.report import _plots
from divcon.benchmarks.report._cells import Table, agreement_table, comparisons_table, paid_table, training_table
from divcon.benchmarks.report._names import program_of, row_label
from divcon.benchmarks.report._page import Note, Section
from divcon.benchmarks.report._plots import Plot, Point
from divcon.benchmarks.report._questions import Links
from divcon.distill import Author

RULE = (
    "The rule: the cheapest program within two points of the most accurate one. The advice is settled where one-sided "
    "paired tests at 2.5 % show that it is at most two points less accurate than each program that costs as much or "
    "more, and more accurate than each cheaper one. Intervals and tests are Tango's for paired proportions. The number "
    "of questions is for 80 % power, if the observed shares are the true ones."
)
CONFIGURED = ("task", "tasks", "design", "student_base", "configuration", "versions")


def cards_of(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The advice, with the programs' names in words."""
    lines = "arms" if "arms" in results else "rows"
    return advise({**results, lines: [{**line, "label": program_of(line).full} for line in results[lines]]})


def facts_of(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Who was asked: solver, student and teacher."""
    teacher = results.get("teacher")
    if not teacher:
        return []
    asked = [("Teacher", teacher), *((f"Teacher of {task}", one) for task, one in _other_teachers(results))]
    return [
        ("Solver", results["solver"]),
        ("Student", results["student_base"]),
        *((role, one["model"]) for role, one in asked if one["kind"] != "scripted"),
    ]


def _other_teachers(results: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The teachers of single tasks, by task."""
    yield from results.get("teachers", {}).items()


def notes_of(results: Mapping[str, Any]) -> Iterator[Note]:
    """What has to be known to read the figures: plans and programs that came from elsewhere, allowed overlaps."""
    teacher = results.get("teacher")
    if not teacher:
        yield Note("All programs here are recorded: they ran elsewhere, and no model was asked.")
    elif note := Author(**teacher).note:
        yield Note(f"{note} Its tokens are words." if teacher["kind"] == "scripted" else note)
    for task, other in _other_teachers(results):
        if note := Author(**other).note:
            yield Note(f"{task}: {note}")
    tasks = [results["task"]] if "task" in results else results["tasks"].values()
    for task in tasks:
        for one in task.get("allow", []):
            which = one.get("id") or " ~ ".join(one["pair"])
            yield Note(f"The contamination check lets through {which}: {one['reason']}")


def line_notes(lines: Sequence[Mapping[str, Any]]) -> Iterator[Note]:
    """What has to be said of single lines: why one has no score, replies without an answer, recorded files."""
    for line in lines:
        name = row_label(line)
        if line.get("withheld"):
            yield Note(f"{name} has no score: {line['withheld']}.")
        if "first_unreadable" in line:
            text = f"{name}: the answer of {line['unreadable']} replies can't be read, and they count as wrong;"
            text += " the first ends:"
            yield Note(text, line["first_unreadable"])
        if "recording" in line:
            yield Note(f"{name}: replayed from {line['recording']['file']} (sha256 {line['recording']['sha256']}).")


def accuracy_notes(results: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> Iterator[Note]:
    """How the figures of accuracy are meant."""
    yield Note(
        "Dollars are those of 1,000 questions. A question that failed is in no accuracy. Figures with a link open "
        "their questions."
    )
    if any(line.get("retained") is not None for line in lines):
        yield Note(
            "What a student keeps of the teacher's accuracy is over the questions that both answered, with Fieller's "
            "interval; it has no upper limit where the teacher's accuracy may be zero."
        )
    design = results.get("design", {})
    if len(design.get("seeds", [])) > 1:
        yield Note(
            f"{len(design['seeds'])} seeds, each a training of its own; intervals are over questions and seeds. The "
            "questions below are the first seed's."
        )
    if "folds" in design:
        yield Note(
            f"Each question was in one of {design['folds']} folds, and answered by students that were trained on the "
            "other folds."
        )


def accuracy_of(name: str, caption: str, lines: Sequence[Mapping[str, Any]], links: Links) -> Plot:
    """The plot of accuracies of some lines."""
    return _plots.accuracy_plot(
        name, caption, [point_of(line, links) for line in lines if line["accuracy"] is not None]
    )


def point_of(line: Mapping[str, Any], links: Links, x: float = 0.0) -> Point:
    """A line as a point of a plot: its accuracy in per cent, and a link to what it got wrong."""
    low, high = line["ci95"]
    return Point(
        letters=program_of(line).letters,
        label=with_failed(line, row_label(line)),
        x=x,
        y=100 * line["accuracy"],
        y_interval=(100 * low, 100 * high),
        link=links.to(line, "wrong"),
    )


def with_failed(line: Mapping[str, Any], label: str) -> str:
    """A label of a plot, with the number of answers that failed and are in no accuracy."""
    return f"{label}, {line['failed']} failed" if line["failed"] else label


def cost_plot(
    name: str, caption: str, lines: Sequence[Mapping[str, Any]], costs: Mapping[str, Any], links: Links
) -> Plot:
    """The plot of accuracy against cost."""
    by_name = {line["name"]: line for line in lines if line["name"] in costs["points"]}
    many = 1000 if costs["in_money"] else 1
    spent = "cost_ci95" if costs["in_money"] else "large_tokens_ci95"
    points = []
    for arm, line in by_name.items():
        accuracy, cost = costs["points"][arm]
        known = (line["bill"] or {}).get(spent)
        interval = (many * known[0], many * known[1]) if known else None
        points.append(point_of(line, links)._replace(x=many * cost, y=100 * accuracy, x_interval=interval))
    front = [program_of(by_name[arm]).letters for arm in costs["pareto_front"] if arm in by_name]
    label = f"{costs['unit']} {'per 1,000 questions' if costs['in_money'] else 'a question'}, with 95 % intervals"
    return _plots.pareto_plot(name, caption, points, front, label)


def agreement_section(tables: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> Iterator[Section]:
    """The agreement of subquestions, if there is anything to compare."""
    found = [view for caption, lines in tables if (view := agreement_table(caption, lines)) is not None]
    if found:
        yield Section(
            "agreement",
            "Agreement of the subquestions",
            "With people's or the data's (references), and with the teacher's. A step of theirs is covered where the "
            "list has a step of its own with about the same words. A list is usable where it was neither refused nor "
            "over the cap.",
            tables=found,
        )


_MANY = 20  # comparisons that stand open


def comparisons_section(rows: Sequence[Mapping[str, Any]], links: Links) -> Iterator[Section]:
    """The comparisons of programs, if there are any."""
    if rows:
        yield Section(
            "comparisons",
            "Comparisons",
            "Paired over the same questions, with bootstrap intervals. p-values are of a paired permutation test, "
            "corrected for their number by Holm's method; those below 0.05 are bold. The last column opens the "
            "questions that only one of the two got right.",
            tables=[comparisons_table(rows, links)],
            folded=f"All {len(rows)} comparisons" if len(rows) > _MANY else "",
        )


def training_section(rows: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    """How the students were screened and trained, if any was."""
    if rows:
        yield Section("training", "Screening and training", tables=[training_table(rows)])


def paid_section(paid: Mapping[str, Mapping[str, Any]]) -> Iterator[Section]:
    """What the calls of the whole run have used, if any was made."""
    if paid:
        yield Section(
            "paid",
            "Money",
            "All calls that were made for this run, for training data too. Stored replies aren't asked for again.",
            tables=[paid_table(paid)],
        )


def replies_section(tables: Sequence[Table]) -> Section:
    """What became of the replies."""
    return Section(
        "replies",
        "Replies and tokens",
        "Of each program: replies whose answer can't be read, and those that ran out of tokens; the share of questions "
        "that the planner wouldn't split, whose list was salvaged, or whose list was refused so that the question was "
        "asked whole (fell back). Tokens are those of one question, on average.",
        tables=tables,
    )
