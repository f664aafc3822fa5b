"""Draw the README's diagram, and make its table and its figure from a recorded experiment.

`make generated` runs it: it writes the drawings to docs/images, light and dark, and prints the table. A test compares
all of it with the repository.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "benchmarks" / "results" / "main.json"
TASK = "word-problems"
INPUT, OUTPUT = 0.25, 2.0  # US dollars per million tokens of the teacher and the solver; a student's cost nothing


@dataclass(frozen=True)
class Program:
    """A row of the table and a point of the figure.

    Attributes:
        arm: Its name in the record.
        words: What it is called.
        small: The role that the small model has; empty where it has none.
        at: Where its label stands in the figure, from its point: right and up in units of the drawing, and the anchor.
    """

    arm: str
    words: str
    small: str
    at: tuple[float, float, str]


PROGRAMS = (
    Program("cot", "Chain of thought", "", (14, -6, "start")),
    Program("teacher", "Scripted teacher plans", "", (0, 62, "middle")),
    Program("sd-r", "Trained small planner (SD-R)", "decomposer", (-76, 54, "middle")),
    Program("se-a", "Trained small solver (SE-A)", "solver", (-36, 54, "middle")),
)
MORE = {"se-a": ", scripted teacher plans"}  # what the table says of a program besides its label


@dataclass(frozen=True)
class Measured:
    """What the record says of a program.

    Attributes:
        accuracy: From 0 to 1.
        low: The lower end of its 95 % interval.
        high: The upper end.
        dollars: US dollars per 1,000 questions at `INPUT` and `OUTPUT`.
        break_even: The questions after which the tokens of the other models that it has saved are more than those that
            collecting and screening took; None where nothing was trained.
    """

    accuracy: float
    low: float
    high: float
    dollars: float
    break_even: int | None


def measured(program: Program) -> Measured:
    """Read a program's line of the record."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    rows = {row["name"]: row for row in record["rows"] if row["task"] == TASK}
    row, teacher = rows[program.arm], rows["teacher"]
    roles = {name: spent for name, spent in row["bill"]["by_role"].items() if name != program.small}
    dollars = sum(spent["input_tokens"] * INPUT + spent["output_tokens"] * OUTPUT for spent in roles.values()) / 1000
    before = record["costs"][TASK]["upfront"].get(program.arm)
    saved = teacher["bill"]["large_tokens"] - row["bill"]["large_tokens"]
    break_even = math.ceil(before["tokens"] / saved) if before else None
    return Measured(row["accuracy"], *row["ci95"], dollars, break_even)


def table() -> str:
    """The README's table."""
    lines = [
        "| program | accuracy (95 % interval) | $ per 1,000 questions | break-even, questions | hardware of your own |",
        "|---|---|---|---|---|",
    ]
    for program in PROGRAMS:
        found = measured(program)
        accuracy = f"{100 * found.accuracy:.1f} % ({100 * found.low:.0f} to {100 * found.high:.0f})"
        even = "–" if found.break_even is None else f"{found.break_even:,}"
        where = "two CPU cores" if program.small else "none"
        lines.append(
            f"| {program.words}{MORE.get(program.arm, '')} | {accuracy} | {found.dollars:.3f} | {even} | {where} |"
        )
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Colours:
    text: str
    muted: str
    line: str
    fill: str
    accent: str
    accent_fill: str


THEMES = {
    "light": Colours("#1f2328", "#59636e", "#818b98", "#f6f8fa", "#0969da", "#ddf4ff"),
    "dark": Colours("#f0f6fc", "#9198a1", "#656c76", "#151b23", "#4493f8", "#0c2d6b"),
}


def drawings() -> Iterator[tuple[Path, str]]:
    """Each drawing's file, from the root of the repository, and its text."""
    for theme, colours in THEMES.items():
        yield Path("docs", "images", f"planner-{theme}.svg"), diagram(colours)
        yield Path("docs", "images", f"accuracy-cost-{theme}.svg"), figure(colours)


def svg(width: int, height: int, title: str, parts: list[str], colours: Colours) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" font-size="18" '
        f'font-family="-apple-system, Segoe UI, Helvetica, Arial, sans-serif" fill="{colours.text}">'
    )
    return "\n".join([head, f"<title>{title}</title>", *parts, "</svg>"]) + "\n"


def text(x: float, y: float, words: str, anchor: str = "middle", **attributes: Any) -> str:
    more = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in attributes.items())
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{more}>{words}</text>'


def line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 2, more: str = "") -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}"'
        f"{more}/>"
    )


def box(x: float, y: float, width: float, height: float, fill: str, stroke: str) -> str:
    return (
        f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="8" fill="{fill}" stroke="{stroke}" '
        'stroke-width="2"/>'
    )


def arrow(x1: float, x2: float, y: float, colour: str) -> str:
    head = f'<path d="M{x2 - 10:g} {y - 6:g} L{x2:g} {y:g} L{x2 - 10:g} {y + 6:g} Z" fill="{colour}"/>'
    return line(x1, y, x2 - 8, y, colour) + head


def diagram(colours: Colours) -> str:
    """Question, planner, subquestions, solver, answer; the planner alone changes."""
    muted, middle = colours.muted, 60
    parts = [
        text(44, middle + 6, "question"),
        arrow(88, 126, middle, colours.line),
        box(128, 20, 170, 80, colours.accent_fill, colours.accent),
        text(213, middle + 6, "planner", font_weight="bold"),
        arrow(300, 444, middle, colours.line),
        text(370, middle - 12, "subquestions"),
        box(446, 20, 150, 80, colours.fill, colours.line),
        text(521, middle + 6, "solver", font_weight="bold"),
        arrow(598, 636, middle, colours.line),
        text(674, middle + 6, "answer"),
        text(213, 132, "before: a paid model", fill=muted, text_decoration="line-through"),
        text(213, 160, "after: a small model of yours", fill=colours.accent, font_weight="bold"),
        text(521, 132, "unchanged", fill=muted),
    ]
    title = "The question goes to the planner, its subquestions to the solver. Only the planner changes."
    return svg(720, 176, title, parts, colours)


def figure(colours: Colours) -> str:
    """Accuracy against dollars, with the interval and the label of each program at its point."""
    left, right, top, bottom = 62, 700, 16, 356
    most, lowest, highest = 0.22, 0.20, 0.90

    def across(dollars: float) -> float:
        return left + (right - left) * dollars / most

    def up(accuracy: float) -> float:
        return bottom - (bottom - top) * (accuracy - lowest) / (highest - lowest)

    parts = []
    for percent in range(20, 91, 10):
        y = up(percent / 100)
        parts += [line(left, y, right, y, colours.line, 1, ' opacity="0.3"')]
        parts += [text(left - 8, y + 6, str(percent), "end", fill=colours.muted)]
    for cents in range(0, 21, 5):
        x = across(cents / 100)
        parts += [line(x, bottom, x, bottom + 6, colours.line)]
        parts += [text(x, bottom + 26, f"{cents / 100:.2f}", fill=colours.muted)]
    parts.append(line(left, bottom, right, bottom, colours.line))
    parts.append(text((left + right) / 2, bottom + 54, "US dollars per 1,000 questions"))
    parts.append(text(0, 0, "accuracy, %", transform=f"translate(18 {(top + bottom) / 2:g}) rotate(-90)"))
    for program in PROGRAMS:
        found = measured(program)
        x, y = across(found.dollars), up(found.accuracy)
        new = program.arm == "sd-r"
        colour = colours.accent if new else colours.text
        parts.append(line(x, up(found.low), x, up(found.high), colour, 3, ' opacity="0.6" stroke-linecap="round"'))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="{colour}"/>')
        right_by, up_by, anchor = program.at
        weight = {"font_weight": "bold"} if new else {}
        parts.append(text(round(x + right_by, 1), round(y - up_by, 1), program.words, anchor, fill=colour, **weight))
    title = "Accuracy against US dollars per 1,000 questions, with 95 % intervals"
    return svg(720, 424, title, parts, colours)


if __name__ == "__main__":
    for file, drawn in drawings():
        (ROOT / file).write_text(drawn, encoding="utf-8")
    print(table(), end="")  # noqa: T201
