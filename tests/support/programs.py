"""Programs that hold one of ours, as a user's program would."""

from __future__ import annotations

import dspy

from divcon.programs import DivideAndConquer


class Nested(dspy.Module):
    def __init__(self, program: DivideAndConquer) -> None:
        super().__init__()
        self.inner = program

    def forward(self, question: str) -> dspy.Prediction:
        return self.inner(question=question)
