"""Outcomes: what became of one question in one arm, as it is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict

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
        usage: By role, as `Usage.as_dict` gives it.
        warm_up: Whether a server or weights were loaded for it.
        answer: The program's, or the whole reply where no answer could be read.
        status: The program's: `decomposed`, `salvaged`, `whole`, `fell_back`, or `unreadable`.
        reason: Why it was salvaged or fell back.
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
    usage: dict[str, dict[str, Any]]
    warm_up: bool
    answer: str
    status: str
    reason: str | None
    read_by: str | None
    subquestions: list[str]
    sub_answers: str


Records = Mapping[str, Record]  # by item id, in the order of the items
