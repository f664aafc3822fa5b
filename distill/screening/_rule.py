"""The protocol of screening rules, the table of rules, and the check that comes before every rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from divcon.distill._stored import Trace
from divcon.distill._table import Table
from divcon.distill.screening._solver import Solver
from divcon.programs import Item

RECORDED = "recorded"  # the rule that judges by the outcome in a recorded teacher's file


class Judgement(NamedTuple):
    """The judgement of a rule on a trace.

    Attributes:
        kept: Whether a student learns from the trace.
        reason: The reason in a word; traces that aren't kept are counted by reason.
    """

    kept: bool
    reason: str


class Rule(Protocol):
    """A screening rule.

    Attributes:
        student: The name of the student that is trained on the traces it keeps.
        label: The student's name in reports.
        asks_solver: Whether it calls the solver, and so depends on the solver and on the grader.
        by_item: Whether it judges all well-formed traces of a question together, as voting needs, or one by one.
    """

    student: str
    label: str
    asks_solver: bool
    by_item: bool

    def judge(self, item: Item, traces: Sequence[Trace], solver: Solver | None) -> Sequence[Judgement]:
        """Judge traces of one question.

        Args:
            item: The item with the question.
            traces: All well-formed traces of the question where `by_item` is set; otherwise one of them.
            solver: The solver, for a rule that calls it; else None.

        Returns:
            A judgement for each trace.
        """


RULES: Table[Rule] = Table(
    "screening rule",
    "divcon.rules",
    {
        "none": "divcon.distill.screening._none:RULE",
        "recorded": "divcon.distill.screening._recorded:RULE",
        "oracle": "divcon.distill.screening._oracle:RULE",
    },
    needs=("student", "label", "asks_solver", "by_item", "judge"),
)


def well_formed(trace: Trace, max_subquestions: int, keep_whole: bool) -> str | None:
    """Why a trace is unusable under any rule, or None for a well-formed trace."""
    if trace.subquestions is None:
        return trace.lost or "unreadable"
    if not trace.subquestions:
        return None if keep_whole else "whole"
    return "over_long" if len(trace.subquestions) > max_subquestions else None
