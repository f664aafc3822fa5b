"""What a decomposition has to beat: the same solver asked once, without and with room to reason.

The paper's single-stage prompt forbids reasoning, so most of its gain may be the permission to reason. Both
baselines here take the program's inputs and give `answer`, `status` and `usage` in the program's form.
"""

from __future__ import annotations

from typing import Any

import dspy

from divcon.programs._ledger import Ledger
from divcon.programs._roles import RolePredict
from divcon.programs._talk import given
from divcon.signatures import Answer, Reason, Subquestions


class _SingleStage(dspy.Module):
    _asks: Any

    def __init__(self, solver: dspy.BaseLM | None = None, *, adapter: dspy.Adapter | None = None) -> None:
        super().__init__()
        self.solve = RolePredict(self._asks, "solver", lm=solver, adapter=adapter)

    def forward(self, question: str, context: str | None = None) -> dspy.Prediction:
        """Answer one question; see the class."""
        with Ledger() as ledger:
            return self._prediction(self.solve(question=question, context=given(context)), ledger)

    async def aforward(self, question: str, context: str | None = None) -> dspy.Prediction:
        """`forward`, awaited."""
        with Ledger() as ledger:
            return self._prediction(await self.solve.acall(question=question, context=given(context)), ledger)

    @staticmethod
    def _prediction(solved: dspy.Prediction, ledger: Ledger) -> dspy.Prediction:
        return dspy.Prediction(
            subquestions=Subquestions(),
            sub_answers=solved.get("reasoning", ""),
            status="whole",
            reason=None,
            usage=ledger.as_dict(),
            answer=solved.answer,
        )


class Direct(_SingleStage):
    """The solver answers at once."""

    _asks = Answer


class ChainOfThought(_SingleStage):
    """The solver reasons step by step, then answers."""

    _asks = Reason
