"""The section `program`: the two-stage program, and your own instructions for its calls."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from divcon.config._roles import Section
from divcon.programs import Solving
from divcon.signatures import (
    DEFAULT_MAX_SUBQUESTIONS,
    Answer,
    Decompose,
    FollowUp,
    Reason,
    Solve,
    SolveDirect,
    SolveStep,
)

Instruction = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]

_OF_PLANNER = {"decompose": Decompose, "follow_up": FollowUp}
_OF_SOLVER = {
    "solve": Solve,
    "solve_direct": SolveDirect,
    "solve_step": SolveStep,
    "answer": Answer,
    "reason": Reason,
}


class Instructions(Section):
    """Your own instructions, in place of divcon's. What isn't given keeps divcon's.

    Attributes:
        decompose: For a plan. The teacher gets it, the students learn it, and an optimizer begins with it. It has to
            name the largest number of subquestions itself, and to ask for one numbered line each.
        follow_up: For the next subquestion alone, in the arm `self-ask`.
        solve: For the answer with the help of the subquestions.
        solve_direct: The same without any steps, for the way `direct`.
        solve_step: For the answer to one subquestion, for the ways `stepwise` and `dag` and the arm `self-ask`.
        answer: For the answer without a plan or steps, in the arm `direct`.
        reason: For the answer by chain of thought, in the arm `cot` and wherever a question has no plan.
    """

    decompose: Instruction | None = None
    follow_up: Instruction | None = None
    solve: Instruction | None = None
    solve_direct: Instruction | None = None
    solve_step: Instruction | None = None
    answer: Instruction | None = None
    reason: Instruction | None = None

    @property
    def by_signature(self) -> dict[str, str]:
        """The instructions that are given, by the name of the signature."""
        signatures = {**_OF_PLANNER, **_OF_SOLVER}
        return {signatures[name].__name__: text for name, text in self if text is not None}

    @property
    def of_solver(self) -> list[str]:
        """The keys of those that are given for the solver."""
        return [name for name in _OF_SOLVER if getattr(self, name) is not None]


class Program(Section):
    """The two-stage program.

    Attributes:
        solving: How the solver answers: all subquestions in one call (`single_call`), one call for the final answer
            without sub-answers (`direct`), a call per subquestion in order (`stepwise`), or a call per subquestion, in
            parallel where one doesn't need another's answer (`dag`).
        max_subquestions: The largest number of subquestions. The decomposer is told it, and longer lists are cut.
        allow_whole: Allow the decomposer to reply that no decomposition helps. Off by default, since small models then
            reply so to every question.
        salvage: Use the complete subquestions of a list that repeats itself or is cut off, instead of solving the
            question whole. Such lists are never training rows.
        reask: How often the solver gets its reply back and is asked for the final answer alone, where its answer can't
            be read. These calls are paid for and counted.
        instructions: Your own instructions, in place of divcon's.
    """

    solving: Solving = "single_call"
    max_subquestions: int = Field(DEFAULT_MAX_SUBQUESTIONS, ge=1)
    allow_whole: bool = False
    salvage: bool = True
    reask: int = Field(1, ge=0, le=1)
    # No part of the keys where there are none, so that keys made before hold.
    instructions: Instructions = Field(Instructions(), exclude_if=lambda own: own == Instructions())
