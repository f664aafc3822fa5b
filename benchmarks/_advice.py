"""The advice of a report: which program to choose, and what it saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from divcon.benchmarks._figures import percent, score
from divcon.benchmarks.arms import TEACHER


def advice(task: str, lines: Sequence[Mapping[str, Any]], costs: Mapping[str, Any]) -> dict[str, Any]:
    """Which program to choose and what it saves, in sentences.

    Args:
        task: The task's name.
        lines: The results of its arms.
        costs: The comparison of costs, as `compare_costs` returns it.

    Returns:
        `task`, `headline`, `sentences`, and `warnings`, which are also in `sentences`.
    """
    by_name = {line["name"]: line for line in lines}
    if costs["unscored"]:
        why = [f"{by_name[name]['label']} has no score: {by_name[name]['withheld']}." for name in costs["unscored"]]
        return {"task": task, "headline": "No program is advised", "sentences": why, "warnings": why}
    chosen = by_name.get(costs["choice"] or "")
    if chosen is None:
        headline = "No program is advised: none here can answer a new question" if lines else "Nothing was measured."
        return {"task": task, "headline": headline, "sentences": [], "warnings": []}
    best = max(
        (by_name[name] for name in costs["points"]), key=lambda line: (line["accuracy"], line["name"] == chosen["name"])
    )
    low, high = chosen["ci95"]
    if best is chosen:
        most = "nothing that can be chosen here is more accurate"
    else:
        most = f"the most accurate is {best['label']} with {score(best)}"
    right = f"{score(chosen)} right (95 % interval {percent(low)} to {percent(high)})"
    sentences = [f"{right}; {most}."]
    amount = costs["points"][chosen["name"]][1]
    spent = f"{amount:.6f} US dollars" if costs["in_money"] else f"{amount:,.0f} tokens of models other than students"
    sentences.append(f"A question costs {spent}.")
    theirs = costs["points"].get(TEACHER.name, [None, 0])[1]
    if chosen["name"] != TEACHER.name and theirs:
        saved = 1 - amount / theirs
        much = f"saves {percent(saved)}" if saved >= 0 else f"costs {percent(-saved)} more"
        sentences.append(
            f"With the teacher as planner {score(by_name[TEACHER.name])} are right; against it this {much}."
        )
    if chosen["name"] in costs["against_teacher"]:
        sentences.append(_pays(costs, chosen["name"], chosen["student"]))
    if not chosen["splits"]:
        sentences.append("Don't decompose here: the solver alone does as well.")
    warnings = []
    if costs["solver_dominates"]:
        share = costs["solver_share"]
        warnings.append(
            f"The solver makes {percent(share)} of the two-stage bill: moving the planner saves {percent(1 - share)} "
            "of it at most."
        )
    return {
        "task": task,
        "headline": f"Choose {chosen['label']}",
        "sentences": [*sentences, *warnings],
        "warnings": warnings,
    }


def _pays(costs: Mapping[str, Any], name: str, student: str) -> str:
    """A sentence on when a student has paid for itself."""
    against, before = costs["against_teacher"][name], costs["upfront"][student]
    free = " (its own serving counted as free)" if against["student_free"] else ""
    if against["break_even"] is not None:
        return f"The student has paid for itself after {against['break_even']:,} questions{free}."
    took = (
        f"Before its first answer the student took {before['calls']:,.0f} calls, {before['tokens']:,.0f} tokens and "
        f"{before['seconds']:,.0f} s of training; "
    )
    if not costs["in_money"] or before["asked"] is None:
        return took + "when that has paid is unknown without prices."
    if before["training"] is None:
        return took + "when that has paid is unknown without costs.training_hour."
    return took + "it never pays, since a question costs no less with it."
