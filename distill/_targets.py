"""Targets: what a student of the *solver* learns, to compare distilling that half with distilling the other.

The paper's SE-T learns the solver's own sub-answers and answer, right or wrong; SE-A the same with the gold answer in
the end. Their direct forms learn the answer alone. All rows give the teacher's subquestions, and all are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import dspy
from dspy.utils.exceptions import AdapterParseError

from divcon.distill._collect import Progress
from divcon.distill._engine import at_station
from divcon.distill._export import NothingToLearn
from divcon.distill._overlap import overlapped
from divcon.distill._store import Trace
from divcon.distill.training import Destination, Export, write_rows
from divcon.programs import Item, RolePredict
from divcon.signatures import Subquestions

SolverStudent = Literal["se-t", "se-a", "se-t-direct", "se-a-direct"]
SOLVER_STUDENTS: tuple[str, ...] = get_args(SolverStudent)


@dataclass(frozen=True)
class SolvedTraces:
    """What the solver made of some traces.

    Attributes:
        solved: Trace and prediction, in the order of the traces; replies that couldn't be read are left out.
        lost: Counts of what was left out, by reason.
        failed: Traces the solver failed on; they are asked again next time.
    """

    solved: list[tuple[Trace, dspy.Prediction]]
    lost: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    first_error: str | None = None


def solve_traces(
    solve: RolePredict,
    traces: Sequence[Trace],
    items: Sequence[Item],
    *,
    concurrency: int = 64,
    progress: Progress | None = None,
) -> SolvedTraces:
    """Have the solver answer every well-formed trace's question with its subquestions, once.

    The call is the one that oracle screening makes first, so with a run store nothing is asked twice.

    Args:
        solve: The solver's predictor, of the signature `Solve`.
        traces: Well-formed traces; two with the same list are asked as one.
        items: The items they belong to.
        concurrency: Calls at a time.
        progress: Called with (done, in all).
    """
    by_id = {item.id: item for item in items}
    distinct = list({(trace.item, trace.subquestions): trace for trace in traces}.values())

    def ask(trace: Trace) -> dspy.Prediction | None:
        item = by_id[trace.item]
        try:
            return solve(
                question=item.question, context=item.context, subquestions=Subquestions(trace.subquestions or ()),
                config={},
            )  # fmt: skip
        except AdapterParseError:
            return None

    found: dict[tuple[str, Any], dspy.Prediction] = {}
    lost: Counter[str] = Counter()
    failed, first_error = 0, None
    with at_station("screen"):
        for done, (trace, prediction, error) in enumerate(overlapped(ask, distinct, concurrency), 1):
            if error is not None:
                failed += 1
                first_error = first_error or f"{type(error).__name__}: {error}"
            elif prediction is None:
                lost["unreadable"] += 1
            else:
                found[trace.item, trace.subquestions] = prediction
            if progress:
                progress(done, len(distinct))
    solved = [(t, found[t.item, t.subquestions]) for t in distinct if (t.item, t.subquestions) in found]
    return SolvedTraces(solved, dict(lost), failed, first_error)


def export_targets(solve: RolePredict, solved: SolvedTraces, items: Sequence[Item], to: Destination) -> Export:
    """Write the training rows of a solver's student, and a manifest beside them.

    Args:
        solve: The predictor the student will answer for: of `Solve`, or of `SolveDirect` for a direct form.
        solved: What the solver made of the traces.
        items: The items they belong to.
        to: Where to, for which of `SOLVER_STUDENTS`.

    Raises:
        NothingToLearn: The solver answered nothing.
        ValueError: There is no such student.
    """
    student = to.student
    if student not in SOLVER_STUDENTS:
        raise ValueError(f"student is {student!r}; it must be one of {', '.join(SOLVER_STUDENTS)}.")
    if not solved.solved:
        raise NothingToLearn(
            f"The solver left nothing for {student.upper()} to learn from.", "Collect more, or look at its replies."
        )
    by_id = {item.id: item for item in items}
    rows = []
    for trace, prediction in solved.solved:
        item = by_id[trace.item]
        answer = item.answer if student.startswith("se-a") else prediction.answer
        outputs = {"answer": answer}
        if not student.endswith("-direct"):
            outputs["sub_answers"] = prediction.sub_answers
        inputs = {
            "question": item.question, "context": item.context, "subquestions": Subquestions(trace.subquestions or ()),
        }  # fmt: skip
        rows.append(solve.training_row(inputs, outputs))
    lost = dict(sorted(solved.lost.items()))
    counts = {"collected": len(rows) + sum(lost.values()), "kept": len(rows), "lost": lost, "failed": solved.failed}
    return write_rows(rows, solve, to, counts)
