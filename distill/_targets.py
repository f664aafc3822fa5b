"""Targets: the training rows for students of the *solver*, to compare distilling the solver and the decomposer.

The paper's SE-T learns the solver's own sub-answers and answer, right or wrong. SE-A learns the sub-answers with the
gold answer. Their direct variants learn the answer alone. Every prompt holds the teacher's subquestions, and no row is
screened out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from divcon.distill._booking import at_station
from divcon.distill._export import NothingToLearn
from divcon.distill._jobs import Job, Place, Progress, here, run_jobs
from divcon.distill._stored import Trace
from divcon.distill._students import SOLVER_STUDENTS, Student
from divcon.distill.screening._solver import solve_trace
from divcon.distill.training import Destination, Export, write_rows
from divcon.programs import Item, RolePredict
from divcon.signatures import Subquestions, UnusableArgument


@dataclass(frozen=True)
class Solved:
    """The solver's reply to a trace."""

    sub_answers: str
    answer: str


@dataclass(frozen=True)
class SolvedTraces:
    """The solver's replies to a set of traces.

    Attributes:
        solved: Pairs of trace and reply, in the order of the traces, without the replies that couldn't be read.
        lost: Counts of the replies left out, by reason.
        failed: Traces whose call failed; the next run asks for them again.
        first_error: The message of the first failure.
    """

    solved: list[tuple[Trace, Solved]]
    lost: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    first_error: str | None = None


def solving(solve: RolePredict) -> Callable[[Job], Solved | None]:
    """The function that does one job: it returns the solver's reply to the trace, or None where it can't be read."""

    def ask(job: Job) -> Solved | None:
        found = solve_trace(solve, job.item, job.traces[0])
        return None if found is None else Solved(str(found.sub_answers), str(found.answer))

    return ask


def solve_traces(
    solve: RolePredict,
    traces: Sequence[Trace],
    items: Sequence[Item],
    *,
    concurrency: int = 64,
    progress: Progress | None = None,
    place: Place = here,
) -> SolvedTraces:
    """Have the solver answer the question of every trace once, with the trace's subquestions.

    Oracle screening makes the same calls first, so with a run store no call is made twice.

    Args:
        solve: The solver's predictor, of the signature `Solve`.
        traces: Well-formed traces; traces of an item with the same list share a call.
        items: The items that the traces belong to.
        concurrency: Calls at a time.
        progress: Gets the number of traces that are done, and the total.
        place: Where the jobs are done.

    Raises:
        RoleWithoutEndpoint: The predictor has no LM.
        NotAnEndpoint: It has something that is no LM.
    """
    solve.require_endpoint()
    by_id = {item.id: item for item in items}
    distinct = list({(trace.item, trace.subquestions): trace for trace in traces}.values())
    jobs = [Job("solve", by_id[trace.item], trace.sample, traces=(trace,)) for trace in distinct]
    found: dict[Trace, Solved] = {}
    lost: Counter[str] = Counter()

    def keep(job: Job, solved: Solved | None) -> None:
        if solved is None:
            lost["unreadable"] += 1
        else:
            found[job.traces[0]] = solved

    with at_station("screen"):
        tally = run_jobs(place(solving(solve)), jobs, concurrency, keep, progress=progress)
    solved = [(trace, found[trace]) for trace in distinct if trace in found]
    return SolvedTraces(solved, dict(lost), tally.failed, tally.said)


def export_targets(
    student: Student, solve: RolePredict, solved: SolvedTraces, items: Sequence[Item], to: Destination
) -> Export:
    """Write the training rows of a solver's student, and a manifest beside them.

    Args:
        student: A student of the solver.
        solve: The predictor that the student will answer, of `Solve`, or of `SolveDirect` for a direct variant.
        solved: The solver's replies to the traces.
        items: The items that the traces belong to.
        to: The files to write.

    Raises:
        NothingToLearn: There is no reply of the solver that can be read.
        UnusableArgument: The student isn't one of the solver.
    """
    target = student.target
    if target is None:
        raise UnusableArgument(
            f"{student.name} is no student of the solver.", f"Take one of {', '.join(SOLVER_STUDENTS)}."
        )
    if not solved.solved:
        raise NothingToLearn(
            f"The solver gave no reply for {student.label} to learn from.", "Collect more, or look at its replies."
        )
    by_id = {item.id: item for item in items}
    rows = []
    for trace, prediction in solved.solved:
        item = by_id[trace.item]
        answer = item.answer if target.gold else prediction.answer
        outputs = {"answer": answer}
        if not target.direct:
            outputs["sub_answers"] = prediction.sub_answers
        asked = Subquestions(trace.subquestions or ())
        inputs = {"question": item.question, "context": item.context, "subquestions": asked}
        rows.append(solve.training_row(inputs, outputs))
    lost = dict(sorted(solved.lost.items()))
    counts = {"collected": len(rows) + sum(lost.values()), "kept": len(rows), "lost": lost, "failed": solved.failed}
    return write_rows(rows, solve, to, counts)
