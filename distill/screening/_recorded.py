"""The rule `recorded` keeps a plan that led to a right answer where it was written. It asks nobody.

The outcome stands in the recorded teacher's file, or is the reply that stands there, graded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from divcon.distill._stored import Trace
from divcon.distill.screening._rule import Judgement
from divcon.distill.screening._solver import Solver
from divcon.programs import Item
from divcon.signatures import FatalError


class UnknownOutcome(FatalError):
    """The rule `recorded` judges a question whose outcome wasn't recorded."""


@dataclass(frozen=True)
class ByRecord:
    """See `Rule`."""

    student: str = "sd-rec"
    label: str = "SD-R by the recorded outcome"
    asks_solver: bool = False
    by_item: bool = False

    def judge(self, item: Item, traces: Sequence[Trace], solver: Solver | None) -> Sequence[Judgement]:
        """See `Rule.judge`."""
        return [Judgement(right, "solved" if right else "unsolved") for right in self._outcomes(item, traces)]

    @staticmethod
    def _outcomes(item: Item, traces: Sequence[Trace]) -> Iterator[bool]:
        for trace in traces:
            right = item.plans_right[trace.sample] if trace.sample < len(item.plans_right) else None
            if right is None:
                raise UnknownOutcome(
                    f"The rule recorded needs the outcome of {item.id}, and its recorded plan has none.",
                    "Give Item.plans_right, or take another rule.",
                )
            yield right


RULE = ByRecord()
