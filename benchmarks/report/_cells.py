"""The tables of a report, as columns and cells. On a phone each row becomes a card with the columns' titles in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from divcon.benchmarks._agreement import agreement_rows
from divcon.benchmarks._figures import dollars, p_value, percent, points, points_between, retained_share, score
from divcon.benchmarks._tables import FACTORS, is_shown
from divcon.benchmarks.arms import letters_of
from divcon.benchmarks.report._names import program_of
from divcon.benchmarks.report._questions import Links

NONE = "–"


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: What stands in it.
        note: What stands behind it in small print.
        links: Linked texts that stand in it instead: (text, link). An empty link is none.
        strong: Whether it stands out.
    """

    text: str = ""
    note: str = ""
    links: Sequence[tuple[str, str]] = ()
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        caption: Its heading; empty for none.
        columns: The titles of its columns.
        rows: Its cells.
        words: The number of its first columns that hold words, and not numbers.
        name: The name of its CSV file.
        cards: Whether its rows become cards on a phone. A table of a few short columns fits as it is.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: int = 1
    name: str = "table"
    cards: bool = True


def accuracy_table(caption: str, lines: Sequence[Mapping[str, Any]], links: Links) -> Table:
    """Accuracy, interval, outcomes and price of each line."""
    factors = factors_of(lines)
    has = {name: any(line.get(name) is not None for line in lines) for name in ("retained", "by_seed", "f1")}
    more = {"retained": "of the teacher's (95 % interval)", "by_seed": "by seed", "f1": "F1"}
    rows = []
    for line in lines:
        outcomes = [(f"{line[outcome]} {outcome}", links.to(line, outcome)) for outcome in ("right", "wrong")]
        if line["failed"]:
            outcomes.append((f"{line['failed']} failed", links.to(line, "failed")))
        extra = {
            "retained": retained_share(line),
            "by_seed": ", ".join(percent(one) for one in line.get("by_seed", [])),
            "f1": f"{100 * line['f1']:.1f}" if "f1" in line else "",
        }
        rows.append(
            [
                _program(line),
                *_levels(line, factors),
                Cell(score(line), strong=True),
                Cell(f"{percent(line['ci95'][0])} to {percent(line['ci95'][1])}" if line["ci95"] else NONE),
                *(Cell(extra[name]) for name in extra if has[name]),
                Cell(links=outcomes),
                Cell("recorded" if "recording" in line else dollars(line["bill"])),
            ]
        )
    columns = [
        "program", *(FACTORS[name] for name in factors), "accuracy", "95 % interval",
        *(title for name, title in more.items() if has[name]), "questions", "US dollars per 1,000 questions",
    ]  # fmt: skip
    return Table(caption, columns, rows, 1, f"accuracy {caption}")


def replies_table(caption: str, lines: Sequence[Mapping[str, Any]]) -> Table:
    """What became of the replies of each line, and the tokens of a question."""
    factors, rows = factors_of(lines), []
    for line in lines:
        rates = [percent(line.get(f"{name}_rate")) if line["splits"] else NONE for name in _RATES]
        used = (line["bill"] or {"by_role": {}})["by_role"]
        counts = [str(line.get("unreadable", NONE)), str(line["cut_off"]), *rates]
        spent = [_tokens(used.get(role)) for role in ("decomposer", "solver")]
        rows.append([_program(line), *_levels(line, factors), *map(Cell, [*counts, *spent])])
    columns = [
        "program", *(FACTORS[name] for name in factors), "unread", "cut off", "no split", "salvaged", "fell back",
        "planning: tokens in / cached / out", "solving: tokens in / cached / out",
    ]  # fmt: skip
    return Table(caption, columns, rows, 1, f"replies {caption}")


_RATES = ("whole", "salvaged", "fell_back")


def _tokens(used: Mapping[str, float] | None) -> str:
    if not used:
        return NONE
    if used.get("unknown_calls"):
        return "unknown"
    return f"{used['input_tokens']:.0f} / {used['cached_tokens']:.0f} / {used['output_tokens']:.0f}"


def agreement_table(caption: str, lines: Sequence[Mapping[str, Any]]) -> Table | None:
    """How far the subquestions agree with references and with the teacher's; None where there is nothing to compare."""
    factors = [name for name in factors_of(lines) if name != "steps"]
    rows = []
    for line, whose, found in agreement_rows(lines):
        left = f" ({found['left_out']} left out)" if found.get("left_out") else ""
        cells = [
            whose,
            f"{found['n']}{left}",
            percent(line.get("usable_rate")),
            percent(found.get("covered")),
            f"{found['rouge_l']:.2f}",
            f"{found['count_error']:.2f}",
            f"{found['count_bias']:+.2f}" if "count_bias" in found else NONE,
        ]
        rows.append([_program(line), *_levels(line, factors), *map(Cell, cells)])
    columns = [
        "program", *(FACTORS[name] for name in factors), "compared with", "lists", "usable", "steps covered", "ROUGE-L",
        "count error", "steps more",
    ]  # fmt: skip
    return Table(caption, columns, rows, 2 + len(factors), f"agreement {caption}") if rows else None


def comparisons_table(rows: Sequence[Mapping[str, Any]], links: Links) -> Table:
    """The paired differences, each with the questions that one of the two alone has right."""
    factors = [name for name in FACTORS if any(name in row for row in rows)]
    cells = []
    for row in rows:
        one, other = letters_of(str(row["a"])), letters_of(str(row["b"]))
        left = f" ({row['left_out']} left out)" if row.get("left_out") else ""
        shown = is_shown(row)
        alone = [(f"{whose} {count}", link) for whose, (count, link) in zip((one, other), links.between(row))]  # noqa: B905
        cells.append(
            [
                Cell(f"{one} − {other}"),
                *(Cell(str(row.get(name, ""))) for name in factors),
                Cell(points(row["difference"]), strong=shown),
                Cell(points_between(row["ci95"])),
                Cell(p_value(row["p_holm"]), strong=shown),
                Cell(f"{row['n']}{left}"),
                Cell(links=alone) if alone else Cell(NONE),
            ]
        )
    columns = [
        "pair", *(FACTORS[name] for name in factors), "difference, points", "95 % interval", "p, corrected",
        "questions", "right where the other is wrong",
    ]  # fmt: skip
    return Table("", columns, cells, 1 + len(factors), "comparisons")


def paid_table(paid: Mapping[str, Mapping[str, Any]]) -> Table:
    """Calls, tokens and US dollars by role."""
    rows = []
    for role, used in paid.items():
        cost = "unknown" if used["cost"] is None else f"{used['cost']:.4f}"
        if used["cost"] is not None and used["unpriced_calls"]:
            cost = f"at least {cost} ({used['unpriced_calls']:,} calls unpriced)"
        least = "at least " if used.get("unknown_calls") else ""
        counts = [f"{used['calls']:,}", *(f"{least}{used[key]:,}" for key in ("input_tokens", "output_tokens"))]
        rows.append([Cell(role), *map(Cell, counts), Cell(cost, strong=True)])
    return Table("", ["role", "calls", "tokens in", "tokens out", "US dollars"], rows, 1, "money")


def training_table(rows: Iterable[Mapping[str, Any]]) -> Table:
    """The counts of screening and training."""
    cells = []
    for row in rows:
        lost = ", ".join(f"{count} {reason}".replace("_", " ") for reason, count in (row.get("lost") or {}).items())
        known = [row.get(key) for key in ("collected", "kept")]
        loss = [row.get(key) for key in ("first_loss", "last_loss")]
        cells.append(
            [
                Cell(letters_of(row["student"].lower())),
                Cell(row["cell"]),
                *(Cell(_known(value)) for value in known),
                Cell(lost or NONE),
                *(Cell(_known(row.get(key))) for key in ("rows", "steps")),
                Cell(NONE if None in loss else f"{loss[0]:.2f} to {loss[1]:.2f}"),
                Cell(NONE if row.get("seconds") is None else f"{row['seconds']:,.0f}"),
            ]
        )
    columns = ["student", "where", "collected", "kept", "lost", "rows", "steps", "loss", "seconds"]
    return Table("", columns, cells, 2, "training")


def _known(value: Any) -> str:
    return NONE if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def factors_of(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """The factors that distinguish the lines of a task."""
    return [name for name in FACTORS if name != "task" and any(name in line for line in lines)]


def _program(line: Mapping[str, Any]) -> Cell:
    program = program_of(line)
    same = program.words.casefold() == program.letters.casefold()
    return Cell(program.words, "" if same else program.letters)


def _levels(line: Mapping[str, Any], factors: Sequence[str]) -> Iterator[Cell]:
    for name in factors:
        yield Cell(str(line.get(name, "")))
