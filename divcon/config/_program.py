"""The section `program`: the two-stage program."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from divcon.config._roles import Section
from divcon.programs import Solving
from divcon.signatures import DEFAULT_MAX_SUBQUESTIONS, NO_DECOMPOSITION, masked

CAP = "{max_subquestions}"  # stands in an instruction for the number


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
        instruction: What the decomposer is told, in place of divcon's own instruction. The teacher gets it, the
            students learn it, and an optimizer begins with it. `{max_subquestions}` in it stands for that number.
    """

    solving: Solving = "single_call"
    max_subquestions: int = Field(DEFAULT_MAX_SUBQUESTIONS, ge=1)
    allow_whole: bool = False
    salvage: bool = True
    reask: int = Field(1, ge=0, le=1)
    instruction: str | None = None

    @field_validator("instruction")
    @classmethod
    def _can_be_told(cls, instruction: str | None) -> str | None:
        if instruction is None:
            return None
        if not instruction.strip():
            raise ValueError("it is blank; write a text, or leave the key out")
        if masked(instruction) != instruction:
            raise ValueError("it holds a secret, which models and files would get; take it out")
        return instruction.strip()

    @model_validator(mode="after")
    def _says_how_to_decline(self) -> Program:
        if self.allow_whole and self.instruction is not None and NO_DECOMPOSITION not in self.instruction:
            raise ValueError(f"with allow_whole, the instruction has to say when to write '{NO_DECOMPOSITION}'")
        return self
