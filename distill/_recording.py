"""Recording: the inputs and outputs of the planner of any program, while the program runs."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from divcon.programs import RolePredict
from divcon.signatures import Subquestions


@dataclass(frozen=True)
class PlannerCall:
    """One call of the planner: inputs and outputs by field."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]


class RecordedPlanner(RolePredict):
    """The planner of a program that is recorded: it copies the inputs and outputs of each of its calls.

    DSPy's trace isn't enough. It holds the program's own objects, which the program may change later
    (`steps.pop(0)`), and in copies of the program (BestOfN) the planner is another object.
    """

    def forward(self, **kwargs: Any) -> dspy.Prediction:
        asked = copy.deepcopy(self._asked(kwargs))
        return self._noted(asked, super().forward(**kwargs))

    async def aforward(self, **kwargs: Any) -> dspy.Prediction:
        asked = copy.deepcopy(self._asked(kwargs))
        return self._noted(asked, await super().aforward(**kwargs))

    def _asked(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        fields = self.signature.input_fields.items()
        return {name: kwargs.get(name, None if field.is_required() else field.default) for name, field in fields}

    @staticmethod
    def _noted(asked: dict[str, Any], prediction: dspy.Prediction) -> dspy.Prediction:
        if (notes := _notes.get()) is not None:
            notes.append((prediction, PlannerCall(asked, copy.deepcopy(dict(prediction)))))
        return prediction


_notes: contextvars.ContextVar[list[tuple[dspy.Prediction, PlannerCall]] | None] = contextvars.ContextVar(
    "divcon_planner_notes", default=None
)


@contextlib.contextmanager
def recording() -> Iterator[list[tuple[dspy.Prediction, PlannerCall]]]:
    """Collect the calls of recorded planners inside the block, each with its prediction."""
    notes: list[tuple[dspy.Prediction, PlannerCall]] = []
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def run_program(program: dspy.Module, example: dspy.Example) -> Any:
    """Run the program once; a program that has only `aforward` is awaited in this thread."""
    if hasattr(type(program), "forward"):
        return program(**example.inputs())
    return asyncio.run(program.acall(**example.inputs()))


def why_unusable(program: dspy.Module, student: RolePredict, row: PlannerCall) -> str | None:
    """Why a call can't be learnt from, or None: its list is empty or too long, or its reply can't be read back."""
    reply = student.training_row(row.inputs, row.outputs)["completion"][0]["content"]
    try:
        read = student.adapter.parse(student.signature, reply)
        again = student.adapter.format_assistant_message_content(student.signature, read)
    except AdapterParseError:
        return "unreadable"
    if again != reply:
        return "unreadable"
    cap = getattr(program, "max_subquestions", None)
    for value in row.outputs.values():
        if isinstance(value, Subquestions):
            if not len(value):
                return "whole"
            if cap is not None and len(value) > cap:
                return "over_long"
    return None
