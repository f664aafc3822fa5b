"""The programs of a run: the same two stages with the teacher, the references or a student in place."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dspy

from divcon._models import identity_of, prompt_adapter_of, wording_of
from divcon.config import CAP
from divcon.distill import Key, Student, bind_adapter, write_whole
from divcon.pipeline._context import Context
from divcon.pipeline._errors import MissingStation
from divcon.programs import (
    LEARNT,
    CompactAdapter,
    DivideAndConquer,
    SelfAsk,
    Solving,
    Wording,
)
from divcon.signatures import Decompose, Solve, SolveDirect, Subquestions


@dataclass(frozen=True)
class Compiled:
    """The teacher's optimized prompt.

    Attributes:
        instructions: The instruction of `decompose`, for the teacher and for students.
        demos: Demonstrations for models that weren't trained. A student has learnt from replies made with them, so its
            prompts don't need them.
    """

    instructions: str
    demos: list[dict[str, Any]]

    @classmethod
    def of(cls, program: DivideAndConquer) -> Compiled:
        return cls(program.decompose.signature.instructions, list(program.decompose.demos))

    @classmethod
    def read(cls, folder: Path, key: Key | None = None) -> Compiled | None:
        """Read the prompt in a run folder; None where there is none.

        Args:
            folder: The run folder.
            key: The key that it must have been compiled under; any by default.
        """
        file = folder / "program.json"
        if not file.is_file():
            return None
        try:
            state = json.loads(file.read_text(encoding="utf-8"))
            if key is not None and state["stamp"] != key.digest:
                return None
            instructions, written = state["instructions"], state["demos"]
            demos = [{k: Subquestions.read(v) if k == "subquestions" else v for k, v in d.items()} for d in written]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if key is not None:
                return None  # it is compiled again, from replies that are stored
            raise MissingStation(f"{file} is damaged: {error}.", "Run 'divcon compile'.") from error
        return cls(instructions, demos)

    def write(self, folder: Path, key: Key, optimizer: str) -> None:
        state = {
            "stamp": key.digest,
            "optimizer": optimizer,
            "instructions": self.instructions,
            "demos": [
                {k: v.render() if isinstance(v, Subquestions) else v for k, v in demo.items()} for demo in self.demos
            ],
        }
        write_whole(folder / "program.json", json.dumps(state, indent=2, ensure_ascii=False) + "\n")


def compiled_prompt(context: Context) -> Compiled | None:
    """The optimized prompt of a run, or None where it isn't compiled or the pipeline has no optimizer."""
    if context.pipeline.compile.optimizer == "none":
        return None
    return Compiled.read(context.folder, compile_key(context))


def compile_key(context: Context) -> Key:
    """The key of the optimized prompt.

    The solver isn't part of it, so that replacing the solver doesn't need a new collection.
    """
    pipeline = context.pipeline
    return Key(
        {
            "compile": pipeline.compile.model_dump(),
            "teacher": identity_of(context.models.teacher),
            "program": pipeline.program.model_dump(exclude_none=True),
            "questions": [item.id for item in context.task.train[: pipeline.compile.examples]],
            **context.graders,
        }
    )


class Programs:
    """The programs of a run.

    Args:
        context: The run's context.
        compiled: The teacher's optimized prompt; None for divcon's own.
    """

    def __init__(self, context: Context, compiled: Compiled | None) -> None:
        self._context = context
        self._models = context.models
        self._pipeline = context.pipeline
        self.compiled = compiled

    @property
    def teacher(self) -> dspy.LM:
        return self._models.teacher

    @property
    def solver(self) -> dspy.LM:
        return self._models.solver

    def two_stage(
        self, decomposer: dspy.LM, solving: Solving | None = None, wording: Wording = LEARNT
    ) -> DivideAndConquer:
        """The two-stage program with a decomposer.

        Args:
            decomposer: The LM of the decomposer.
            solving: How the subquestions are solved; the file's setting by default.
            wording: The wording of the decomposer's prompt; that of a trained student by default.
        """
        roles, settings = self._pipeline.roles, self._pipeline.program
        program = DivideAndConquer(
            decomposer,
            self.solver,
            solving=solving or settings.solving,
            max_subquestions=settings.max_subquestions,
            allow_whole=settings.allow_whole,
            salvage=settings.salvage,
            reask=settings.reask,
            decomposer_wording=replace(wording, instructions=self._own_instruction),
            solver_wording=wording_of(roles.solver),
        )
        program.solve.adapter = prompt_adapter_of(roles.solver)
        if self.compiled is not None:
            signature = program.decompose.signature
            program.decompose.signature = signature.with_instructions(self.compiled.instructions)
        return program

    @property
    def _own_instruction(self) -> dict[str, str]:
        """The file's own instruction of the decomposer, where it has one."""
        settings = self._pipeline.program
        told = settings.instruction
        return {} if told is None else {Decompose.__name__: told.replace(CAP, str(settings.max_subquestions))}

    def asking_solver(self) -> DivideAndConquer:
        """The program whose `solve` is called for screening and the solver's students: all subquestions in one call."""
        return self.two_stage(self.teacher, "single_call")

    def planned_by_teacher(self, solving: Solving | None = None) -> DivideAndConquer:
        program = self.two_stage(self.teacher, solving, Wording())
        program.decompose.adapter = prompt_adapter_of(self._pipeline.roles.teacher)
        if self.compiled is not None:
            program.decompose.demos = list(self.compiled.demos)
        return program

    def planned_by_references(self, solving: Solving | None = None) -> DivideAndConquer:
        return self.two_stage(self._models.references, solving)

    def planned_by_student(self, lora: Path | None, solving: Solving | None = None) -> DivideAndConquer:
        """The program with a student as the decomposer; raises an error where it was trained with another prompt."""
        lm = self._models.student(lora)
        program = self.two_stage(lm, solving, Wording() if lora is None else LEARNT)
        if lora is not None:
            bind_adapter(program.decompose, lm, lora, tokenizer=self._models.student_model.tokenizer)
        return program

    def learning_to_solve(self, student: Student | None) -> DivideAndConquer:
        """The teacher's program whose solver gets the prompt of a student of the solver; None is the untrained one."""
        direct = student is not None and student.target is not None and student.target.direct
        program = self.planned_by_teacher("direct" if direct else "single_call")
        wording = Wording() if student is None else LEARNT
        asked, reask = SolveDirect if direct else Solve, self._pipeline.program.reask
        program.solve = wording.predictor(asked, "solver", self.solver, CompactAdapter(), reask=reask)
        program.solver_wording = wording
        return program

    def solved_by_student(self, student: Student | None, lora: Path | None) -> DivideAndConquer:
        program = self.learning_to_solve(student)
        lm = self._models.student(lora, "solver")
        if lora is None:
            program.solve.lm = lm
        else:
            bind_adapter(program.solve, lm, lora, tokenizer=self._models.student_model.tokenizer)
        return program

    def without_planner(self, program: type[dspy.Module]) -> dspy.Module:
        endpoint, reask = self._pipeline.roles.solver, self._pipeline.program.reask
        made: dspy.Module = program(
            self.solver, adapter=prompt_adapter_of(endpoint), wording=wording_of(endpoint), reask=reask
        )
        return made

    def self_ask(self) -> SelfAsk:
        endpoint, settings = self._pipeline.roles.solver, self._pipeline.program
        # Reasoning models take no stop strings, so `SelfAsk` cuts their replies.
        stop = "max_completion_tokens" not in self.teacher.kwargs
        made = SelfAsk(
            self.teacher,
            self.solver,
            max_steps=settings.max_subquestions,
            stop=stop,
            solver_wording=wording_of(endpoint),
            reask=settings.reask,
            adapter=prompt_adapter_of(endpoint),
        )
        made.decompose.adapter = prompt_adapter_of(self._pipeline.roles.teacher)
        return made
