"""Divide and conquer: decompose a question, then solve it with the subquestions (arXiv 2402.15000, section 2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import dspy

from divcon.programs._ledger import Ledger
from divcon.programs._roles import ReplyCutOff, RolePredict
from divcon.programs._talk import UNREADABLE, Talk, ahold, given, hold
from divcon.signatures import (
    DEFAULT_MAX_SUBQUESTIONS,
    Solve,
    SolveDirect,
    SolveStep,
    Subquestions,
    SubquestionsError,
    decompose_signature,
)

Solving = Literal["single_call", "direct", "stepwise", "dag"]
_ASKS = {"single_call": Solve, "direct": SolveDirect, "stepwise": SolveStep, "dag": SolveStep}
_REFERENCE = re.compile(r"#(\d+)")


class DivideAndConquer(dspy.Module):
    """Two predictors, `decompose` and `solve`, each with an LM of its own.

    The prediction carries `answer`, `sub_answers` (text, one line a subquestion), `subquestions`, `status`
    (`decomposed`; `whole`, when the decomposer said that no split helps; `fell_back`, when its reply couldn't be
    used), `reason` (why it fell back, else None), and `usage` by role.

    Args:
        decomposer: The LM that splits; may be set later as `program.decompose.lm`.
        solver: The LM that answers.
        solving: `single_call` (the paper: one call answers all subquestions and the question), `direct` (one call is
            given the subquestions and writes the answer alone), `stepwise` (a call
            a subquestion, with the earlier answers, and one for the question) or `dag` (as stepwise, but a subquestion
            waits for those alone that it refers to as `#k`, whose answers stand in for the reference; what doesn't wait
            is asked at once. A list without references is solved stepwise).
        max_subquestions: The cap that the decomposer is told. Longer lists are cut to it, since a decomposer that
            ignores the cap shouldn't cost more than one that keeps it.
        adapter: The adapter both predictors pin; `CompactAdapter` by default.

    Examples:
        >>> program = DivideAndConquer(max_subquestions=4)
        >>> [name for name, _ in program.named_predictors()]
        ['decompose', 'solve']
    """

    def __init__(
        self,
        decomposer: dspy.BaseLM | None = None,
        solver: dspy.BaseLM | None = None,
        *,
        solving: Solving = "single_call",
        max_subquestions: int = DEFAULT_MAX_SUBQUESTIONS,
        adapter: dspy.Adapter | None = None,
    ) -> None:
        super().__init__()
        if solving not in get_args(Solving):
            raise ValueError(f"solving is {solving!r}; it must be one of {', '.join(get_args(Solving))}.")
        self.solving = solving
        self.max_subquestions = max_subquestions
        self.decompose = RolePredict(
            decompose_signature(max_subquestions), "decomposer", lm=decomposer, adapter=adapter, refuse_cut_off=True
        )
        self.solve = RolePredict(_ASKS[solving], "solver", lm=solver, adapter=adapter)

    @property
    def _stepwise(self) -> bool:
        return self.solving in ("stepwise", "dag")

    def forward(self, question: str, context: str | None = None) -> dspy.Prediction:
        """Split and answer one question.

        Args:
            question: The question.
            context: A passage it is about, if any.

        Raises:
            RoleWithoutEndpoint: A role has no LM.
            dspy.LMError: An LM couldn't be reached or refused. A reply of the decomposer that can't be read is no
                error: the question goes to the solver whole. A reply of the solver that can't be read is one
                (`AdapterParseError`).
        """
        with Ledger() as ledger:
            return hold(self._talk(question, given(context), ledger))

    async def aforward(self, question: str, context: str | None = None) -> dspy.Prediction:
        """`forward`, awaited."""
        with Ledger() as ledger:
            return await ahold(self._talk(question, given(context), ledger))

    def _talk(self, question: str, context: str | None, ledger: Ledger) -> Talk:
        try:
            [split] = yield [(self.decompose, {"question": question, "context": context})]
            subquestions, status, reason = self._accept(split.subquestions)
        except UNREADABLE as error:
            subquestions, status, reason = Subquestions(), "fell_back", why_refused(error)
        if not self._stepwise or not subquestions.items:
            [solved] = yield [(self.solve, self._whole(question, context, subquestions))]
            return self._prediction(subquestions, status, reason, solved, ledger)
        plan = _Plan(question, context, subquestions, self.solving)
        while asked := plan.ready():
            replies = yield [(self.solve, inputs) for inputs in asked]
            plan.note([step.sub_answer for step in replies])
        [solved] = yield [(self.solve, plan.last())]
        return self._prediction(subquestions, status, reason, solved, ledger, plan.lines())

    def _accept(self, subquestions: Subquestions) -> tuple[Subquestions, str, str | None]:
        if not len(subquestions):
            return subquestions, "whole", None
        return Subquestions(subquestions.items[: self.max_subquestions]), "decomposed", None

    def _whole(self, question: str, context: str | None, subquestions: Subquestions) -> dict[str, Any]:
        if self._stepwise:
            return {"question": question, "context": context, "subquestion": question}
        return {"question": question, "context": context, "subquestions": subquestions}

    def _prediction(
        self,
        subquestions: Subquestions,
        status: str,
        reason: str | None,
        solved: dspy.Prediction,
        ledger: Ledger,
        steps: list[str] | None = None,
    ) -> dspy.Prediction:
        return dspy.Prediction(
            subquestions=subquestions,
            sub_answers=solved.get("sub_answers", "\n".join(steps or [])),
            status=status,
            reason=reason,
            usage=ledger.as_dict(),
            answer=solved.sub_answer if self._stepwise else solved.answer,  # last, where dspy.majority looks
        )


class _Plan:
    """Which subquestions can be asked now, and what has been answered.

    Args:
        question: The question.
        context: A passage it is about, or None.
        subquestions: Its decomposition.
        solving: `stepwise` or `dag`.
    """

    def __init__(self, question: str, context: str | None, subquestions: Subquestions, solving: Solving) -> None:
        self._about = {"question": question, "context": context}
        self._question = question
        self._asked = list(subquestions)
        self._substituting = solving == "dag"
        self._waits = _waits(self._asked, solving)
        self._answers: dict[int, str] = {}
        self._running: list[int] = []

    def ready(self) -> list[dict[str, Any]]:
        """The inputs of the subquestions that wait for nothing more; empty when all are answered."""
        self._running = [
            number
            for number, before in enumerate(self._waits, 1)
            if number not in self._answers and all(other in self._answers for other in before)
        ]
        return [
            {**self._about, "steps": self._steps(self._waits[number - 1]), "subquestion": self._text(number)}
            for number in self._running
        ]

    def note(self, answers: list[str]) -> None:
        """Take the answers of what `ready` gave, in its order."""
        self._answers.update(zip(self._running, answers, strict=True))

    def last(self) -> dict[str, Any]:
        """The inputs of the call that answers the question itself."""
        return {**self._about, "steps": self._steps(range(1, len(self._asked) + 1)), "subquestion": self._question}

    def lines(self) -> list[str]:
        """A line a subquestion, with its answer."""
        return [f"{number}. {self._text(number)} {self._answers[number]}" for number in sorted(self._answers)]

    def _steps(self, numbers: Iterable[int]) -> str | None:
        return "\n".join(f"{number}. {self._text(number)} {self._answers[number]}" for number in numbers) or None

    def _text(self, number: int) -> str:
        text = self._asked[number - 1]
        if not self._substituting:
            return text
        before = self._waits[number - 1]
        return _REFERENCE.sub(lambda ref: self._answers[int(ref[1])] if int(ref[1]) in before else ref[0], text)


def _waits(asked: Sequence[str], solving: Solving) -> list[list[int]]:
    """For each subquestion the numbers of those it waits for; a reference to itself or a later one is none."""
    referred = [
        sorted({int(ref) for ref in _REFERENCE.findall(text) if 0 < int(ref) < number})
        for number, text in enumerate(asked, 1)
    ]
    if solving == "stepwise" or not any(referred):
        return [list(range(1, number)) for number in range(1, len(asked) + 1)]
    return referred


def why_refused(error: Exception) -> str:
    """The name under which a refused decomposition is counted."""
    if isinstance(error, ReplyCutOff):
        return "cut_off"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SubquestionsError):
            return cause.reason
        cause = cause.__cause__
    return "unreadable"
