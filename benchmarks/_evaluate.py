"""Evaluate: answer the same held-out questions with every arm. Each answer is right, wrong or failed."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import dspy
from dspy.utils.exceptions import AdapterParseError, LMError

from divcon.benchmarks._graders import Verdict, grade
from divcon.benchmarks._outcomes import Record, Records
from divcon.distill import Job, Key, Place, Progress, RunStore, Tally, at_station, here, run_jobs
from divcon.programs import Item, Ledger
from divcon.programs._arguments import require_context
from divcon.signatures import SubquestionsError, masked


@dataclass(frozen=True)
class Arm:
    """A program that is measured: one row of the table.

    Attributes:
        name: The name in `evaluate.arms`.
        program: The program.
        key: The key of its outcomes, which changes with anything that could change an answer.
        label: The name in reports.
        loads: What its first call may wait for: servers to start, weights to be loaded. The first of several arms that
            loads something answers one question alone, which is left out of its time.
        planner_loads: What of that its planner loads.
        local: The roles that a student answers.
        prices: Current US dollars per million tokens by role, where they are known.
        grade: Grades an answer. It is part of the key unless it is the strict grader.
        lora: The adapter of a student of another run, or None.
        built_as: The arm's name for `read_arm`, where it differs from `name`.
        splits: Whether it decomposes the question.
        teachers_plans: Whether its subquestions are the teacher's.
        choosable: Whether it can answer a new question.
        student: The trained student that is used, or None.
        turns: What answers its planner and its solver, where models have turns; empty for others.
        recording: For an arm that ran elsewhere, the `file` of its replies and that file's `sha256`. It is replayed in
            this process, and its usage is unknown.
    """

    name: str
    program: dspy.Module
    key: Key
    label: str
    loads: frozenset[str] = frozenset()
    planner_loads: frozenset[str] = frozenset()
    local: tuple[str, ...] = ()
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    grade: Callable[[Item, str], Verdict] = grade
    lora: Path | None = None
    built_as: str = ""
    splits: bool = True
    teachers_plans: bool = False
    choosable: bool = True
    student: str | None = None
    turns: tuple[str, str] = ("", "")
    recording: Mapping[str, str] | None = None


def evaluate_arm(arm: Arm, items: Sequence[Item], store: RunStore, *, concurrency: int = 64) -> Records:
    """Evaluate one arm; see `evaluate_arms`. Returns its records by item id."""
    return evaluate_arms([arm], items, store, concurrency=concurrency)[0]


def evaluate_arms(
    arms: Sequence[Arm],
    items: Sequence[Item],
    store: RunStore,
    *,
    concurrency: int = 64,
    progress: Progress | None = None,
    place: Place = here,
) -> list[Records]:
    """Answer every item with every arm, and keep each outcome in the store.

    The arms share one pool of threads: an arm begins while the last answers of the arm before it are still in flight.
    An arm that loads what no arm before it has loaded begins when nothing else runs.

    Where models have turns, all plans whose solver is another model are asked for first. The program finds them in the
    store of its replies when its turn to solve comes. Arms that take the same model share a turn. Models have turns
    where only one is loaded at a time, and where they compute on the same cores.

    Items that are in the store under an arm's key aren't answered again, unless they failed. A failed call gives the
    outcome `failed`, never `wrong`. A solver's reply without a readable answer is `wrong`, by the rule `unreadable`. A
    record holds the rules by which its answer was read (`read_by`) and graded (`rule`), and says where a reply of the
    solver ran out of tokens (`cut_off`).

    Args:
        arms: The arms to measure.
        items: The test items.
        store: The store that keeps the outcomes.
        concurrency: Questions at a time.
        progress: Gets the number of answers of all arms that are done, the total, and the arm of the last answer; while
            plans are asked for first, the number of plans, with `plans` as the unit.
        place: Where the jobs are done.

    Returns:
        For each arm, its records by item id, in the order of the items.
    """
    by_work = {(_work_of(arm), _lora_of(arm)): arm for arm in arms}
    missing: list[list[Job]] = []
    for arm in arms:
        there = store.outcomes(arm.name, arm.key.digest)
        answered = {key for key, record in there.items() if record["outcome"] != "failed"}
        missing.append(
            [
                Job(_work_of(arm), item, position=at, lora=_lora_of(arm))
                for at, item in enumerate(items)
                if item.id not in answered
            ]
        )
    for arm, jobs in zip(arms, missing, strict=True):
        if arm.recording is not None:
            store.keep_outcomes(
                arm.name, arm.key.digest, [(job.position, job.item.id, _replayed(arm, job)) for job in jobs]
            )
            jobs.clear()
    total = len(arms) * len(items)
    tally = Tally(total, done=total - sum(map(len, missing)))

    planned: dict[tuple[str, str | None, str], tuple[float, float]] = {}

    def plan(job: Job) -> None:
        # What fails is met again, and counted, when the question is answered.
        arm, stamp, started = by_work[job.work, job.lora], time.time(), time.perf_counter()
        with contextlib.suppress(AdapterParseError, SubquestionsError):
            arm.program.decompose(question=job.item.question, context=require_context(job.item.context))
        if not job.warm_up:
            planned[job.work, job.lora, job.item.id] = round(stamp, 3), round(time.perf_counter() - started, 3)

    def keep(job: Job, record: Record) -> None:
        arm = by_work[job.work, job.lora]
        if (span := planned.get((job.work, job.lora, job.item.id))) is not None:
            record["planned"] = span
        store.keep_outcome(arm.name, arm.key.digest, job.position, job.item.id, record)

    def failed(job: Job, error: Exception) -> None:
        keep(job, _failed(error))

    def name_of(job: Job) -> str:
        return by_work[job.work, job.lora].name

    answer = place(lambda job: answered_by(by_work[job.work, job.lora], job))
    with at_station("evaluate"):
        for planning in _by_turn([one for one in zip(arms, missing, strict=True) if _plans_first(one[0])], 0):
            for alone, jobs in _in_turns([(arm.planner_loads, jobs) for arm, jobs in planning]):
                counted = functools.partial(progress, unit="plans") if progress else None
                if counted and jobs:
                    counted(0, len(jobs), name_of(jobs[0]))
                run_jobs(
                    plan,
                    jobs,
                    1 if alone else concurrency,
                    lambda job, _: None,
                    progress=counted,
                    remark=name_of,
                )
        if progress and arms:
            progress(tally.done, total, arms[0].name)
        for solving in _by_turn(list(zip(arms, missing, strict=True)), 1):
            for alone, jobs in _in_turns([(arm.loads, jobs) for arm, jobs in solving]):
                run_jobs(
                    answer,
                    jobs,
                    1 if alone else concurrency,
                    keep,
                    tally=tally,
                    failed=failed,
                    progress=progress,
                    remark=name_of,
                )
    found = (store.outcomes(arm.name, arm.key.digest) for arm in arms)
    return [{item.id: cast(Record, records[item.id]) for item in items} for records in found]


def _failed(error: Exception) -> Record:
    return {"outcome": "failed", "error": masked(f"{type(error).__name__}: {error}")[:500]}


def _replayed(arm: Arm, job: Job) -> Record:
    """The record of an answer that was given elsewhere."""
    try:
        return answered_by(arm, job)
    except LMError as error:
        return _failed(error)


def _work_of(arm: Arm) -> str:
    return f"evaluate {arm.built_as or arm.name}"


def _lora_of(arm: Arm) -> str | None:
    return str(arm.lora) if arm.lora else None


_Missing = tuple[Arm, list[Job]]


def _plans_first(arm: Arm) -> bool:
    planner, solver = arm.turns
    return bool(planner and solver) and planner != solver


def _by_turn(missing: Sequence[_Missing], part: int) -> Iterator[list[_Missing]]:
    """The arms by the model that has to be loaded for their planner (0) or their solver (1), in order of appearance."""
    turns: dict[str, list[_Missing]] = {}
    for arm, jobs in missing:
        turns.setdefault(arm.turns[part] or arm.turns[1 - part], []).append((arm, jobs))
    yield from turns.values()


def _in_turns(missing: Sequence[tuple[frozenset[str], list[Job]]]) -> Iterator[tuple[bool, list[Job]]]:
    """Batches of jobs, each of which ends before the next begins, and whether a batch's jobs run one at a time.

    Args:
        missing: The jobs of each arm, with what the first of them loads.
    """
    together: list[Job] = []
    loaded: set[str] = set()
    for loads, jobs in missing:
        if jobs and not loads <= loaded:
            yield False, together
            yield True, [replace(jobs[0], warm_up=True)]
            together, jobs = [], jobs[1:]
            loaded |= loads
        together += jobs
    yield False, together


def answered_by(arm: Arm, job: Job) -> Record:
    """The record of one answer.

    Raises:
        dspy.LMError: A call failed.
    """
    item = job.item
    # The stamp is wall-clock time; the duration isn't, since a clock may be set while an answer is waited for.
    stamp, started = time.time(), time.perf_counter()
    fields: Record
    try:
        with Ledger() as ledger:
            # A recording has rows by id, since questions may have the same text.
            by_id = {"id": item.id} if arm.recording is not None else {}
            prediction = arm.program(question=item.question, context=item.context, **by_id)
    except AdapterParseError as error:
        verdict, fields = Verdict(False, None, "unreadable"), {"answer": error.lm_response, "status": "unreadable"}
    else:
        verdict = arm.grade(item, prediction.answer)
        fields = {
            "answer": prediction.answer,
            "status": prediction.get("status") or "",
            "reason": prediction.get("reason"),
            "read_by": prediction.get("read_by"),
            "subquestions": list(prediction.get("subquestions") or []),
            "sub_answers": prediction.get("sub_answers") or "",
        }
    solver = ledger.usage.get("solver")
    return {
        "outcome": "right" if verdict.right else "wrong",
        "extracted": verdict.extracted,
        "rule": verdict.rule,
        **({"score": verdict.score} if item.grader == "drop" else {}),
        "started": round(stamp, 3),
        "seconds": round(time.perf_counter() - started, 3),
        "usage": ledger.as_dict(),
        **({"calls": calls} if (calls := ledger.calls) else {}),
        **({"cut_off": True} if solver is not None and solver.cut_off_calls else {}),
        **({"warm_up": True} if job.warm_up else {}),
        **fields,
    }
