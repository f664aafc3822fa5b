"""Replaying: a program that ran elsewhere, by the plans and replies that were recorded of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import dspy
from dspy.utils.exceptions import AdapterParseError, LMInvalidRequestError

from divcon.benchmarks._recorded import Recording, one_line
from divcon.programs import Item
from divcon.signatures import Solve, Subquestions, SubquestionsError, read_answer


class RecordedProgram(dspy.Module):
    """A program that ran elsewhere: it replays the plan and the reply that were recorded for a question.

    It calls no model and has no usage. A reply without a readable answer, and so one that is null or empty, is an
    `AdapterParseError`, as it is from a solver.

    Args:
        recording: The file.
        items: The questions that it may be asked.
        beside: Other questions of the task; see `Recording.match`.
    """

    def __init__(self, recording: Recording, items: Sequence[Item], beside: Sequence[Item] = ()) -> None:
        super().__init__()
        self._name = recording.file.name
        self._by_id = recording.match(items, beside).first
        self._by_text = {
            (one_line(item.question), one_line(item.context or "")): self._by_id[item.id]
            for item in items
            if item.id in self._by_id
        }

    @cached_property
    def splits(self) -> bool:
        """Whether any row has a plan."""
        return any(_steps(row.plan or "") for row in self._by_id.values())

    def forward(self, question: str, context: str | None = None, id: str | None = None) -> dspy.Prediction:
        """Replay a question's row.

        Args:
            question: The question.
            context: Its passage.
            id: Its id, where several questions have the same text and passage.

        Raises:
            dspy.LMInvalidRequestError: The question has no row.
            AdapterParseError: Its reply has no readable answer.
        """
        row = self._by_id.get(id) if id else self._by_text.get((one_line(question), one_line(context or "")))
        if row is None:
            asked = one_line(question)[:80]
            raise LMInvalidRequestError(f"{self._name} has no row for the question '{asked}'.", model="recorded")
        reply = row.reply or ""
        found = read_answer(reply, steps=True)
        if found is None:
            raise AdapterParseError(adapter_name="RecordedProgram", signature=Solve, lm_response=reply)
        steps = _steps(row.plan or "")
        return dspy.Prediction(
            subquestions=steps,
            sub_answers=found.before,
            status="decomposed" if steps else "whole",
            reason=None,
            read_by=found.rule,
            answer=found.text,
        )


def _steps(plan: str) -> Sequence[str]:
    """The subquestions of a plan; its lines where the reader refuses it, since the program ran with it all the same."""
    try:
        return Subquestions.read(plan).items
    except SubquestionsError:
        return [line.strip() for line in plan.splitlines() if line.strip()]
