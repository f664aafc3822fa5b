"""The tables that commands print."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from divcon._terminal import ShownConsole, out

_WIDTH = 100
_NAME = 18  # columns that the name of a program gets at least
_OUTCOMES = "right/\nwrong/\nfailed"
_OF_TEACHER = "of the\nteacher's"
_PRICE = "$ per\n1,000"
_FELL_BACK = "fell\nback"


def page(most: int | None = None) -> ShownConsole:
    """The console for tables: the terminal, or else one of 100 columns.

    Args:
        most: The most columns that it has.
    """
    is_fit = out.is_terminal and (most is None or out.width <= most)
    return out if is_fit else ShownConsole(width=_WIDTH)


def new_table(title: str, columns: Sequence[str], *, words: int = 1) -> Table:
    """An empty table, whose first columns hold words and the others figures, which aren't wrapped."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(columns):
        least = _NAME if name == "program" else None
        if number < words:
            table.add_column(name, min_width=least, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    return table


def print_results(results: dict[str, Any], folder: Path) -> None:
    """Print the tables of an evaluation: accuracy and cost, and below what became of plans and replies."""
    from divcon.benchmarks import score

    title = f"{results['task']['name']}: {results['questions']} held-out questions"
    table = new_table(title, ("program", "accuracy", "95 %", _OF_TEACHER, _OUTCOMES, _PRICE, "sec."))
    for arm in results["arms"]:
        table.add_row(
            arm["label"],
            score(arm),
            _interval(arm),
            _kept(arm),
            _outcomes(arm),
            _dollars(arm),
            "–" if arm["withheld"] else "recorded" if "recording" in arm else f"{arm['seconds']:.0f}",
        )
    page().print(table)
    columns = (
        "un-\nread",
        "cut\noff",
        "no\nsplit",
        "sal-\nvaged",
        _FELL_BACK,
        "plan tokens\nin/out",
        "solve tokens\nin/out",
    )
    table = new_table("plans and replies", ("program", *columns))
    for arm in results["arms"]:
        usage = {} if arm["withheld"] else arm["usage"]  # those of few questions aren't the arm's
        tokens = [_tokens(usage.get(role)) for role in ("decomposer", "solver")]
        shares = [_share(arm, rate) for rate in ("whole_rate", "salvaged_rate", "fell_back_rate")]
        table.add_row(arm["label"], str(arm["unreadable"]), str(arm["cut_off"]), *shares, *tokens)
    page().print(table)
    print_agreement(results["arms"], [])
    print_withheld(results["arms"])
    _print_unpriced(results["arms"])
    print_unreadable(results["arms"])
    print_teacher(results["teacher"])
    print_advice(results)
    out.print(f"{folder / 'results.json'}\n{folder / 'report.html'}", soft_wrap=True)
    out.print(
        f"divcon inspect {shlex.quote(str(folder))} QUESTION_ID   (one question: plans, prompts, replies)",
        soft_wrap=True,
    )


def _tokens(used: dict[str, Any] | None) -> str:
    """The tokens that a role has read and written."""
    if used is None:
        return "–"
    return "unknown" if used["unknown_calls"] else f"{used['input_tokens']:,}/{used['output_tokens']:,}"


def _kept(line: dict[str, Any]) -> str:
    """The share of the teacher's accuracy that a student keeps, with its interval, in per cent."""
    if (kept := line.get("retained")) is None:
        return "–"
    low, high = kept["ci95"]
    return f"{100 * kept['share']:.0f} % ({100 * low:.0f}–{'∞' if high is None else f'{100 * high:.0f}'})"


def _dollars(line: dict[str, Any]) -> str:
    """What 1,000 questions cost; with a sign where that is a least sum, which `_print_unpriced` explains."""
    from divcon.benchmarks import dollars, dollars_per_1000

    least = _least(line)
    return dollars(line.get("bill")) if least is None else f"≥ {dollars_per_1000(least)}"


def _least(line: dict[str, Any]) -> float | None:
    """What a question costs at least, where no more is known."""
    bill = line.get("bill")
    least: float | None = bill.get("at_least") if bill and bill["cost"] is None else None
    return least


def _print_unpriced(lines: list[dict[str, Any]]) -> None:
    """Print where a cost is a least sum, and why."""
    for line in lines:
        if _least(line) is not None:
            calls = line["bill"]["unpriced_calls"]
            out.print(f"{line['label']}: {calls} calls have no price, so the dollars are a least sum.", soft_wrap=True)


def _interval(line: dict[str, Any]) -> str:
    """The 95 % interval of an accuracy, in per cent."""
    return "–" if line["ci95"] is None else f"{100 * line['ci95'][0]:.0f}–{100 * line['ci95'][1]:.0f}"


def _outcomes(line: dict[str, Any]) -> str:
    return f"{line['right']}/{line['wrong']}/{line['failed']}"


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
    names = [*(name.replace("_", " ") for name in factors), "program", "compared with"]
    figures = ("lists", "usable", "steps\ncovered", "ROUGE-L", "count\nerror", "steps\nmore")
    table = new_table("agreement of the subquestions", (*names, *figures), words=len(names))
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
    page().print(table)


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
    columns = ("station", "calls", "tokens", "at most", "US dollars", "at most", "time")
    table = new_table("what is missing will take", columns)
    for one in (*stations, total_of(stations)):
        dollars = ["unknown" if value is None else f"{value:.4f}" for value in (one.usd, one.most_usd)]
        time = f"{one.seconds / 60:,.0f} min" if one.seconds >= 120 else f"{one.seconds:,.0f} s"
        table.add_row(one.station, f"{one.calls:,}", f"{one.tokens:,}", f"{one.most_tokens:,}", *dollars, time)
    page().print(table)
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
    from divcon.benchmarks import FACTORS, score

    factors = [name for name in FACTORS if any(name in row for row in rows)]
    out.print(f"{kind}: {results['question']}", soft_wrap=True)
    first = factors[:1]
    # What every label says already needs no column.
    others = [name for name in factors[1:] if not all(str(row.get(name, "")) in row["label"] for row in rows)]
    names = [*(name.replace("_", " ") for name in others), "program"]
    figures = ("accuracy", "95 %", _OF_TEACHER, _OUTCOMES, _FELL_BACK, _PRICE)
    for group in dict.fromkeys(tuple(str(row.get(name, "")) for name in first) for row in rows):
        title = " ".join(f"{name.replace('_', ' ')}: {value}" for name, value in zip(first, group, strict=True))
        table = new_table(title, (*names, *figures), words=len(names))
        for row in rows:
            if tuple(str(row.get(name, "")) for name in first) == group:
                table.add_row(
                    *(str(row.get(name, "")) for name in others),
                    row["label"],
                    score(row),
                    _interval(row),
                    _kept(row),
                    _outcomes(row),
                    _share(row, "fell_back_rate"),
                    _dollars(row),
                )
        page().print(table)
    print_agreement(rows, [name for name in factors if name != "steps"])
    print_withheld(rows)
    _print_unpriced(rows)
    print_unreadable(rows)
    print_teacher(results["teacher"])
    print_advice(results)
    for end in ("json", "csv", "html"):
        out.print(str(folder / f"{kind}.{end}"), soft_wrap=True)
