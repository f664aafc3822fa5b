"""What divcon's programs share: they check inputs and roles before the first call, and run sync or async."""

from __future__ import annotations

import dspy

from divcon.programs._arguments import require_context, require_question
from divcon.programs._calls import Calls, arun_calls, run_calls
from divcon.programs._ledger import Ledger
from divcon.programs._roles import RolePredict


class RoleProgram(dspy.Module):
    """A program whose predictors are `RolePredict`s. Printed, it shows each role with its model."""

    def forward(self, question: str, context: str | None = None) -> dspy.Prediction:
        """Answer one question. Inputs and all roles are checked before the first call.

        Args:
            question: The question.
            context: A passage it is about, if any.

        Raises:
            UnusableArgument: The question is blank or isn't text, or the context isn't text.
            RoleWithoutEndpoint: A role has no LM.
            NotAnEndpoint: A role has something that is no LM.
            ForeignEndpoint: A role is trained, and its LM doesn't serve its adapter.
            dspy.LMError: An LM couldn't be reached or refused.
            AdapterParseError: The solver's reply can't be read.
        """
        calls, ledger = self._begun(question, context)
        with ledger:
            return run_calls(calls)

    async def aforward(self, question: str, context: str | None = None) -> dspy.Prediction:
        """`forward`, awaited."""
        calls, ledger = self._begun(question, context)
        with ledger:
            return await arun_calls(calls)

    def __repr__(self) -> str:
        roles = [f"  {role!r}" for _, role in self.named_sub_modules(RolePredict)]
        return "\n".join([type(self).__name__, *roles])

    def _begun(self, question: str, context: str | None) -> tuple[Calls, Ledger]:
        question, context = require_question(question), require_context(context)
        for _, role in self.named_sub_modules(RolePredict):
            role.require_endpoint()
        ledger = Ledger()
        return self._calls(question, context, ledger), ledger

    def _calls(self, question: str, context: str | None, ledger: Ledger) -> Calls:
        """The calls for a question, as a generator; see `divcon.programs._calls`."""
        raise NotImplementedError
