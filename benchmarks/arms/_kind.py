"""What an arm is: a program that is measured, who plans and who solves in it, and how it is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import dspy

from divcon.distill import Key, Student
from divcon.programs import DivideAndConquer, SelfAsk, Solving

Planner = Literal["teacher", "references", "student"]


class Parts(Protocol):
    """What arms are built from: the models of a run, and its programs."""

    def without_planner(self, program: type[dspy.Module]) -> dspy.Module:
        """A program of the solver alone, such as `ChainOfThought`."""

    def self_ask(self) -> SelfAsk:
        """The teacher asks one subquestion after the other, and the solver answers each."""

    def planned_by_teacher(self, solving: Solving | None) -> DivideAndConquer: ...

    def planned_by_references(self, solving: Solving | None) -> DivideAndConquer: ...

    def planned_by_student(self, lora: Path | None, solving: Solving | None) -> DivideAndConquer:
        """The student plans; without an adapter, its base."""

    def solved_by_student(self, student: Student | None, lora: Path | None) -> DivideAndConquer:
        """The teacher plans and the student solves; without a student, its base."""

    def deciding(self, predictor: Any) -> Key:
        """What decides a predictor's replies: its model, and its prompt."""

    def collected_from(self) -> Key:
        """The key of the teacher's decompositions."""


@dataclass(frozen=True)
class Built:
    """An arm's program.

    Attributes:
        program: What answers.
        planner_key: What decides its subquestions: a key, or JSON-ready; None where nothing is split.
    """

    program: Any
    planner_key: Any = None


@dataclass(frozen=True)
class ArmKind:
    """A kind of arm.

    Attributes:
        name: As `evaluate.arms` has it.
        label: As people read it.
        build: Builds the program from the parts, the way of solving (None for the run's own), and the adapter of the
            student that is trained (None where there is none).
        planner: Who writes the subquestions; None where the question isn't split.
        student_solves: Whether a student, or its base, solves.
        student: The student that has to be trained for it.
        other_ways: Whether it may be solved in other ways, as in `sd-r/dag`.
    """

    name: str
    label: str
    build: Callable[[Parts, Solving | None, Path | None], Built]
    planner: Planner | None = None
    student_solves: bool = False
    student: Student | None = None
    other_ways: bool = False

    @property
    def splits(self) -> bool:
        """Whether it splits the question."""
        return self.planner is not None

    @property
    def choosable(self) -> bool:
        """Whether it can answer a new question: reference subquestions exist for a data set's own alone."""
        return self.planner != "references"

    @property
    def served_here(self) -> tuple[str, ...]:
        """The roles that a student, or its base, answers."""
        if self.student_solves:
            return ("solver",)
        return ("decomposer",) if self.planner == "student" else ()
