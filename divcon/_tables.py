"""The tables that commands print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from divcon._terminal import ShownConsole, out


def print_results(results: dict[str, Any], folder: Path) -> None:
    """Print the table of an evaluation."""
    from divcon.benchmarks import dollars, retained_share, score

    table = Table(title=f"{results['task']['name']}: {results['questions']} held-out questions", title_justify="left")
    table.add_column("program", no_wrap=True)
    columns = (
        "accuracy",
        "95 %",
        "of the teacher's",
        "right/wrong/failed",
        "unread",
        "cut off",
        "no split",
        "salvaged",
        "fell back",
    )
    for name in (*columns, "$ per 1,000", "decompose in/out", "solve in/out", "seconds"):
        table.add_column(name, justify="right", no_wrap=True)
    for arm in results["arms"]:
        usage = arm["usage"]
        low_high = "–" if arm["ci95"] is None else f"{100 * arm['ci95'][0]:.0f}–{100 * arm['ci95'][1]:.0f}"
        counted = {} if arm["withheld"] else usage  # those of few questions aren't the arm's
        tokens = [
            f"{counted[role]['input_tokens']:,}/{counted[role]['output_tokens']:,}" if role in counted else "–"
            for role in ("decomposer", "solver")
        ]
        table.add_row(
            arm["label"],
            score(arm),
            low_high,
            retained_share(arm),
            f"{arm['right']}/{arm['wrong']}/{arm['failed']}",
            str(arm["unreadable"]),
            str(arm["cut_off"]),
            *(_share(arm, rate) for rate in ("whole_rate", "salvaged_rate", "fell_back_rate")),
            dollars(arm.get("bill")),
            *tokens,
            "–" if arm["withheld"] else "recorded" if "recording" in arm else f"{arm['seconds']:.0f}",
        )
    # Without a wide terminal, the table is printed at its own width.
    (out if out.is_terminal and out.width > 230 else ShownConsole(width=240)).print(table)
    print_agreement(results["arms"], [])
    print_withheld(results["arms"])
    print_unreadable(results["arms"])
    print_teacher(results["teacher"])
    print_advice(results)
    out.print(f"{folder / 'results.json'}\n{folder / 'report.html'}", soft_wrap=True)


def print_teacher(teacher: dict[str, Any] | None) -> None:
    """Print who wrote the plans, where no model was asked for them."""
    from divcon.distill import Author

    if teacher and (note := Author(**teacher).note):
        out.print(note, soft_wrap=True)


def _share(line: dict[str, Any], rate: str) -> str:
    """A rate in per cent; a dash where there is none, or where the program doesn't decompose."""
    value = line.get(rate)
    return "–" if value is None or not line["splits"] else f"{100 * value:.0f} %"


def print_agreement(lines: list[dict[str, Any]], factors: list[str]) -> None:
    """Print how far subquestions agree with the references and with the teacher's, if there is anything to compare."""
    from divcon.benchmarks import agreement_rows

    rows = list(agreement_rows(lines))
    if not rows:
        return
    table = Table(title="agreement of the subquestions", title_justify="left")
    for name in (*(name.replace("_", " ") for name in factors), "program", "compared with"):
        table.add_column(name, no_wrap=True)
    for name in ("lists", "usable", "steps covered", "ROUGE-L", "count error", "steps more"):
        table.add_column(name, justify="right", no_wrap=True)
    for one, whose, found in rows:
        table.add_row(
            *(str(one.get(name, "")) for name in factors),
            one["label"],
            whose,
            f"{found['n']:,}",
            *(_share({"splits": True, **part}, name) for part, name in ((one, "usable_rate"), (found, "covered"))),
            f"{found['rouge_l']:.2f}",
            f"{found['count_error']:.2f}",
            f"{found['count_bias']:+.2f}" if "count_bias" in found else "–",
        )
    (out if out.is_terminal and out.width > 140 else ShownConsole(width=150)).print(table)


def print_withheld(lines: list[dict[str, Any]]) -> None:
    """Print which programs have no score, and why."""
    for arm in lines:
        if arm["withheld"]:
            out.print(f"{arm['label']} has no score: {arm['withheld']}", soft_wrap=True)


def print_estimate(stations: list[Any]) -> None:
    """Print what the missing stations of a run will take."""
    from divcon.pipeline import total_of

    if not stations:
        out.print("Nothing is missing that calls a model.")
        return
    table = Table(title="what is missing will take", title_justify="left")
    table.add_column("station", no_wrap=True)
    for name in ("calls", "tokens", "at most", "US dollars", "at most", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in (*stations, total_of(stations)):
        dollars = ["unknown" if value is None else f"{value:.4f}" for value in (one.usd, one.most_usd)]
        time = f"{one.seconds / 60:,.0f} min" if one.seconds >= 120 else f"{one.seconds:,.0f} s"
        table.add_row(one.station, f"{one.calls:,}", f"{one.tokens:,}", f"{one.most_tokens:,}", *dollars, time)
    (out if out.is_terminal and out.width > 100 else ShownConsole(width=100)).print(table)
    out.print(
        "Tokens are counted from a few prompts, replies guessed until some are stored; 'at most' is with the longest "
        "replies. Training isn't in the time, nor a teleprompter's calls.",
        soft_wrap=True,
    )


def print_unreadable(lines: list[dict[str, Any]]) -> None:
    """Print how many replies couldn't be read, and the end of the first of them."""
    for arm in lines:
        if arm.get("unreadable"):
            text = (
                f"{arm['label']}: the answer of {arm['unreadable']} replies can't be read, and they count as wrong; "
                f"the first ends: {arm.get('first_unreadable', '')!r}"
            )
            out.print(text, soft_wrap=True)


def print_advice(results: dict[str, Any]) -> None:
    """Print which program to choose and what was tested, and warn where a student saves little."""
    from divcon.benchmarks import advise

    for card in advise(results):
        out.print(f"{card['task']}: {' '.join([card['headline'] + '.', *card['warnings']])}", soft_wrap=True)
        for sentence in card["tested"]:
            out.print(f"  {sentence}", soft_wrap=True)


def print_rows(results: dict[str, Any], folder: Path) -> None:
    """Print the table of an experiment."""
    kind, rows = results["experiment"], results["rows"]
    from divcon.benchmarks import FACTORS, dollars, retained_share, score

    factors = [name for name in FACTORS if any(name in row for row in rows)]
    table = Table(title=f"{kind}: {results['question']}", title_justify="left")
    for name in (*factors, "program"):
        table.add_column(name.replace("_", " "), no_wrap=True)
    for name in ("accuracy", "95 %", "of the teacher's", "right/wrong/failed", "cut off", "fell back", "$ per 1,000"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        low_high = "–" if row["ci95"] is None else f"{100 * row['ci95'][0]:.0f}–{100 * row['ci95'][1]:.0f}"
        table.add_row(
            *(str(row.get(name, "")) for name in factors),
            row["label"],
            score(row),
            low_high,
            retained_share(row),
            f"{row['right']}/{row['wrong']}/{row['failed']}",
            str(row["cut_off"]),
            _share(row, "fell_back_rate"),
            dollars(row.get("bill")),
        )
    (out if out.is_terminal and out.width > 205 else ShownConsole(width=215)).print(table)
    print_agreement(rows, [name for name in factors if name != "steps"])
    print_withheld(rows)
    print_unreadable(rows)
    print_teacher(results["teacher"])
    print_advice(results)
    for end in ("json", "csv", "html"):
        out.print(str(folder / f"{kind}.{end}"), soft_wrap=True)
