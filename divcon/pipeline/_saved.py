"""A saved run: answers questions with the prompt and students in a run folder, even if data and settings changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import dspy

from divcon.benchmarks.arms import UNTUNED
from divcon.benchmarks.tasks import LONGEST_QUESTION
from divcon.distill import find_student, is_trained, student_names
from divcon.pipeline._context import Context
from divcon.pipeline._errors import MissingStation
from divcon.pipeline._programs import Compiled, Programs
from divcon.pipeline._stations import adapter_folder
from divcon.programs import DivideAndConquer
from divcon.programs._arguments import require_context, require_question
from divcon.signatures import DivconError

UNTRAINED = UNTUNED.name


@dataclass(frozen=True)
class SavedRun:
    """The program of a run folder.

    Attributes:
        context: The run's context.
    """

    context: Context

    def students(self, name: str | None = None) -> list[tuple[str, Path | None]]:
        """Name and adapter of the decomposer's trained students, the best first; if none is trained, the untuned base.

        Args:
            name: Only the student with this name.

        Raises:
            DivconError: There is no such student.
            MissingStation: The student isn't trained.
        """
        if name == UNTRAINED:
            return [(UNTRAINED, None)]
        if name is None:
            return self._trained() or [(UNTRAINED, None)]
        student = find_student(name)
        if student is None or student.role != "decomposer":
            raise DivconError(
                f"There is no student '{name}'.", f"Take {', '.join(student_names('decomposer'))} or {UNTRAINED}."
            )
        if not is_trained(self._folder(name)):
            raise MissingStation(
                f"The student {student.label} isn't trained in {self.context.folder}.", "Run 'divcon train'."
            )
        return [(name, self._folder(name))]

    def _trained(self) -> list[tuple[str, Path | None]]:
        """The trained students in the folder; those screened by the solver's answers come first."""
        folders = sorted(self._folder("").glob("*"))
        known = [(find_student(folder.name), folder) for folder in folders if is_trained(folder)]
        found = [(student, folder) for student, folder in known if student and student.role == "decomposer"]
        found.sort(key=lambda one: not one[0].screened_by_solver)
        return [(student.name, folder) for student, folder in found]

    def _folder(self, name: str) -> Path:
        return adapter_folder(self.context.folder, name)

    def program(self, student: str | None = None) -> tuple[DivideAndConquer, str]:
        """The program with a student in place, and the student's name.

        Args:
            student: A trained student's name, or `untuned`; the best trained student by default.

        Raises:
            MissingStation: The student isn't trained.
        """
        name, folder = self.students(student)[0]
        optimized = self.context.pipeline.compile.optimizer != "none"
        compiled = Compiled.read(self.context.folder) if optimized else None
        return Programs(self.context, compiled).planned_by_student(folder), name

    def lms(self, student: str | None = None) -> dict[str, dspy.LM]:
        """The LMs by role, for `divcon.bind`."""
        program, _ = self.program(student)
        return {"decomposer": program.decompose.lm, "solver": program.solve.lm}

    def ask(self, question: str, context: str | None = None, student: str | None = None) -> dspy.Prediction:
        """Answer one question.

        Args:
            question: The question.
            context: A passage that the question is about, or None.
            student: See `program`.

        Raises:
            UnusableArgument: The question is empty or isn't text, or the context isn't.
            DivconError: The question is too long, or there is no such student.
        """
        require_question(question)
        require_context(context)
        if len(question) > LONGEST_QUESTION:
            raise DivconError(
                f"The question has {len(question):,} characters, over {LONGEST_QUESTION:,}.",
                "Put the passage into --context and keep the question short.",
            )
        program, name = self.program(student)
        prediction = program(question=question, context=context)
        prediction.student = name
        return prediction
