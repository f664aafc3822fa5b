"""What a screening rule is, the table of rules, and what is refused whatever the rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from divcon.distill._store import Trace
from divcon.distill._table import Table
from divcon.distill.screening._solver import Solver
from divcon.programs import Item


class Judgement(NamedTuple):
    """What a rule says of a trace.

    Attributes:
        kept: Whether a student learns from it.
        reason: Why, in a word; those that aren't kept are counted by it.
    """

    kept: bool
    reason: str


class Rule(Protocol):
    """A screening rule.

    Attributes:
        student: The name of the student that learns what it keeps.
        label: The student's name as people read it.
        asks_solver: Whether it asks the solver, and so depends on it and on the grader, and costs its calls.
        by_item: Whether it judges all well-formed traces of a question at once, as voting has to; one by one otherwise.
    """

    student: str
    label: str
    asks_solver: bool
    by_item: bool

    def judge(self, item: Item, traces: Sequence[Trace], solver: Solver | None) -> Sequence[Judgement]:
        """Judge traces of one question.

        Args:
            item: The question.
            traces: Well-formed traces; one of them, unless `by_item`.
            solver: For a rule that asks it.

        Returns:
            A judgement for each trace.
        """


RULES: Table[Rule] = Table(
    "screening rule",
    "divcon.rules",
    {"none": "divcon.distill.screening._none:RULE", "oracle": "divcon.distill.screening._oracle:RULE"},
)


def well_formed(trace: Trace, max_subquestions: int, keep_whole: bool) -> str | None:
    """Why a trace is unusable whatever it leads to, or None."""
    if trace.subquestions is None:
        return trace.lost or "unreadable"
    if not trace.subquestions:
        return None if keep_whole else "whole"
    return "over_long" if len(trace.subquestions) > max_subquestions else None
