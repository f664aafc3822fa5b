"""Students: the models that are trained, each for a role, from what a rule or a target gives, by a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from divcon.distill.screening import RULES
from divcon.distill.training import METHODS

Role = Literal["decomposer", "solver"]


@dataclass(frozen=True)
class Target:
    """What a student of the solver learns to write after the teacher's subquestions.

    Attributes:
        gold: Whether the answer is the gold one, else the solver's own, right or wrong.
        direct: Whether it is the answer alone, without sub-answers.
    """

    gold: bool
    direct: bool


@dataclass(frozen=True)
class Student:
    """A model that is trained.

    Attributes:
        name: As an arm, its files and its adapter have it: `sd-r`.
        label: As people read it: `SD-R`.
        role: What it does in the program.
        method: How it is trained; a name of `METHODS`.
        rule: For a decomposer: what screens the rows it learns from; a name of `RULES`.
        target: For a solver: what it learns to write.
    """

    name: str
    label: str
    role: Role
    method: str
    rule: str | None = None
    target: Target | None = None

    @property
    def screened_by_solver(self) -> bool:
        """Whether its rows were screened by what the solver made of them."""
        return self.rule is not None and RULES[self.rule].asks_solver


def decomposer_student(rule: str, method: str) -> Student:
    """The student that learns to decompose from what a rule keeps.

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
    """The decomposer's students of these rules and methods, the rules in their order, each by all methods."""
    return [decomposer_student(rule, method) for rule in rules for method in methods]


def find_student(name: str) -> Student | None:
    """The student of a name, or None."""
    if name in SOLVER_STUDENTS:
        return SOLVER_STUDENTS[name]
    return next((student for student in students_of(list(RULES), list(METHODS)) if student.name == name), None)


def student_names(role: Role | None = None) -> list[str]:
    """The names of all students there are, or of those for a role."""
    planning = [] if role == "solver" else [student.name for student in students_of(list(RULES), list(METHODS))]
    return planning if role == "decomposer" else [*planning, *SOLVER_STUDENTS]
