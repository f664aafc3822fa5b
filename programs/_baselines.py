"""The baselines: the same solver asked once, for the answer alone or for reasoning and the answer.

The paper's single-stage prompt forbids reasoning, so most of its gain may come from the permission to reason. Both
baselines have the inputs of `DivideAndConquer`, and its prediction's fields.
"""

from __future__ import annotations

from typing import Any

import dspy

from divcon.programs._adapter import CompactAdapter
from divcon.programs._calls import Calls
from divcon.programs._ledger import Ledger
from divcon.programs._prediction import ProgramPrediction
from divcon.programs._program import RoleProgram
from divcon.programs._wording import Wording, require_wordings
from divcon.signatures import Answer, Reason, Subquestions

# An answer alone takes at most so many tokens. A model that reasons all the same is stopped there, so that its figures
# are those of a direct answer.
DIRECT_TOKENS = 32


class _SingleStage(RoleProgram):
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
        require_wordings(wording)
        self.wording = wording or Wording()
        self.solve = self.wording.predictor(self._asks, "solver", solver, adapter, reask=reask)

    def _calls(self, question: str, context: str | None, ledger: Ledger) -> Calls:
        [solved] = yield [(self.solve, self._inputs(question, context))]
        return self._prediction(solved, ledger)

    def _inputs(self, question: str, context: str | None) -> dict[str, Any]:
        return {"question": question, "context": context}

    @staticmethod
    def _prediction(solved: dspy.Prediction, ledger: Ledger) -> dspy.Prediction:
        return ProgramPrediction(
            subquestions=Subquestions(),
            sub_answers=solved.get("reasoning", ""),
            status="whole",
            reason=None,
            read_by=solved.get("read_by"),
            usage=ledger.as_dict(),
            answer=solved.answer,
        )


class Direct(_SingleStage):
    """The solver answers without reasoning.

    Its demonstrations show answers alone. Its reply ends after `DIRECT_TOKENS` tokens, and with `CompactAdapter` after
    its first line. A model that takes no such limits (OpenAI's reasoning ones) reasons all the same; its usage shows
    the tokens.
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
