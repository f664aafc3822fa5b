"""`OneRole`: shows an optimizer one predictor of a program; SIMBA, BestOfN and Refine refuse a program of two LMs."""

from __future__ import annotations

from typing import Any

import dspy

from divcon.programs._arguments import require_program
from divcon.signatures import UnusableArgument


class OneRole(dspy.Module):
    """A program that shows one of its predictors; the others run too, but an optimizer can't change them.

    Examples:
        >>> from divcon.programs import DivideAndConquer
        >>> [name for name, _ in OneRole(DivideAndConquer(), "decompose").named_predictors()]
        ['program.decompose']

    Args:
        program: The whole program; it is what runs.
        predictor: The name of the predictor that is shown, as `named_predictors()` has it.

    Raises:
        UnusableArgument: The program has no such predictor, or is none.
    """

    def __init__(self, program: dspy.Module, predictor: str) -> None:
        super().__init__()
        require_program(program)
        names = [name for name, _ in program.named_predictors()]
        if predictor not in names:
            raise UnusableArgument(
                f"The program has no predictor {predictor!r}; it has {', '.join(names) or 'none'}.", "Name one of them."
            )
        self.program = program
        self.predictor = predictor

    def named_parameters(self) -> list[tuple[str, Any]]:
        """DSPy's hook: only the predictor that is shown."""
        return [
            (f"program.{name}", parameter)
            for name, parameter in self.program.named_parameters()
            if name == self.predictor
        ]

    def forward(self, **inputs: Any) -> dspy.Prediction:
        before = self._traced()
        prediction = self.program(**inputs)
        self._hide(before)
        return prediction

    async def aforward(self, **inputs: Any) -> dspy.Prediction:
        before = self._traced()
        prediction = await self.program.acall(**inputs)
        self._hide(before)
        return prediction

    @staticmethod
    def _traced() -> int:
        return len(dspy.settings.trace or [])

    def _hide(self, before: int) -> None:
        # Optimizers look up every predictor of a trace among those that are shown.
        trace = dspy.settings.trace
        if trace:
            shown = {id(parameter) for _, parameter in self.named_parameters()}
            trace[before:] = [entry for entry in trace[before:] if id(entry[0]) in shown]
