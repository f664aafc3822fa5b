"""divcon's own arms: two without a planner, the two-stage program with several planners and solvers, and self-ask."""

from __future__ import annotations

from pathlib import Path

from divcon.benchmarks.arms._kind import ArmKind, Built, Parts
from divcon.distill import Student
from divcon.programs import ChainOfThought, Direct, Solving


def _direct(parts: Parts, solving: Solving | None, lora: Path | None) -> Built:
    return Built(parts.without_planner(Direct))


def _chain_of_thought(parts: Parts, solving: Solving | None, lora: Path | None) -> Built:
    return Built(parts.without_planner(ChainOfThought))


def _teacher(parts: Parts, solving: Solving | None, lora: Path | None) -> Built:
    return Built(parts.planned_by_teacher(solving), parts.collected_from())


def _references(parts: Parts, solving: Solving | None, lora: Path | None) -> Built:
    program = parts.planned_by_references(solving)
    return Built(program, parts.deciding(program.decompose))


def _planning_student(parts: Parts, solving: Solving | None, lora: Path | None) -> Built:
    program = parts.planned_by_student(lora, solving)
    return Built(program, parts.deciding(program.decompose))


def _self_ask(parts: Parts, solving: Solving | None, lora: Path | None) -> Built:
    program = parts.self_ask()
    return Built(program, list(parts.deciding(program.decompose).parts.values()))


def _solving_student(student: Student | None) -> ArmKind:
    def build(parts: Parts, solving: Solving | None, lora: Path | None) -> Built:
        return Built(parts.solved_by_student(student, lora), parts.collected_from())

    name, label = (student.name, student.label) if student else ("se-untuned", "untuned student")
    return ArmKind(name, f"Two-stage, {label} solves", build, "teacher", student_solves=True, student=student)


DIRECT = ArmKind("direct", "Direct", _direct)
CHAIN_OF_THOUGHT = ArmKind("cot", "Chain of thought", _chain_of_thought)
TEACHER = ArmKind("teacher", "Two-stage, teacher", _teacher, "teacher", other_ways=True)
REFERENCES = ArmKind("references", "Two-stage, reference subquestions", _references, "references", other_ways=True)
UNTUNED = ArmKind("untuned", "Two-stage, untuned student", _planning_student, "student", other_ways=True)
SELF_ASK = ArmKind("self-ask", "Self-ask, teacher", _self_ask, "teacher")
UNTUNED_SOLVES = _solving_student(None)


def arm_of(student: Student) -> ArmKind:
    """The arm that measures a student."""
    if student.role == "solver":
        return _solving_student(student)
    label = f"Two-stage, {student.label}"
    return ArmKind(student.name, label, _planning_student, "student", student=student, other_ways=True)
