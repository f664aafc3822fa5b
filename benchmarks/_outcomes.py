"""Outcomes: what became of one question in one arm, as it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from divcon.distill import Exchange, RunStore

Outcome = Literal["right", "wrong", "failed"]


class Record(TypedDict, total=False):
    """One answer, graded.

    Attributes:
        outcome: `failed` where a call failed; nothing else but `error` stands beside it then.
        error: The first failure, in words.
        extracted: What the grader read as the answer; None where it found none.
        rule: By which it was graded.
        score: Of a grader with more than right and wrong (DROP's F1).
        started: Unix time.
        seconds: Until the answer.
        planned: When its plan was begun and how many seconds it took, where all plans were asked for first.
        usage: By role, as `Usage.as_dict` gives it.
        calls: The keys of its replies in the run store, in the order in which they were asked for.
        cut_off: Whether a reply of the solver ran out of tokens.
        warm_up: Whether a server or weights were loaded for it.
        answer: The program's, or the whole reply where no answer could be read.
        status: The program's: `decomposed`, `salvaged`, `whole`, `fell_back`, or `unreadable`.
        reason: Why it was salvaged or fell back, or that it was cut to the cap.
        read_by: The rule by which the answer was read.
        subquestions: The list that was solved.
        sub_answers: The solver's steps.
    """

    outcome: Outcome
    error: str
    extracted: str | None
    rule: str
    score: float
    started: float
    seconds: float
    planned: tuple[float, float]
    usage: dict[str, dict[str, Any]]
    calls: list[str]
    cut_off: bool
    warm_up: bool
    answer: str
    status: str
    reason: str | None
    read_by: str | None
    subquestions: list[str]
    sub_answers: str


Records = Mapping[str, Record]  # by item id, in the order of the items

# With a larger share of failed answers there is no score: those that are left may be the easy questions.
MAX_FAILED = 0.02


def failed_of(records: Records) -> int:
    """The number of failed answers."""
    return sum(record["outcome"] == "failed" for record in records.values())


def too_many_failed(seeds: Sequence[Records], max_failed: float) -> bool:
    """Whether answers have no score: in one of the seeds too many failed, or none was answered.

    Args:
        seeds: For each seed, the outcomes by item id.
        max_failed: The largest share of failed answers with which there is a score, from 0 to 1.
    """
    return any(
        not records or failed == len(records) or failed > max_failed * len(records)
        for records, failed in ((records, failed_of(records)) for records in seeds)
    )


def counted(records: Records, max_failed: float = MAX_FAILED) -> str:
    """How many answers are right, in words: of how many that were answered, and how many failed.

    Args:
        records: The outcomes by item id.
        max_failed: See `too_many_failed`.
    """
    failed = failed_of(records)
    if too_many_failed([records], max_failed):
        return f"no score: {failed} of {len(records)} failed"
    right = sum(record["outcome"] == "right" for record in records.values())
    return f"{right} of {len(records) - failed} right" + (f", {failed} failed" if failed else "")


def calls_of(store: RunStore, records: Mapping[str, Records]) -> dict[str, Exchange]:
    """The stored calls that some outcomes name, by their keys.

    Args:
        store: The run's store.
        records: Outcomes by arm and item id.
    """
    return store.exchanges(key for found in records.values() for one in found.values() for key in one.get("calls", ()))
