"""Calls of the solver with a trace's subquestions, for screening and for the solver's students."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from divcon.distill._stored import Trace
from divcon.programs import Item, RolePredict
from divcon.signatures import Subquestions

Grade = Callable[[Item, str], bool]


@dataclass(frozen=True)
class Solver:
    """The solver's predictor, and the grader of its answers.

    Attributes:
        solve: The predictor, of the signature `Solve`.
        is_right: Says whether an answer to an item is right.
        samples: The number of answers that a rule may sample for one trace.
        temperature: The sampling temperature after the first sample; None leaves it to the LM.
    """

    solve: RolePredict
    is_right: Grade
    samples: int = 2
    temperature: float | None = 0.7

    def answer(self, item: Item, trace: Trace, sample: int = 0) -> str | None:
        """The solver's answer to the item with a trace's subquestions; None where it can't be read."""
        solved = solve_trace(self.solve, item, trace, sample, self.temperature)
        return None if solved is None else str(solved.answer)


def solve_trace(
    solve: RolePredict, item: Item, trace: Trace, sample: int = 0, temperature: float | None = None
) -> dspy.Prediction | None:
    """The solver's prediction with a trace's subquestions; None where its reply can't be read.

    Sample 0 is the solver's ordinary answer. Every station makes the same call for it, and so shares the stored reply.

    Raises:
        dspy.LMError: The call failed.
    """
    config: dict[str, Any] = {"rollout_id": sample} if sample else {}
    if sample and temperature is not None:
        config["temperature"] = temperature
    try:
        return solve(
            question=item.question,
            context=item.context,
            subquestions=Subquestions(trace.subquestions or ()),
            config=config,
        )
    except AdapterParseError:
        return None
