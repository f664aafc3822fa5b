"""Costs: the bill of a question, the cost of a student before its first answer, and the break-even point.

Input and output tokens of both stages are counted, and cached input tokens separately. A missing price is unknown and
never zero; then tokens are compared instead of money.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from divcon.benchmarks.arms import TEACHER

MARGIN = 0.02  # accuracy given up for a cheaper program; the paper's own tables don't resolve two points
DOMINATED = 0.5  # with a larger share of the bill, the solver dominates it


def bill(usage: Mapping[str, Mapping[str, Any]], questions: int, local: Sequence[str] = ()) -> dict[str, Any]:
    """The average cost of one question.

    Args:
        usage: The usage of each role over all questions: `calls`, `input_tokens`, `cached_tokens`, `output_tokens`,
            `cost`, `unpriced_calls`.
        questions: The number of questions that were answered.
        local: Roles that a student answers. Where their price is unknown, it counts as zero, and `student_free` is set.

    Returns:
        `by_role`; `cost` in US dollars, or None where a price is unknown, and `cost_per_1000`, that of 1,000 questions;
        `at_least`, the part of the cost that is known, or None where no price is; `unpriced_calls`, the calls over all
        questions whose cost is unknown and isn't counted as zero; `large_tokens`, the input and output tokens of models
        other than students, None where a server didn't count some; `student_free`, whether a student's unknown price
        was counted as zero.
    """
    by_role, cost, large, free = {}, 0.0, 0.0, False
    unpriced, priced, uncounted = 0, False, 0
    for role, spent in usage.items():
        mine = None if spent["unpriced_calls"] else (spent["cost"] or 0.0) / questions
        by_role[role] = {
            "input_tokens": spent["input_tokens"] / questions,
            "cached_tokens": spent["cached_tokens"] / questions,
            "output_tokens": spent["output_tokens"] / questions,
            "cost": mine,
            "cost_per_1000": per_1000(mine),
            "unknown_calls": spent["unknown_calls"],
        }
        if role in local:
            free = free or mine is None
        else:
            large += (spent["input_tokens"] + spent["output_tokens"]) / questions
            unpriced += spent["unpriced_calls"]
            uncounted += spent["unknown_calls"]
        priced = priced or spent["cost"] is not None
        cost += (spent["cost"] or 0.0) / questions
    return {
        "by_role": by_role,
        "cost": None if unpriced else cost,
        "cost_per_1000": None if unpriced else per_1000(cost),
        "at_least": cost if priced or not unpriced else None,
        "unpriced_calls": unpriced,
        "large_tokens": None if uncounted else large,
        "student_free": free,
    }


def per_1000(cost: float | None) -> float | None:
    """What 1,000 questions cost, where one costs `cost`; None where that is unknown."""
    return None if cost is None else 1000 * cost


def solver_share(spent: Mapping[str, Any]) -> float | None:
    """The solver's share of a bill: of the money where it is known, else of the tokens.

    Args:
        spent: A bill as `bill` returns it.

    Returns:
        The share, from 0 to 1; None where there is no other role, or nothing was spent.
    """
    roles = spent["by_role"]
    if "solver" not in roles or len(roles) < 2:
        return None
    if spent["cost"]:
        return float((roles["solver"]["cost"] or 0.0) / spent["cost"])
    tokens = {role: part["input_tokens"] + part["output_tokens"] for role, part in roles.items()}
    return float(tokens["solver"] / sum(tokens.values())) if sum(tokens.values()) else None


def upfront(paid: Sequence[Mapping[str, Mapping[str, Any]]], seconds: float, hour: float | None) -> dict[str, Any]:
    """The cost of a student before its first answer.

    Args:
        paid: For each station that the student needed, the calls by role as the run store counts them. A collection
            that several students share counts in full, since one deployed student needs all of it.
        seconds: Seconds of its training.
        hour: US dollars per hour of the machine that trains; None where unknown.

    Returns:
        `asked` (US dollars for the teacher and for the solver in screening; None where a price is unknown), `training`
        (US dollars; None where the price of an hour is unknown), `cost` (the sum; None where one is unknown), `calls`,
        `tokens` (None where a server didn't count some), `seconds`.
    """
    roles = [spent for station in paid for spent in station.values()]
    asked = None if any(spent["unpriced_calls"] for spent in roles) else sum(spent["cost"] or 0.0 for spent in roles)
    training = None if hour is None else seconds / 3600 * hour
    return {
        "asked": asked,
        "training": training,
        "cost": None if asked is None or training is None else asked + training,
        "calls": sum(spent["calls"] for spent in roles),
        "tokens": None
        if any(spent["unknown_calls"] for spent in roles)
        else sum(spent["input_tokens"] + spent["output_tokens"] for spent in roles),
        "seconds": seconds,
    }


def mean_upfront(groups: Sequence[tuple[Sequence[Mapping[str, Any]], float]]) -> dict[str, Any]:
    """The mean cost of a student before its first answer, over the students of all seeds and folds.

    Students that ask the same teacher share training questions, and a reply is paid for once: by the first student,
    whose cost of asking is then whole, or by parts where several are trained side by side. Then it is the share of what
    all of them have paid. A training isn't shared.

    Args:
        groups: For each teacher, the costs of its students as `upfront` returns them, and the training questions of one
            of them as a share of all that were asked for.
    """
    found: dict[str, Any] = {}
    for key in ("asked", "calls", "tokens", "training", "seconds"):
        each: list[float | None] = []
        for several, share in groups:
            paid = [one[key] for one in several]
            if None in paid:
                each.append(None)
            elif key in ("training", "seconds"):
                each.append(sum(paid) / len(paid))
            elif share * len(paid) > 1 + 1e-9:
                each.append(max(*paid, share * sum(paid)))
            else:  # they share no question; one that made no call found its replies paid for elsewhere
                asked = [amount for amount, one in zip(paid, several, strict=True) if one["calls"]] or paid
                each.append(sum(asked) / len(asked))
        found[key] = None if None in each else sum(one or 0.0 for one in each) / len(each)
    whole = None if found["asked"] is None or found["training"] is None else found["asked"] + found["training"]
    return {**found, "cost": whole}


def break_even(before: float | None, teacher: float | None, student: float | None) -> int | None:
    """The number of questions after which a student has paid for itself.

    Args:
        before: US dollars before its first answer.
        teacher: US dollars per question with the teacher.
        student: US dollars per question with the student.

    Returns:
        The number; None where it never pays for itself, or where a price is unknown.
    """
    if before is None or teacher is None or student is None or student >= teacher:
        return None
    return math.ceil(round(before / (teacher - student), 6))  # 300.0000004 is 300


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The programs that no other program beats in both accuracy and cost, the cheapest first.

    Args:
        points: (accuracy, cost) by name.
    """
    ahead = [
        name
        for name, (accuracy, cost) in points.items()
        if not any(
            other >= accuracy and less <= cost and (other, less) != (accuracy, cost)
            for key, (other, less) in points.items()
            if key != name
        )
    ]
    return sorted(ahead, key=lambda name: (points[name][1], -points[name][0]))


def choose(points: Mapping[str, tuple[float, float]], margin: float = MARGIN) -> str | None:
    """The cheapest program within `margin` of the most accurate one.

    Args:
        points: (accuracy, cost) by name.
        margin: The accepted loss of accuracy, from 0 to 1.
    """
    if not points:
        return None
    best = max(accuracy for accuracy, _ in points.values())
    near = {name: point for name, point in points.items() if point[0] >= best - margin - 1e-9}
    return min(near, key=lambda name: (near[name][1], -near[name][0]))


def compare_costs(lines: Sequence[Mapping[str, Any]], before: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Compare the costs of programs: which one to choose, and what it saves.

    Money is compared where the cost of every program is known; otherwise the tokens of models other than students,
    where these are. A program that needs reference subquestions can't be chosen, since a new question has none. No
    program is chosen where one that could be has no score, since too many of its answers failed.

    Args:
        lines: The results of the arms, as `summarize_arm` returns them.
        before: The cost of each student before its first answer, as `upfront` returns it.
    """
    usable = [line for line in lines if line["accuracy"] is not None and line["choosable"]]
    unscored = [line["name"] for line in lines if line["accuracy"] is None and line["choosable"]]
    in_money = bool(usable) and all(line["bill"]["cost"] is not None for line in usable)
    unit = "cost" if in_money else "large_tokens"
    uncounted = [line["name"] for line in usable if line["bill"][unit] is None]
    usable = [line for line in usable if line["name"] not in uncounted]
    points = {line["name"]: (line["accuracy"], line["bill"][unit]) for line in usable}
    teacher = next((line for line in usable if line["name"] == TEACHER.name), None)
    against = {}
    for line in usable:
        cost = before.get(line["student"] or "")
        if teacher is None or cost is None:
            continue
        mine, theirs = line["bill"][unit], teacher["bill"][unit]
        against[line["name"]] = {
            "saves": None if not theirs else 1 - mine / theirs,
            "break_even": break_even(cost["cost"], teacher["bill"]["cost"], line["bill"]["cost"]),
            "student_free": line["bill"]["student_free"],
        }
    share = solver_share(teacher["bill"]) if teacher else None
    return {
        "unit": "US dollars" if in_money else "tokens of models other than students",
        "in_money": in_money,
        "points": {name: list(point) for name, point in points.items()},
        "pareto_front": [] if unscored else pareto_front(points),
        "choice": None if unscored else choose(points),
        "unscored": unscored,
        "uncounted": uncounted,
        "margin": MARGIN,
        "upfront": {name: dict(cost) for name, cost in before.items()},
        "against_teacher": against,
        "solver_share": share,
        "solver_dominates": share is not None and share > DOMINATED,
    }
