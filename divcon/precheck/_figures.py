"""The figures of a precheck: differences, bills, and what was measured for the estimate of the whole pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from divcon.benchmarks import Arm, Records, answers_of, differences, summarize_arm
from divcon.benchmarks.arms import TEACHER, UNTUNED, UNTUNED_SOLVES, read_arm
from divcon.config import Pipeline
from divcon.distill import RunStore
from divcon.pipeline import Measured
from divcon.precheck._verdict import Difference

_Used = dict[str, dict[str, Any]]
# The calls of a precheck are recorded under these cells: those of the programs, and those of the base that solves.
CELL, BASE_CELL = "precheck", "precheck-base"


def summarize(arm: Arm, records: Records, pipeline: Pipeline) -> dict[str, Any]:
    """The results of an arm, with its steps, and its cost in US dollars for 1,000 questions."""
    evaluate = pipeline.evaluate
    line = summarize_arm(arm, [records], evaluate.resamples, evaluate.max_failed)
    asked = [len(record["subquestions"]) for record in records.values() if "subquestions" in record]
    cost = line["bill"]["cost"] if line["bill"] else None
    return {
        **line,
        "steps": mean(asked) if arm.splits and asked else None,
        "cost_per_1000": None if cost is None else 1000 * cost,
    }


def compared(records: Mapping[str, Records], a: str, b: str, pipeline: Pipeline) -> Difference | None:
    """The paired difference of two arms; None where one of them has no score."""
    evaluate = pipeline.evaluate
    both = {name: [records[name]] for name in (a, b)}
    for row in differences(both, evaluate.resamples, [(a, b)], evaluate.max_failed):
        low, high = row["ci95"]
        told = low > 0 or high < 0
        return Difference(row["difference"], low, high, row["n"], None if told else to_settle(both[a], both[b]))
    return None


def to_settle(a: Sequence[Records], b: Sequence[Records]) -> int | None:
    one, two = answers_of(a), answers_of(b, list(a[0]))
    apart = (one - two)[~np.isnan(one - two)]
    return int(np.ceil((2.8 * apart.std() / apart.mean()) ** 2)) if apart.mean() else None


def planner_cost(line: Mapping[str, Any], pipeline: Pipeline) -> tuple[float | None, str]:
    """The planner's part of a two-stage program's bill, in US dollars for 1,000 questions, or why it is unknown.

    Args:
        line: The results of the arm whose planner is the teacher.
        pipeline: The pipeline.
    """
    if line["cost_per_1000"]:
        return 1000 * line["bill"]["by_role"]["decomposer"]["cost"], ""
    if line["cost_per_1000"] == 0:
        return None, "the whole program costs nothing at these prices."
    roles = {"decomposer": "teacher", "solver": "solver"}
    unpriced = [
        name for role, name in roles.items() if not line["usage"].get(role) or line["usage"][role]["unpriced_calls"]
    ]
    bare = [name for name in unpriced if name not in pipeline.prices]
    if bare:
        keys = " and ".join(f"roles.{name}.price" for name in bare)
        return None, f"there is no price of the {' and of the '.join(bare)}; write {keys}."
    return None, f"the usage of the {' and of the '.join(unpriced)} is unknown."


def measured_of(lines: Sequence[Mapping[str, Any]], store: RunStore, pipeline: Pipeline) -> Measured:
    """What a precheck has measured, by station of the pipeline.

    Args:
        lines: The results of the arms.
        store: The store with the calls, which knows how long each took.
        pipeline: The pipeline.
    """
    by_arm = {line["name"]: dict(_by_role(line, store)) for line in lines}
    teacher = by_arm[TEACHER.name]
    solver = {role: spent for role, spent in teacher.items() if role == "solver"}
    used: dict[str, _Used] = {f"evaluate {name}": spent for name, spent in by_arm.items()}
    used["collect"] = {role: spent for role, spent in teacher.items() if role == "teacher"}
    used |= {f"screen {rule}": solver for rule in pipeline.screen.rules}
    used |= {f"export {student.name}": solver for student in pipeline.solver_students}
    used |= {f"evaluate {one.name}": by_arm[UNTUNED.name] for one in pipeline.decomposer_students}
    used |= {f"evaluate {one.name}": by_arm[UNTUNED_SOLVES.name] for one in pipeline.solver_students}
    asked = max(line["right"] + line["wrong"] + line["failed"] for line in lines)
    return Measured(used, min(pipeline.evaluate.concurrency, asked))


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
