"""Divide and conquer: decompose a question, then solve it with the subquestions (arXiv 2402.15000, section 2)."""

from __future__ import annotations

from typing import Any, Literal

import dspy
from dspy.utils.exceptions import AdapterParseError

from divcon.programs._ledger import Ledger
from divcon.programs._roles import ReplyCutOff, RolePredict
from divcon.signatures import (
    DEFAULT_MAX_SUBQUESTIONS,
    Solve,
    SolveStep,
    Subquestions,
    SubquestionsError,
    decompose_signature,
)

Solving = Literal["single_call", "stepwise"]


class DivideAndConquer(dspy.Module):
    """Two predictors, `decompose` and `solve`, each with an LM of its own.

    The prediction carries `answer`, `sub_answers` (text, one line a subquestion), `subquestions`, `status`
    (`decomposed`; `whole`, when the decomposer said that no split helps; `fell_back`, when its reply couldn't be
    used), `reason` (why it fell back, else None), and `usage` by role.

    Args:
        decomposer: The LM that splits; may be set later as `program.decompose.lm`.
        solver: The LM that answers.
        solving: `single_call` (the paper: one call answers all subquestions and the question) or `stepwise` (a call
            a subquestion, with the earlier answers, and one for the question).
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
        if solving not in ("single_call", "stepwise"):
            raise ValueError(f"solving is {solving!r}; it must be 'single_call' or 'stepwise'.")
        self.solving = solving
        self.max_subquestions = max_subquestions
        self.decompose = RolePredict(
            decompose_signature(max_subquestions), "decomposer", lm=decomposer, adapter=adapter, refuse_cut_off=True
        )
        self.solve = RolePredict(Solve if solving == "single_call" else SolveStep, "solver", lm=solver, adapter=adapter)

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
        context = _given(context)
        with Ledger() as ledger:
            try:
                split = self.decompose(question=question, context=context)
                subquestions, status, reason = self._accept(split.subquestions)
            except (AdapterParseError, SubquestionsError) as error:
                subquestions, status, reason = Subquestions(), "fell_back", why_refused(error)
            if self.solving == "single_call" or not subquestions.items:
                solved = self.solve(**self._whole(question, context, subquestions))
                return self._prediction(subquestions, status, reason, solved, ledger)
            steps: list[str] = []
            for number, subquestion in enumerate(subquestions, 1):
                step = self.solve(question=question, context=context, steps=_joined(steps), subquestion=subquestion)
                steps.append(f"{number}. {subquestion} {step.sub_answer}")
            solved = self.solve(question=question, context=context, steps=_joined(steps), subquestion=question)
            return self._prediction(subquestions, status, reason, solved, ledger, steps)

    async def aforward(self, question: str, context: str | None = None) -> dspy.Prediction:
        """`forward`, awaited."""
        context = _given(context)
        with Ledger() as ledger:
            try:
                split = await self.decompose.acall(question=question, context=context)
                subquestions, status, reason = self._accept(split.subquestions)
            except (AdapterParseError, SubquestionsError) as error:
                subquestions, status, reason = Subquestions(), "fell_back", why_refused(error)
            if self.solving == "single_call" or not subquestions.items:
                solved = await self.solve.acall(**self._whole(question, context, subquestions))
                return self._prediction(subquestions, status, reason, solved, ledger)
            steps: list[str] = []
            for number, subquestion in enumerate(subquestions, 1):
                step = await self.solve.acall(
                    question=question, context=context, steps=_joined(steps), subquestion=subquestion
                )
                steps.append(f"{number}. {subquestion} {step.sub_answer}")
            solved = await self.solve.acall(
                question=question, context=context, steps=_joined(steps), subquestion=question
            )
            return self._prediction(subquestions, status, reason, solved, ledger, steps)

    def _accept(self, subquestions: Subquestions) -> tuple[Subquestions, str, str | None]:
        if not len(subquestions):
            return subquestions, "whole", None
        return Subquestions(subquestions.items[: self.max_subquestions]), "decomposed", None

    def _whole(self, question: str, context: str | None, subquestions: Subquestions) -> dict[str, Any]:
        if self.solving == "stepwise":
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
        single = self.solving == "single_call"
        return dspy.Prediction(
            subquestions=subquestions,
            sub_answers=solved.sub_answers if single else "\n".join(steps or []),
            status=status,
            reason=reason,
            usage=ledger.as_dict(),
            answer=solved.answer if single else solved.sub_answer,  # last, where dspy.majority looks
        )


def _given(context: str | None) -> str | None:
    return context if context and context.strip() else None


def _joined(steps: list[str]) -> str | None:
    return "\n".join(steps) or None


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
