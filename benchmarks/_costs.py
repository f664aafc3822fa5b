"""Costs: what a question costs by who answers, what a student costs before its first answer, and when it has paid.

Input and output of both stages count, tokens that a provider read from its cache apart. A price nobody gave is
unknown and never zero; then tokens stand in for money.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

MARGIN = 0.02  # accuracy that is given up for a cheaper program: two points, what the paper's own tables can't tell
DOMINATED = 0.5  # share of the bill from which the solver is said to dominate it


def bill(usage: Mapping[str, Mapping[str, Any]], questions: int, local: Sequence[str] = ()) -> dict[str, Any]:
    """What one question costs, on average.

    Args:
        usage: By role, over all questions: `calls`, `input_tokens`, `cached_tokens`, `output_tokens`, `cost`,
            `unpriced_calls`.
        questions: How many were answered.
        local: Roles that a student answers. Their price, where it is unknown, counts as nothing, and that is said.

    Returns:
        `by_role`; `cost` in US dollars or None where a price is unknown; `large_tokens`, what models other than
        students read and wrote; `student_free` where a student's unknown price was taken as nothing.
    """
    by_role, cost, large, free = {}, 0.0, 0.0, False
    known = True
    for role, spent in usage.items():
        unknown = bool(spent["unpriced_calls"])
        by_role[role] = {
            "input_tokens": spent["input_tokens"] / questions,
            "cached_tokens": spent["cached_tokens"] / questions,
            "output_tokens": spent["output_tokens"] / questions,
            "cost": None if unknown else (spent["cost"] or 0.0) / questions,
        }
        if role in local:
            free = free or unknown
        else:
            large += (spent["input_tokens"] + spent["output_tokens"]) / questions
            known = known and not unknown
        cost += 0.0 if unknown else (spent["cost"] or 0.0) / questions
    return {"by_role": by_role, "cost": cost if known else None, "large_tokens": large, "student_free": free}


def solver_share(spent: Mapping[str, Any]) -> float | None:
    """The solver's share of a bill: of the money where it is known, else of the tokens.

    Args:
        spent: As `bill` gives it.
    """
    roles = spent["by_role"]
    if "solver" not in roles or len(roles) < 2:
        return None
    if spent["cost"]:
        return float((roles["solver"]["cost"] or 0.0) / spent["cost"])
    tokens = {role: part["input_tokens"] + part["output_tokens"] for role, part in roles.items()}
    return float(tokens["solver"] / sum(tokens.values())) if sum(tokens.values()) else None


def upfront(
    paid: Mapping[str, Mapping[str, Mapping[str, Any]]], seconds: float, students: int, hour: float | None
) -> dict[str, Any]:
    """What students cost before their first answer.

    Args:
        paid: By station (`compile`, `collect`, `screen`) and role, as the run store counts it.
        seconds: Spent training, all students together.
        students: How many share that.
        hour: US dollars an hour of the machine that trains, where known.

    Returns:
        For one student: `asked` (US dollars for the teacher and the solver's screening, None where a price is
        unknown), `training` (US dollars, None where the hour's price is unknown), `cost` (both, None where either is
        unknown), `calls`, `tokens`, `seconds`.
    """
    roles = [spent for station in paid.values() for spent in station.values()]
    unknown = any(spent["unpriced_calls"] for spent in roles)
    asked = None if unknown else sum(spent["cost"] or 0.0 for spent in roles) / students
    training = None if hour is None else seconds / 3600 * hour / students
    return {
        "asked": asked,
        "training": training,
        "cost": None if asked is None or training is None else asked + training,
        "calls": sum(spent["calls"] for spent in roles) / students,
        "tokens": sum(spent["input_tokens"] + spent["output_tokens"] for spent in roles) / students,
        "seconds": seconds / students,
    }


def break_even(before: float | None, teacher: float | None, student: float | None) -> int | None:
    """After how many questions a student has paid for itself; None where it never does or a price is unknown.

    Args:
        before: US dollars before its first answer.
        teacher: US dollars a question with the teacher.
        student: US dollars a question with the student.
    """
    if before is None or teacher is None or student is None or student >= teacher:
        return None
    return math.ceil(round(before / (teacher - student), 6))  # 300.0000004 is 300


def pareto_front(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The names that no other beats in both accuracy and cost, the cheapest first.

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
        margin: In accuracy.
    """
    if not points:
        return None
    best = max(accuracy for accuracy, _ in points.values())
    near = {name: point for name, point in points.items() if point[0] >= best - margin - 1e-9}
    return min(near, key=lambda name: (near[name][1], -near[name][0]))


def compare_costs(
    lines: Sequence[Mapping[str, Any]],
    paid: Mapping[str, Mapping[str, Mapping[str, Any]]],
    seconds: float,
    students: int,
    hour: float | None,
) -> dict[str, Any]:
    """Which program to choose and what that saves: the cost half of a report.

    Money is compared where every program's is known, else the tokens of models other than students. A program that
    needs reference subquestions can't be chosen, since nobody has them for a new question.

    Args:
        lines: Lines of arms, as `summarize_arm` makes them.
        paid: See `upfront`.
        seconds: See `upfront`.
        students: See `upfront`.
        hour: See `upfront`.
    """
    usable = [line for line in lines if line["accuracy"] is not None and not line["name"].startswith("references")]
    in_money = bool(usable) and all(line["bill"]["cost"] is not None for line in usable)
    unit = "cost" if in_money else "large_tokens"
    points = {line["name"]: (line["accuracy"], line["bill"][unit]) for line in usable}
    before = upfront(paid, seconds, max(1, students), hour)
    teacher = next((line for line in usable if line["name"] == "teacher"), None)
    pays = {}
    for line in usable:
        if teacher is None or not line["name"].startswith(("sd-", "se-")):
            continue
        mine, theirs = line["bill"][unit], teacher["bill"][unit]
        pays[line["name"]] = {
            "saves": None if not theirs else 1 - mine / theirs,
            "break_even": break_even(before["cost"], teacher["bill"]["cost"], line["bill"]["cost"]),
            "student_free": line["bill"]["student_free"],
        }
    share = solver_share(teacher["bill"]) if teacher else None
    return {
        "unit": "US dollars" if in_money else "tokens of models other than students",
        "in_money": in_money,
        "points": {name: list(point) for name, point in points.items()},
        "pareto_front": pareto_front(points),
        "choice": choose(points),
        "margin": MARGIN,
        "upfront": before,
        "against_teacher": pays,
        "solver_share": share,
        "solver_dominates": share is not None and share > DOMINATED,
    }
