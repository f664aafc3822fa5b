"""Evaluate: every arm on the same held-out questions, three-valued, with usage by role."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import dspy
from dspy.utils.exceptions import AdapterParseError

from divcon.benchmarks._graders import Verdict, grade
from divcon.distill import RunStore, at_station, overlapped
from divcon.programs import Item, Ledger

Outcome = Literal["right", "wrong", "failed"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: `direct`, `cot`, `teacher`, `untuned`, `sd-t`, `sd-r`.
        program: What answers.
        fingerprint: Changes with anything that could change an answer.
        label: As people read it.
        warm_up: Whether the first question is asked alone and left out of the arm's time, since a server or weights
            are loaded for it.
        local: The roles that a student answers.
        prices: US dollars per million tokens by role, where they are known now.
        grade: Judges an answer; part of the fingerprint where it isn't the strict one.
    """

    name: str
    program: dspy.Module
    fingerprint: str
    label: str
    warm_up: bool = False
    local: tuple[str, ...] = ()
    prices: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    grade: Callable[[Item, str], Verdict] = grade


def evaluate_arm(
    arm: Arm,
    items: Sequence[Item],
    store: RunStore,
    *,
    concurrency: int = 64,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """`evaluate_arms` of one arm: its records by item id."""
    return evaluate_arms([arm], items, store, concurrency=concurrency, progress=progress)[0]


def evaluate_arms(
    arms: Sequence[Arm],
    items: Sequence[Item],
    store: RunStore,
    *,
    concurrency: int = 64,
    progress: Progress | None = None,
) -> list[dict[str, dict[str, Any]]]:
    """Answer every item with every arm, and keep each outcome in the store.

    The arms share one pool: the next one begins while the last answers of the one before are under way. An arm that
    has to be warmed up begins when nothing else runs.

    `progress` is called with the arm that was answered last, and how many answers of all arms are there.

    What the store holds for an arm's fingerprint is not asked again, but for items that failed. A call that failed
    gives `failed`, never `wrong`; a solver's reply without a readable answer is `wrong` by the rule `unreadable`. A
    record says by which rule its answer was read (`read_by`), and by which it was graded (`rule`).

    Returns:
        Records by item id, in the order of the items; one dict an arm.
    """
    missing: list[list[_Job]] = []
    for arm in arms:
        there = store.outcomes(arm.name, arm.fingerprint)
        answered = {key for key, record in there.items() if record["outcome"] != "failed"}
        missing.append([_Job(arm, at, item) for at, item in enumerate(items) if item.id not in answered])
    total = len(arms) * len(items)
    done = total - sum(map(len, missing))
    if progress and arms:
        progress(arms[0].name, done, total)

    with at_station("evaluate"):
        for alone, jobs in _in_turns(arms, missing):
            for job, record, error in overlapped(_answer, jobs, 1 if alone else concurrency):
                kept = record or {"outcome": "failed", "error": f"{type(error).__name__}: {error}"[:500]}
                store.keep_outcome(job.arm.name, job.arm.fingerprint, job.position, job.item.id, kept)
                done += 1
                if progress:
                    progress(job.arm.name, done, total)
    found = (store.outcomes(arm.name, arm.fingerprint) for arm in arms)
    return [{item.id: records[item.id] for item in items} for records in found]


@dataclass(frozen=True)
class _Job:
    arm: Arm
    position: int
    item: Item
    first: bool = False  # asked alone, to warm up


def _in_turns(arms: Sequence[Arm], missing: Sequence[list[_Job]]) -> Iterator[tuple[bool, list[_Job]]]:
    """Jobs in the order they are asked, in batches of which one is over before the next begins; True: one at a time."""
    together: list[_Job] = []
    for arm, jobs in zip(arms, missing, strict=True):
        if arm.warm_up and jobs:
            yield False, together
            yield True, [replace(jobs[0], first=True)]
            together, jobs = [], jobs[1:]
        together += jobs
    yield False, together


def _answer(job: _Job) -> dict[str, Any]:
    item = job.item
    started = time.time()
    fields: dict[str, Any]
    try:
        with Ledger() as ledger:
            prediction = job.arm.program(question=item.question, context=item.context)
    except AdapterParseError as error:
        verdict, fields = Verdict(False, None, "unreadable"), {"answer": error.lm_response, "status": "unreadable"}
    else:
        verdict = job.arm.grade(item, prediction.answer)
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
        **({"warm_up": True} if job.first else {}),
        **fields,
    }
