"""The rule `oracle` keeps a list if the solver reaches the gold answer with it. The student is the paper's SD-R.

One right answer in m samples is enough; m is 2 in the paper's code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from divcon.distill._stored import Trace
from divcon.distill.screening._rule import Judgement
from divcon.distill.screening._solver import Solver
from divcon.programs import Item


@dataclass(frozen=True)
class Oracle:
    """See `Rule`."""

    student: str = "sd-r"
    label: str = "SD-R"
    asks_solver: bool = True
    by_item: bool = False

    def judge(self, item: Item, traces: Sequence[Trace], solver: Solver | None) -> Sequence[Judgement]:
        """See `Rule.judge`."""
        assert solver is not None  # `screen` has checked it
        return [self._judged(item, trace, solver) for trace in traces]

    @staticmethod
    def _judged(item: Item, trace: Trace, solver: Solver) -> Judgement:
        """The first sample is the solver's ordinary answer; a further one is drawn only while none is right."""
        answers: list[str] = []
        for sample in range(solver.samples):
            answer = solver.answer(item, trace, sample)
            if answer is not None and solver.is_right(item, answer):
                return Judgement(True, "solved")
            answers.append((answer or "").strip())
        # Where all samples agree on one answer, the gold one may be wrong.
        agree = len(answers) > 1 and len(set(answers)) == 1 and bool(answers[0])
        return Judgement(False, "disputed" if agree else "unsolved")


RULE = Oracle()
