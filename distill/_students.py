"""Students: the models that are trained. Each has a role, a training method, and a rule or a target for its rows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

from divcon.distill._table import PluginError
from divcon.distill.screening import RULES
from divcon.distill.training import METHODS

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
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
        PluginError: The rule or the method of another package names a student that can't be.
    """
    screened, suffix = RULES[rule], METHODS[method].suffix
    name = screened.student + suffix
    if not _NAME.fullmatch(name):
        raise PluginError(
            f"The rule {rule} names its student '{screened.student}', which is no name for a file.",
            "Name it in lower-case letters, digits and hyphens.",
        )
    taken = name in SOLVER_STUDENTS or (rule not in RULES.own and name in {RULES[one].student for one in RULES.own})
    if taken:
        raise PluginError(
            f"The rule {rule} names its student {name}, and divcon has a student of that name.", "Name it differently."
        )
    return Student(name, screened.label + suffix.upper(), "decomposer", method, rule=rule)


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
    return next((student for student in _decomposer_students() if student.name == name), None)


def _decomposer_students() -> Iterator[Student]:
    """All there are, divcon's own first. What another package adds and can't be used stops those who name it alone."""
    for rule, method in product(RULES, METHODS):
        with contextlib.suppress(PluginError):
            yield decomposer_student(rule, method)


def student_names(role: Role | None = None) -> list[str]:
    """The names of all students, or of the students for a role."""
    planning = [] if role == "solver" else [student.name for student in _decomposer_students()]
    return planning if role == "decomposer" else [*planning, *SOLVER_STUDENTS]
