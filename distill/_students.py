"""Students: the models that are trained. Each has a role, a training method, and a rule or a target for its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from divcon.distill.screening import RULES
from divcon.distill.training import METHODS

Role = Literal["decomposer", "solver"]


@dataclass(frozen=True)
class Target:
    """The text that a student of the solver learns to write after the teacher's subquestions.

    Attributes:
        gold: Whether the text ends with the gold answer; otherwise with the solver's own, right or wrong.
        direct: Whether the text is the answer alone, without sub-answers.
    """

    gold: bool
    direct: bool


@dataclass(frozen=True)
class Student:
    """A model that is trained.

    Attributes:
        name: The name in arms and files, such as `sd-r`.
        label: The name in reports, such as `SD-R`.
        role: The role in the program.
        method: The training method, a name in `METHODS`.
        rule: For a decomposer, the rule that screens its training rows, a name in `RULES`.
        target: For a solver, what it learns to write.
    """

    name: str
    label: str
    role: Role
    method: str
    rule: str | None = None
    target: Target | None = None

    @property
    def screened_by_solver(self) -> bool:
        """Whether its rows were screened with the help of the solver's answers."""
        return self.rule is not None and RULES[self.rule].asks_solver


def decomposer_student(rule: str, method: str) -> Student:
    """The student that learns to decompose from the traces that a rule keeps.

    Raises:
        UnknownName: There is no such rule or method.
    """
    screened, suffix = RULES[rule], METHODS[method].suffix
    return Student(screened.student + suffix, screened.label + suffix.upper(), "decomposer", method, rule=rule)


# The paper's names: SE for "solver's expertise", T for the solver's own targets, A for the gold answers.
SOLVER_STUDENTS = {
    name: Student(name, label, "solver", "lora", target=target)
    for name, label, target in (
        ("se-t", "SE-T", Target(gold=False, direct=False)),
        ("se-a", "SE-A", Target(gold=True, direct=False)),
        ("se-t-direct", "SE-T (direct)", Target(gold=False, direct=True)),
        ("se-a-direct", "SE-A (direct)", Target(gold=True, direct=True)),
    )
}


def students_of(rules: Sequence[str], methods: Sequence[str]) -> list[Student]:
    """The students of the decomposer for every pair of these rules and methods, ordered by rule, then by method."""
    return [decomposer_student(rule, method) for rule in rules for method in methods]


def find_student(name: str) -> Student | None:
    """The student with a name, or None."""
    if name in SOLVER_STUDENTS:
        return SOLVER_STUDENTS[name]
    return next((student for student in students_of(list(RULES), list(METHODS)) if student.name == name), None)


def student_names(role: Role | None = None) -> list[str]:
    """The names of all students, or of the students for a role."""
    planning = [] if role == "solver" else [student.name for student in students_of(list(RULES), list(METHODS))]
    return planning if role == "decomposer" else [*planning, *SOLVER_STUDENTS]
