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


# By name: the words and the meaning of divcon's own students, whose letters are the paper's.
_PLANNING = "A small model writes the subquestions"
_SOLVING = "The teacher writes the subquestions, and a small model answers them"
_STUDENTS = {
    "sd-t": (
        "planner trained on all plans",
        f"{_PLANNING}. It was trained on all of the teacher's plans that are well formed.",
    ),
    "sd-r": (
        "planner trained on screened plans",
        f"{_PLANNING}. It was trained on those of the teacher's plans with which the solver's answer was right.",
    ),
    "sd-rec": (
        "planner trained on plans recorded as right",
        f"{_PLANNING}. It was trained on those of the teacher's plans that are recorded as right.",
    ),
    "se-t": (
        "solver trained on the solver's replies",
        f"{_SOLVING}. It was trained on the solver's own replies, right or wrong.",
    ),
    "se-a": ("solver trained on gold answers", f"{_SOLVING}. It was trained on replies that end with the gold answer."),
    "se-t-direct": (
        "solver trained on the solver's answers, no steps",
        f"{_SOLVING}. It was trained on the solver's own answers alone, right or wrong.",
    ),
    "se-a-direct": (
        "solver trained on gold answers, no steps",
        f"{_SOLVING}. It was trained on the gold answers alone.",
    ),
}


def _solving_student(student: Student | None) -> ArmKind:
    def build(parts: Parts, solving: Solving | None, lora: Path | None) -> Built:
        return Built(parts.solved_by_student(student, lora), parts.collected_from())

    name, label = (student.name, student.label) if student else ("se-untuned", "untuned student")
    words, meaning = _STUDENTS.get(name, ("untrained small solver", f"{_SOLVING}. It wasn't trained."))
    return ArmKind(
        name,
        f"Two-stage, {label} solves",
        build,
        "teacher",
        student_solves=True,
        student=student,
        words=words,
        meaning=meaning,
    )


DIRECT = ArmKind(
    "direct", "Direct", _direct, words="solver alone, no steps", meaning="The solver writes its answer at once."
)
CHAIN_OF_THOUGHT = ArmKind(
    "cot",
    "Chain of thought",
    _chain_of_thought,
    words="solver alone, step by step",
    meaning="The solver writes its steps and then its answer. Nobody splits the question.",
)
TEACHER = ArmKind(
    "teacher",
    "Two-stage, teacher",
    _teacher,
    "teacher",
    other_ways=True,
    words="teacher as planner",
    meaning="The teacher, a large model, writes the subquestions, and the solver answers them.",
)
REFERENCES = ArmKind(
    "references",
    "Two-stage, reference subquestions",
    _references,
    "references",
    other_ways=True,
    words="reference subquestions",
    meaning="The subquestions are those of the data, and the solver answers them. A new question has none.",
)
UNTUNED = ArmKind(
    "untuned",
    "Two-stage, untuned student",
    _planning_student,
    "student",
    other_ways=True,
    words="untrained small planner",
    meaning=f"{_PLANNING}, and the solver answers them. It wasn't trained.",
)
SELF_ASK = ArmKind(
    "self-ask",
    "Self-ask, teacher",
    _self_ask,
    "teacher",
    words="teacher asks as it goes",
    meaning="The teacher asks one subquestion after the other, and the solver answers each before the next is asked.",
)
UNTUNED_SOLVES = _solving_student(None)


def arm_of(student: Student) -> ArmKind:
    """The arm that measures a student."""
    if student.role == "solver":
        return _solving_student(student)
    words, meaning = _STUDENTS.get(
        student.name,
        (
            f"planner {student.label}",
            f"{_PLANNING}. It was trained by {student.method} on the plans that the rule {student.rule} keeps.",
        ),
    )
    return ArmKind(
        student.name,
        f"Two-stage, {student.label}",
        _planning_student,
        "student",
        student=student,
        other_ways=True,
        words=words,
        meaning=meaning,
    )
