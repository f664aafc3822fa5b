"""The advice on what an experiment varies, from its planned comparisons, which are corrected for their number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from divcon.benchmarks._figures import p_in_words, points, points_between
from divcon.benchmarks._tables import is_shown
from divcon.benchmarks.arms import letters_of

_Row = Mapping[str, Any]


def _transfer(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    cards = []
    for name, rows in _by_arm(results, "trained_on").items():
        lost = [row for row in rows if _shown(row)]
        mean = sum(row["difference"] for row in rows) / len(rows)
        sentences = [
            f"On a task that it wasn't trained on, the student is {points(-mean)} points from the one that was, on "
            f"average over {len(rows)} moves. A loss is shown on {len(lost)} of them.",
            *(
                f"{row['task']}: trained on {_level(row['b'])} instead, {_interval(row, -1)}."
                for row in sorted(rows, key=lambda row: -row["difference"])
            ),
        ]
        headline = (
            f"Train {letters_of(name)} on each task: it loses where it is moved"
            if lost
            else f"No loss is shown where {letters_of(name)} is moved to another task"
        )
        cards.append(_card("other tasks", headline, sentences))
    return cards


def _multitask(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    pairs: dict[str, list[_Row]] = defaultdict(list)
    for row in results["comparisons"]:
        if row["b"] == f"{row['a']}/all":
            pairs[str(row["a"])].append(row)
    cards = []
    for name, rows in pairs.items():
        lost = [row["task"] for row in rows if _shown(row)]
        headline = (
            f"Train {letters_of(name)} on each task: one for all loses on {', '.join(lost)}"
            if lost
            else f"One {letters_of(name)} for all tasks: no loss is shown"
        )
        sentences = [f"{row['task']}: one for all tasks minus one of its own is {_interval(row, -1)}." for row in rows]
        cards.append(_card("all tasks", headline, sentences))
    return cards


def _cap(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        _steps_up(task, name, rows, "Allow {} subquestions ({})", "no larger number is shown to gain")
        for name, among in _by_arm(results, "cap").items()
        for task, rows in _by_task(among).items()
    ]


def _curve(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    cards = []
    for name, rows in _by_arm(results, "questions").items():
        for row in rows:
            gained = f"from {_level(row['b'])} to {_level(row['a'])} training questions {_interval(row)}"
            headline = (
                f"Collect more questions for {letters_of(name)}: it still gains"
                if _shown(row)
                else f"More questions for {letters_of(name)} aren't shown to gain"
            )
            cards.append(_card(row["task"], headline, [f"{letters_of(name)}: {gained}."]))
    return cards


def _depth(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Whether a planner gains over the solver alone, by the steps that a question needs."""
    cards = []
    for task, rows in _by_task([row for row in results["comparisons"] if "steps" in row and row["b"] == "cot"]).items():
        gains = sorted({row["steps"] for row in rows if _shown(row)})
        headline = (
            f"Splitting is shown to gain on questions of {', '.join(map(str, gains))} steps"
            if gains
            else "Splitting isn't shown to gain at any number of steps"
        )
        sentences = [
            f"{row['steps']} steps: {letters_of(str(row['a']))} is {_interval(row)} from the solver alone (cot)."
            for row in sorted(rows, key=lambda row: (str(row["a"]), row["steps"]))
        ]
        cards.append(_card(task, headline, sentences))
    return cards


EXPERIMENT_ADVICE: dict[str, Callable[[Mapping[str, Any]], list[dict[str, Any]]]] = {
    "transfer": _transfer,
    "multitask": _multitask,
    "cap": _cap,
    "curve": _curve,
    "depth": _depth,
}
"""By the kind of experiment; the others vary the program alone, and the comparison of costs is their advice."""


def _card(where: str, headline: str, sentences: Sequence[str]) -> dict[str, Any]:
    return {
        "task": where,
        "status": None,
        "headline": headline,
        "sentences": list(sentences),
        "tested": list(sentences),
        "warnings": [],
    }


def _steps_up(task: str, name: str, rows: Sequence[_Row], advice: str, end: str) -> dict[str, Any]:
    """The smallest level from which no step up is shown to gain. Each row compares a level with the one below it."""
    rows = sorted(rows, key=lambda row: int(_level(row["a"])))
    best = _level(rows[0]["b"])
    for row in rows:
        if _shown(row):
            best = _level(row["a"])
    sentences = [
        f"{letters_of(name)}: from {_level(row['b'])} to {_level(row['a'])}, {_interval(row)}." for row in rows
    ]
    return _card(task, f"{advice.format(best, letters_of(name))}: {end}", sentences)


def _by_arm(results: Mapping[str, Any], varied: str) -> dict[str, list[_Row]]:
    """The comparisons of an arm with itself at two levels of what the experiment varies, by arm."""
    found: dict[str, list[_Row]] = defaultdict(list)
    for row in results["comparisons"]:
        (one, level), (other, _) = (str(row[side]).removesuffix(")").partition(" (")[::2] for side in "ab")
        if level and one == other and varied not in row:
            found[one].append(row)
    return found


def _by_task(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        found[row["task"]].append(row)
    return found


def _level(name: Any) -> str:
    """The level in a name such as `sd-r (60)`."""
    return str(name).removesuffix(")").partition(" (")[2]


def _shown(row: _Row) -> bool:
    """Whether the first of two is shown to be more accurate."""
    return bool(row["difference"] > 0 and is_shown(row))


def _interval(row: _Row, sign: int = 1) -> str:
    """A difference with its interval; with the sign -1, that of the second minus the first."""
    ends = points_between(sorted(sign * limit + 0.0 for limit in row["ci95"]))  # without a negative zero
    return f"{points(sign * row['difference'] + 0.0)} points (95 % interval {ends}, {p_in_words(row['p_holm'])})"
