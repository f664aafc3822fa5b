"""Evaluate: every arm on the same held-out questions, three-valued, with usage by role."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import dspy
from dspy.utils.exceptions import AdapterParseError

from divcon.benchmarks._graders import Verdict, grade
from divcon.benchmarks._outcomes import Record, Records
from divcon.distill import Job, Key, Place, Progress, RunStore, Tally, at_station, here, run_jobs
from divcon.programs import Item, Ledger


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: As `evaluate.arms` has it.
        program: What answers.
        key: Changes with anything that could change an answer.
        label: As people read it.
        warm_up: Whether the first question is asked alone and left out of the arm's time, since a server or weights
            are loaded for it.
        local: The roles that a student answers.
        prices: US dollars per million tokens by role, where they are known now.
        grade: Judges an answer; part of the key where it isn't the strict one.
        lora: The student's adapter, where it is of another run.
        built_as: The arm's name in `read_arm`, where `name` is another.
        splits: Whether it splits the question.
        choosable: Whether it can answer a new question.
        student: The trained student that answers.
    """

    name: str
    program: dspy.Module
    key: Key
    label: str
    warm_up: bool = False
    local: tuple[str, ...] = ()
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    grade: Callable[[Item, str], Verdict] = grade
    lora: Path | None = None
    built_as: str = ""
    splits: bool = True
    choosable: bool = True
    student: str | None = None


def evaluate_arm(arm: Arm, items: Sequence[Item], store: RunStore, *, concurrency: int = 64) -> Records:
    """`evaluate_arms` of one arm: its records by item id."""
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

    The arms share one pool: the next one begins while the last answers of the one before are under way. An arm that
    has to be warmed up begins when nothing else runs.

    What the store holds for an arm's key is not asked again, but for items that failed. A call that failed gives
    `failed`, never `wrong`; a solver's reply without a readable answer is `wrong` by the rule `unreadable`. A record
    says by which rule its answer was read (`read_by`), and by which it was graded (`rule`).

    Args:
        arms: What is measured.
        items: The test questions.
        store: Where outcomes are kept.
        concurrency: Questions at a time.
        progress: Told how many answers of all arms are there, and the arm that was answered last.
        place: Where jobs are done.

    Returns:
        Records by item id, in the order of the items; one dict an arm.
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
    total = len(arms) * len(items)
    tally = Tally(total, done=total - sum(map(len, missing)))
    if progress and arms:
        progress(tally.done, total, arms[0].name)

    def keep(job: Job, record: Record) -> None:
        arm = by_work[job.work, job.lora]
        store.keep_outcome(arm.name, arm.key.digest, job.position, job.item.id, record)

    def failed(job: Job, error: Exception) -> None:
        keep(job, {"outcome": "failed", "error": f"{type(error).__name__}: {error}"[:500]})

    answer = place(lambda job: answered_by(by_work[job.work, job.lora], job))
    with at_station("evaluate"):
        for alone, jobs in _in_turns(arms, missing):
            run_jobs(
                answer,
                jobs,
                1 if alone else concurrency,
                keep,
                tally=tally,
                failed=failed,
                progress=progress,
                remark=lambda job: by_work[job.work, job.lora].name,
            )
    found = (store.outcomes(arm.name, arm.key.digest) for arm in arms)
    return [{item.id: cast(Record, records[item.id]) for item in items} for records in found]


def _work_of(arm: Arm) -> str:
    return f"evaluate {arm.built_as or arm.name}"


def _lora_of(arm: Arm) -> str | None:
    return str(arm.lora) if arm.lora else None


def _in_turns(arms: Sequence[Arm], missing: Sequence[list[Job]]) -> Iterator[tuple[bool, list[Job]]]:
    """Jobs in the order they are asked, in batches of which one is over before the next begins; True: one at a time."""
    together: list[Job] = []
    for arm, jobs in zip(arms, missing, strict=True):
        if arm.warm_up and jobs:
            yield False, together
            yield True, [replace(jobs[0], warm_up=True)]
            together, jobs = [], jobs[1:]
        together += jobs
    yield False, together


def answered_by(arm: Arm, job: Job) -> Record:
    """The record of one answer.

    Raises:
        dspy.LMError: A call failed.
    """
    item = job.item
    started = time.time()
    fields: Record
    try:
        with Ledger() as ledger:
            prediction = arm.program(question=item.question, context=item.context)
    except AdapterParseError as error:
        verdict, fields = Verdict(False, None, "unreadable"), {"answer": error.lm_response, "status": "unreadable"}
    else:
        verdict = arm.grade(item, prediction.answer)
        fields = {
            "answer": prediction.answer,
            "status": prediction.status,
            "reason": prediction.reason,
            "read_by": prediction.get("read_by"),
            "subquestions": list(prediction.subquestions),
            "sub_answers": prediction.sub_answers,
        }
    return {
        "outcome": "right" if verdict.right else "wrong",
        "extracted": verdict.extracted,
        "rule": verdict.rule,
        **({"score": verdict.score} if item.grader == "drop" else {}),
        "started": round(started, 3),
        "seconds": round(time.time() - started, 3),
        "usage": ledger.as_dict(),
        **({"warm_up": True} if job.warm_up else {}),
        **fields,
    }
