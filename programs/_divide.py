"""The two-stage program: decompose a question, then solve it with the subquestions (arXiv 2402.15000, section 2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Literal, get_args

import dspy

from divcon.programs._arguments import require_whole_number
from divcon.programs._calls import UNREADABLE, Calls
from divcon.programs._ledger import Ledger
from divcon.programs._prediction import ProgramPrediction
from divcon.programs._program import RoleProgram
from divcon.programs._roles import ReplyCutOff, items_in
from divcon.programs._wording import Wording, require_wordings
from divcon.signatures import (
    DEFAULT_MAX_SUBQUESTIONS,
    Reason,
    Solve,
    SolveDirect,
    SolveStep,
    Subquestions,
    SubquestionsError,
    UnusableArgument,
    decompose_signature,
)

Solving = Literal["single_call", "direct", "stepwise", "dag"]
_ASKS = {"single_call": Solve, "direct": SolveDirect, "stepwise": SolveStep, "dag": SolveStep}
_SALVAGED = ("duplicate", "cut_off")  # reasons of refusal that leave whole subquestions to use
_REFERENCE = re.compile(r"#(\d+)")  # "How old is #1?"


class DivideAndConquer(RoleProgram):
    """Two predictors, `decompose` and `solve`, each with an LM of its own.

    The prediction's fields:

    - `answer`, and `read_by`: the rule that found it (see `divcon.signatures.Reading`), or `reask` where the solver was
      asked again for its answer alone.
    - `subquestions`, and `sub_answers`: the solver's steps, as text.
    - `status`: `decomposed`; `salvaged` (the decomposer's list repeats itself or was cut off, and its whole
      subquestions were used); `whole` (the decomposer said that no split helps); or `fell_back` (the decomposer's reply
      couldn't be used).
    - `reason`: why the list was salvaged, or why the program fell back; `over_long` where a list was cut to the cap.
    - `usage`, by role.

    A question without subquestions is asked of the solver exactly as `ChainOfThought` asks it. Where the decomposer's
    reply can't be read, that is no error: the question goes to the solver whole.

    Args:
        decomposer: The LM that splits; may be set later as `program.decompose.lm`.
        solver: The LM that answers.
        solving: How the solver is called.

            - `single_call`: one call answers all subquestions and the question, as in the paper.
            - `direct`: one call is given the subquestions and writes the answer alone.
            - `stepwise`: each subquestion is a call, which is given the earlier answers; the question is the last call.
            - `dag`: as `stepwise`, but a subquestion waits only for those that it refers to as `#k`. Their answers
              replace the references, and subquestions that wait for nothing are asked together. A list without
              references is solved stepwise.
        max_subquestions: The cap in the decomposer's instruction. Longer lists are cut to it, so that a decomposer that
            ignores the cap costs no more than one that keeps it.
        allow_whole: Let the decomposer write that no split helps. Small models then write it of every question.
        salvage: Use the whole subquestions of a list that repeats itself or is cut off.
        reask: How often the solver is asked again, for the answer alone, where its reply can't be read: 0 or 1.
        decomposer_wording: How the decomposer is asked, where it isn't an untrained model: `LEARNT`, or a `Wording`.
        solver_wording: The same for the solver.
        adapter: The adapter both predictors pin; `CompactAdapter` by default.

    Raises:
        NotAnEndpoint: `decomposer` or `solver` is no LM.
        UnusableArgument: Another argument can't be used.

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
        allow_whole: bool = False,
        salvage: bool = True,
        reask: int = 1,
        decomposer_wording: Wording | None = None,
        solver_wording: Wording | None = None,
        adapter: dspy.Adapter | None = None,
    ) -> None:
        super().__init__()
        if solving not in get_args(Solving):
            raise UnusableArgument(f"solving is {solving!r}.", f"Take one of {', '.join(get_args(Solving))}.")
        require_whole_number("max_subquestions", max_subquestions, least=1)
        require_wordings(decomposer_wording, solver_wording)
        self.solving = solving
        self.max_subquestions = max_subquestions
        self.salvage = salvage
        self.solver_wording = solver_wording or Wording()
        asked = decompose_signature(max_subquestions, allow_whole)
        planner = decomposer_wording or Wording()
        self.decompose = planner.predictor(asked, "decomposer", decomposer, adapter, refuse_cut_off=True)
        self.solve = self.solver_wording.predictor(_ASKS[solving], "solver", solver, adapter, reask=reask)

    @property
    def _stepwise(self) -> bool:
        return self.solving in ("stepwise", "dag")

    def _calls(self, question: str, context: str | None, ledger: Ledger) -> Calls:
        try:
            [split] = yield [(self.decompose, {"question": question, "context": context})]
            subquestions, status, reason = self._accept(split.subquestions)
        except UNREADABLE as error:
            reason = why_refused(error)
            subquestions = self._cut(items_in(error)) if self.salvage and reason in _SALVAGED else Subquestions()
            status = "salvaged" if subquestions.items else "fell_back"
        if not subquestions.items and self.solving != "direct":
            [solved] = yield [(self.solve, self._as_chain_of_thought(question, context))]
            return self._prediction(subquestions, status, reason, solved, ledger)
        if not self._stepwise:
            inputs = {"question": question, "context": context, "subquestions": subquestions}
            [solved] = yield [(self.solve, inputs)]
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
        reason = "over_long" if len(subquestions) > self.max_subquestions else None
        return self._cut(subquestions.items), "decomposed", reason

    def _cut(self, items: Sequence[str]) -> Subquestions:
        return Subquestions(items[: self.max_subquestions])

    def _as_chain_of_thought(self, question: str, context: str | None) -> dict[str, Any]:
        """The inputs of `ChainOfThought`'s call, so that a run store has its reply already."""
        signature = self.solver_wording.of(Reason)
        return {
            "question": question,
            "context": context,
            "signature": signature,
            "demos": self.solver_wording.shown(Reason),
        }

    def _prediction(
        self,
        subquestions: Subquestions,
        status: str,
        reason: str | None,
        solved: dspy.Prediction,
        ledger: Ledger,
        steps: list[str] | None = None,
    ) -> dspy.Prediction:
        said = solved.get("sub_answers") or solved.get("reasoning") or "\n".join(steps or [])
        return ProgramPrediction(
            subquestions=subquestions,
            sub_answers=said,
            status=status,
            reason=reason,
            read_by=solved.get("read_by"),
            usage=ledger.as_dict(),
            answer=solved.get("sub_answer") or solved.get("answer"),  # last, where dspy.majority looks
        )


class _Plan:
    """The order of a stepwise solution: which subquestions can be asked now, and what has been answered.

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
    """For each subquestion, the numbers of those it waits for; references to itself or to later ones don't count."""
    referred = [
        sorted({int(ref) for ref in _REFERENCE.findall(text) if 0 < int(ref) < number})
        for number, text in enumerate(asked, 1)
    ]
    if solving == "stepwise" or not any(referred):
        return [list(range(1, number)) for number in range(1, len(asked) + 1)]
    return referred


def why_refused(error: Exception) -> str:
    """The reason under which a refused decomposition is counted: `SubquestionsError.reason`'s names.

    Args:
        error: What a decomposer's call raised: an `AdapterParseError`, or a `SubquestionsError`.
    """
    if isinstance(error, ReplyCutOff):
        return "cut_off"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, SubquestionsError):
            return cause.reason
        cause = cause.__cause__
    return "unreadable"
