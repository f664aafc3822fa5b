"""Targets: what a student of the *solver* learns, to compare distilling that half with distilling the other.

The paper's SE-T learns the solver's own sub-answers and answer, right or wrong; SE-A the same with the gold answer in
the end. Their direct forms learn the answer alone. All rows give the teacher's subquestions, and all are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from divcon.distill._engine import at_station
from divcon.distill._export import NothingToLearn
from divcon.distill._jobs import Job, Place, Progress, here, run_jobs
from divcon.distill._store import Trace
from divcon.distill._students import Student
from divcon.distill.screening._solver import solve_trace
from divcon.distill.training import Destination, Export, write_rows
from divcon.programs import Item, RolePredict
from divcon.signatures import Subquestions


@dataclass(frozen=True)
class Solved:
    """What the solver wrote for a trace."""

    sub_answers: str
    answer: str


@dataclass(frozen=True)
class SolvedTraces:
    """What the solver made of some traces.

    Attributes:
        solved: Trace and reply, in the order of the traces; replies that couldn't be read are left out.
        lost: Counts of what was left out, by reason.
        failed: Traces the solver failed on; they are asked again next time.
    """

    solved: list[tuple[Trace, Solved]]
    lost: dict[str, int] = field(default_factory=dict)
    failed: int = 0
    first_error: str | None = None


def solving(solve: RolePredict) -> Callable[[Job], Solved | None]:
    """The work of one job: what the solver makes of its trace; None where its reply can't be read."""

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
    """Have the solver answer every well-formed trace's question with its subquestions, once.

    The call is the one that oracle screening makes first, so with a run store nothing is asked twice.

    Args:
        solve: The solver's predictor, of the signature `Solve`.
        traces: Well-formed traces; two with the same list are asked as one.
        items: The items they belong to.
        concurrency: Calls at a time.
        progress: Told how many are there.
        place: Where jobs are done.
    """
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
        solve: The predictor the student will answer for: of `Solve`, or of `SolveDirect` for a direct form.
        solved: What the solver made of the traces.
        items: The items they belong to.
        to: Where to.

    Raises:
        NothingToLearn: The solver answered nothing.
        ValueError: It is no student of the solver.
    """
    target = student.target
    if target is None:
        raise ValueError(f"{student.name} is no student of the solver: it has no target")
    if not solved.solved:
        raise NothingToLearn(
            f"The solver left nothing for {student.label} to learn from.", "Collect more, or look at its replies."
        )
    by_id = {item.id: item for item in items}
    rows = []
    for trace, prediction in solved.solved:
        item = by_id[trace.item]
        answer = item.answer if target.gold else prediction.answer
        outputs = {"answer": answer}
        if not target.direct:
            outputs["sub_answers"] = prediction.sub_answers
        inputs = {
            "question": item.question, "context": item.context, "subquestions": Subquestions(trace.subquestions or ()),
        }  # fmt: skip
        rows.append(solve.training_row(inputs, outputs))
    lost = dict(sorted(solved.lost.items()))
    counts = {"collected": len(rows) + sum(lost.values()), "kept": len(rows), "lost": lost, "failed": solved.failed}
    return write_rows(rows, solve, to, counts)
