"""Kinds of arms: a program that is measured, its planner and solver, and how it is built."""

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
    """The parts that arms are built from: the programs of a run, with its models in place."""

    def without_planner(self, program: type[dspy.Module]) -> dspy.Module:
        """A program of the solver alone, such as `ChainOfThought`."""

    def self_ask(self) -> SelfAsk:
        """Self-ask: the teacher asks one subquestion after the other, and the solver answers each."""

    def planned_by_teacher(self, solving: Solving | None) -> DivideAndConquer: ...

    def planned_by_references(self, solving: Solving | None) -> DivideAndConquer: ...

    def planned_by_student(self, lora: Path | None, solving: Solving | None) -> DivideAndConquer:
        """The two-stage program planned by a student; without an adapter, by its base."""

    def solved_by_student(self, student: Student | None, lora: Path | None) -> DivideAndConquer:
        """The two-stage program planned by the teacher and solved by a student; without an adapter, by its base."""

    def deciding(self, predictor: Any) -> Key:
        """The key of a predictor's replies: its model and its prompt."""

    def collected_from(self) -> Key:
        """The key of the teacher's decompositions."""


@dataclass(frozen=True)
class Built:
    """An arm's program.

    Attributes:
        program: The program.
        planner_key: The key of its subquestions, or a JSON-ready value; None where it doesn't decompose.
    """

    program: Any
    planner_key: Any = None


@dataclass(frozen=True)
class ArmKind:
    """A kind of arm.

    Attributes:
        name: The name in `evaluate.arms`.
        label: The name in reports.
        build: Builds the program from the parts, the way of solving (None for the run's own), and the adapter of its
            trained student (None where there is none).
        planner: The source of the subquestions; None where the question isn't decomposed.
        student_solves: Whether a student, or its base, solves.
        student: The student that has to be trained for it, or None.
        other_ways: Whether a way of solving may follow its name, as in `sd-r/dag`.
        words: The name in plain words, for readers who don't know the letters; the label by default.
        meaning: What it does, in a sentence; empty where nobody has written it.
    """

    name: str
    label: str
    build: Callable[[Parts, Solving | None, Path | None], Built]
    planner: Planner | None = None
    student_solves: bool = False
    student: Student | None = None
    other_ways: bool = False
    words: str = ""
    meaning: str = ""

    @property
    def letters(self) -> str:
        """The short name in reports: the paper's letters for a trained student, else the name."""
        return self.student.label if self.student is not None else self.name

    @property
    def splits(self) -> bool:
        """Whether it decomposes the question."""
        return self.planner is not None

    @property
    def choosable(self) -> bool:
        """Whether it can answer a new question, which has no reference subquestions."""
        return self.planner != "references"

    @property
    def served_here(self) -> tuple[str, ...]:
        """The roles that a student, or its base, answers."""
        if self.student_solves:
            return ("solver",)
        return ("decomposer",) if self.planner == "student" else ()
