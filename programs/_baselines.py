"""What a decomposition has to beat: the same solver asked once, without and with room to reason.

The paper's single-stage prompt forbids reasoning, so most of its gain may be the permission to reason. Both
baselines here take the program's inputs and give `answer`, `status`, `read_by` and `usage` in the program's form.
"""

from __future__ import annotations

from typing import Any

import dspy

from divcon.programs._adapter import CompactAdapter
from divcon.programs._ledger import Ledger
from divcon.programs._roles import RolePredict, Wording
from divcon.programs._talk import given
from divcon.signatures import Answer, Reason, Subquestions

# Tokens that an answer alone takes at most. A model that reasons all the same is stopped there, and so its row shows
# what it costs and gives to answer at once.
DIRECT_TOKENS = 32


def solver_role(
    signature: type[dspy.Signature],
    lm: dspy.BaseLM | None,
    adapter: dspy.Adapter | None,
    wording: Wording,
    reask: int = 1,
) -> RolePredict:
    """A solver's predictor: asked in its wording, and once more for the last line of a reply that can't be read."""
    return RolePredict(
        wording.of(signature), "solver", lm=lm, adapter=adapter or CompactAdapter(wording.labels),
        demos=wording.shown(signature), reask=reask,
    )  # fmt: skip


class _SingleStage(dspy.Module):
    _asks: Any

    def __init__(
        self,
        solver: dspy.BaseLM | None = None,
        *,
        adapter: dspy.Adapter | None = None,
        wording: Wording | None = None,
        reask: int = 1,
    ) -> None:
        super().__init__()
        self.wording = wording or Wording()
        self.solve = solver_role(self._asks, solver, adapter, self.wording, reask)

    def forward(self, question: str, context: str | None = None) -> dspy.Prediction:
        """Answer one question; see the class."""
        with Ledger() as ledger:
            return self._prediction(self.solve(**self._inputs(question, context)), ledger)

    async def aforward(self, question: str, context: str | None = None) -> dspy.Prediction:
        """`forward`, awaited."""
        with Ledger() as ledger:
            return self._prediction(await self.solve.acall(**self._inputs(question, context)), ledger)

    def _inputs(self, question: str, context: str | None) -> dict[str, Any]:
        return {"question": question, "context": given(context)}

    @staticmethod
    def _prediction(solved: dspy.Prediction, ledger: Ledger) -> dspy.Prediction:
        return dspy.Prediction(
            subquestions=Subquestions(),
            sub_answers=solved.get("reasoning", ""),
            status="whole",
            reason=None,
            read_by=solved.get("read_by"),
            usage=ledger.as_dict(),
            answer=solved.answer,
        )


class Direct(_SingleStage):
    """The solver answers at once.

    It is held to that: it is shown answers alone, and its reply ends at the end of its first line, where the adapter
    writes the reply alone, and after `DIRECT_TOKENS` tokens. A model that takes no such limits (OpenAI's reasoning
    ones) is left to think, and its tokens show it.
    """

    _asks = Answer

    def _inputs(self, question: str, context: str | None) -> dict[str, Any]:
        inputs = super()._inputs(question, context)
        if not self.wording.demonstrate or "max_completion_tokens" in getattr(self.solve.lm, "kwargs", {}):
            return inputs
        config: dict[str, Any] = {"max_tokens": DIRECT_TOKENS}
        if isinstance(self.solve.adapter, CompactAdapter):
            config["stop"] = ["\n"]
        else:
            config["max_tokens"] += DIRECT_TOKENS  # DSPy's markers stand around the answer
        return {**inputs, "config": config}


class ChainOfThought(_SingleStage):
    """The solver reasons step by step, then answers."""

    _asks = Reason
