"""The precheck: whether it is worth it to move a planner, before anyone pays for a training."""

from divcon.precheck._precheck import QUESTIONS, Precheck
from divcon.precheck._verdict import STATUSES, Difference, Findings, Verdict, judge, next_commands, which_half

__all__ = [
    "QUESTIONS",
    "STATUSES",
    "Difference",
    "Findings",
    "Precheck",
    "Verdict",
    "judge",
    "next_commands",
    "which_half",
]
