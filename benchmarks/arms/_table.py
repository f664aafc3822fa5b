"""The table of arms, and how an arm's name is read."""

from __future__ import annotations

import difflib
from typing import cast, get_args

from divcon.benchmarks.arms._kind import ArmKind
from divcon.benchmarks.arms._ours import (
    CHAIN_OF_THOUGHT,
    DIRECT,
    REFERENCES,
    SELF_ASK,
    TEACHER,
    UNTUNED,
    UNTUNED_SOLVES,
    arm_of,
)
from divcon.distill import RULES, SOLVER_STUDENTS, Table, UnknownName, find_student, student_names, students_of
from divcon.distill.training import METHODS
from divcon.programs import Solving

_OURS = (DIRECT, CHAIN_OF_THOUGHT, TEACHER, REFERENCES, UNTUNED, UNTUNED_SOLVES, SELF_ASK)
# The arms without a trained student. Besides these, there is an arm for every student.
ARMS: Table[ArmKind] = Table(
    "arm", "divcon.arms", {kind.name: kind for kind in _OURS}, needs=("label", "build", "planner", "served_here")
)
# Ways of solving that may follow an arm's name after a slash, with their labels.
WAYS: dict[Solving, str] = {"direct": "without steps", "stepwise": "step by step", "dag": "as a graph"}
assert {*WAYS, "single_call"} == set(get_args(Solving))


def read_arm(name: str) -> tuple[ArmKind, Solving | None]:
    """The kind of an arm, and the way of solving after the slash in its name.

    Args:
        name: The arm's name, such as `sd-r` or `sd-r/dag`.

    Returns:
        The kind, and the way of solving; None for the run's own way.

    Raises:
        UnknownName: There is no such arm.
    """
    base, slash, way = name.partition("/")
    student = None if base in ARMS else find_student(base)
    if base not in ARMS and student is None:
        known = [*ARMS, *student_names()]
        near = difflib.get_close_matches(base, known, 1)
        raise UnknownName(
            f"There is no arm '{name}'.", f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
        )
    kind = ARMS[base] if student is None else arm_of(student)
    if slash and (not kind.other_ways or way not in WAYS):
        raise UnknownName(
            f"There is no arm '{name}'.",
            f"/{', /'.join(WAYS)} may follow an arm that plans all subquestions at once, such as teacher.",
        )
    return kind, cast(Solving, way) if slash else None


def letters_of(name: str) -> str:
    """The letters of an arm for tables: `SD-R` for `sd-r`. What follows the name stays, such as `/dag` or ` (60)`."""
    bare, gap, level = name.partition(" ")
    base, slash, way = bare.partition("/")
    try:
        letters = read_arm(base)[0].letters
    except UnknownName:  # an arm that ran elsewhere
        letters = base
    return letters + slash + way + gap + level


def own_arms() -> list[str]:
    """The names of divcon's own arms, without those of installed packages."""
    students = [*students_of(RULES.own, METHODS.own), *SOLVER_STUDENTS.values()]
    return [*ARMS.own, *(student.name for student in students)]
