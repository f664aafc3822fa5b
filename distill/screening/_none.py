"""The rule `none` keeps every well-formed list. The student trained on them is the paper's SD-T."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from divcon.distill._stored import Trace
from divcon.distill.screening._rule import Judgement
from divcon.distill.screening._solver import Solver
from divcon.programs import Item


@dataclass(frozen=True)
class KeepAll:
    """See `Rule`."""

    student: str = "sd-t"
    label: str = "SD-T"
    asks_solver: bool = False
    by_item: bool = False

    def judge(self, item: Item, traces: Sequence[Trace], solver: Solver | None) -> Sequence[Judgement]:
        """See `Rule.judge`."""
        return [Judgement(True, "well_formed")] * len(traces)


RULE = KeepAll()
