"""The figures of a precheck: differences, bills, and what was measured for the estimate of the whole pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from divcon.benchmarks import (
    Arm,
    Records,
    answers_of,
    compare_paired,
    questions_to_settle,
    summarize_arm,
    too_many_failed,
)
from divcon.benchmarks._costs import MARGIN
from divcon.benchmarks.arms import TEACHER, UNTUNED, UNTUNED_SOLVES, read_arm
from divcon.config import Pipeline
from divcon.distill import RunStore
from divcon.pipeline import Measured
from divcon.precheck._verdict import Difference

_Used = dict[str, dict[str, Any]]
# The calls of a precheck are recorded under these cells: those of the programs, and those of the base that solves.
CELL, BASE_CELL = "precheck", "precheck-base"


def summarize(arm: Arm, records: Mapping[str, Records], pipeline: Pipeline) -> dict[str, Any]:
    """The results of an arm, with the steps of its plans and the share of the teacher's accuracy that is kept."""
    evaluate, mine = pipeline.evaluate, records[arm.name]
    line = summarize_arm(arm, [mine], evaluate.resamples, evaluate.max_failed, [records[TEACHER.name]])
    asked = [len(record["subquestions"]) for record in mine.values() if "subquestions" in record]
    return {**line, "steps": mean(asked) if arm.splits and asked else None}


def compared(
    records: Mapping[str, Records], a: str, b: str, pipeline: Pipeline, dearer: bool | None = None
) -> Difference | None:
    """The paired difference of two arms; None where one of them has no score, or no question has both answers.

    Args:
        records: The outcomes by arm.
        a: An arm.
        b: Another one.
        pipeline: The pipeline.
        dearer: Whether `a` costs more. Where it does, it is settled too that it gains less than the margin; where it
            doesn't, that it loses less. None where that isn't known or doesn't matter.
    """
    one, two = [records[a]], [records[b]]
    if any(too_many_failed(arm, pipeline.evaluate.max_failed) for arm in (one, two)):
        return None
    found = compare_paired(answers_of(one, list(records[a])), answers_of(two, list(records[a])))
    if found is None:
        return None
    low, high = found.ci95
    told = low > 0 or high < 0
    needed = [questions_to_settle(abs(found.difference), found.discordant, found.n)]
    if dearer is not None:
        away = -found.difference if dearer else found.difference
        needed.append(questions_to_settle(away, found.discordant, found.n, MARGIN))
    more = None if told else min((number for number in needed if number is not None), default=None)
    return Difference(found.difference, low, high, found.n, more)


def in_money(usd: float, most: float | None) -> str:
    """An expected cost in US dollars, as a phrase."""
    return f"about ${usd:.4g} (at most ${most:.4g})" if most else "no money"


def planner_cost(line: Mapping[str, Any], pipeline: Pipeline) -> tuple[float | None, str]:
    """The planner's part of the bill for 1,000 questions, in US dollars, or why it is unknown, in words.

    Args:
        line: The results of the arm whose planner is the teacher.
        pipeline: The pipeline.
    """
    bill = line["bill"]
    if bill["cost_per_1000"] is not None:
        return bill["by_role"]["decomposer"]["cost_per_1000"], ""
    roles, used = {"decomposer": "teacher", "solver": "solver"}, line["usage"]
    uncounted = [name for role, name in roles.items() if role not in used or used[role]["unknown_calls"]]
    if uncounted:
        return None, f"the tokens of the {' and of the '.join(uncounted)} are unknown."
    bare = [name for name in roles.values() if name not in pipeline.prices]
    return None, f"no price is known; write {' and '.join(f'roles.{name}.price' for name in bare)}."


def measured_of(lines: Sequence[Mapping[str, Any]], store: RunStore, pipeline: Pipeline) -> Measured:
    """What a precheck has measured, by station of the pipeline.

    Args:
        lines: The results of the arms.
        store: The store with the calls, which knows how long each took.
        pipeline: The pipeline.
    """
    by_arm = {line["name"]: dict(_by_role(line, store)) for line in lines if "recording" not in line}
    teacher = by_arm[TEACHER.name]
    solver = {role: spent for role, spent in teacher.items() if role == "solver"}
    used: dict[str, _Used] = {f"evaluate {name}": spent for name, spent in by_arm.items()}
    used["collect"] = {role: spent for role, spent in teacher.items() if role == "teacher"}
    used |= {f"screen {rule}": solver for rule in pipeline.screen.rules}
    used |= {f"export {student.name}": solver for student in pipeline.solver_students}
    used |= {f"evaluate {one.name}": by_arm[UNTUNED.name] for one in pipeline.decomposer_students}
    used |= {f"evaluate {one.name}": by_arm[UNTUNED_SOLVES.name] for one in pipeline.solver_students}
    asked = [line["right"] + line["wrong"] + line["failed"] for line in lines if line["name"] in by_arm]
    # The programs were asked at the same time, each of them every question.
    return Measured(used, max(asked), min(pipeline.evaluate.concurrency, sum(asked)))


def _by_role(line: Mapping[str, Any], store: RunStore) -> Iterator[tuple[str, dict[str, Any]]]:
    """What an arm used, by the role whose model was asked, with the seconds that such calls took."""
    kind, _ = read_arm(line["name"])
    for role, spent in line["usage"].items():
        asked = "teacher" if role == "decomposer" and kind.planner == "teacher" else role
        cell = BASE_CELL if kind.student_solves and role == "solver" else CELL
        paid = store.paid(cell=cell).get(asked)
        if paid is None or not spent["calls"]:
            continue
        by_length = paid["output_tokens"] and spent["output_tokens"]
        share = spent["output_tokens"] / paid["output_tokens"] if by_length else spent["calls"] / paid["calls"]
        yield asked, {**spent, "seconds": paid["seconds"] * share}
