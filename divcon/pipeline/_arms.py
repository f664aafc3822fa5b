"""Arms bound to the models of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dspy.utils.exceptions import LMError

from divcon._models import identity_of
from divcon.benchmarks import GRADERS, Arm, RecordedProgram
from divcon.benchmarks.arms import ARMS, SELF_ASK, WAYS, ArmKind, Built, Parts, read_arm
from divcon.config import Endpoint
from divcon.distill import Key, PluginError
from divcon.pipeline._context import Context
from divcon.pipeline._keys import Keys, recording_key
from divcon.pipeline._programs import Compiled, Programs
from divcon.pipeline._stations import Stations
from divcon.programs import Solving
from divcon.signatures import DivconError


class _Parts(Programs):
    """The programs and keys that arms are built from; see `benchmarks.arms.Parts`."""

    def collected_from(self) -> Key:
        return Keys(self._context, self).collection()

    def deciding(self, predictor: Any) -> Key:
        return Key({"model": identity_of(predictor.lm), "prompt": predictor.prompt(question="?", context="?")})


def arm_parts(context: Context, compiled: Compiled | None) -> _Parts:
    """What arms are built from."""
    return _Parts(context, compiled)


def bound_arm(
    context: Context, compiled: Compiled | None, name: str, lora: Path | None = None, origin: str = ""
) -> Arm:
    """An arm with its models in place.

    Args:
        context: The run's context.
        compiled: The teacher's optimized prompt, or None.
        name: The arm's name in `evaluate.arms`.
        lora: The adapter of a student of another run, trained with the same prompt; None for this run's own.
        origin: Where that adapter comes from, for the label.

    Raises:
        MissingStation: The student isn't trained, or was trained on other rows or settings.
        ManifestError: The student was trained with another prompt or base.
    """
    kind, solving = read_arm(name)
    parts = _Parts(context, compiled)
    own = Stations(context, parts).adapter(kind.student) if kind.student is not None and lora is None else None
    built = _built(kind, parts, solving, lora or own)
    roles = context.pipeline.roles
    label = kind.label + (f", solved {WAYS[solving]}" if solving else "") + (f", {origin}" if origin else "")
    planned = kind.planner == "teacher"
    if planned and not roles.teacher.asked:
        label += " (scripted)" if roles.teacher.scripted else f", {context.teacher.model}"
    return Arm(
        name=name,
        program=built.program,
        key=Keys(context, parts).answers(name, built),
        label=label,
        loads=_planner_loads(kind, context, lora) | _solver_loads(kind, context, lora),
        planner_loads=_planner_loads(kind, context, lora),
        # Self-ask has no plan before it solves.
        turns=("" if kind == SELF_ASK else _turn(context, built, "decompose"), _turn(context, built, "solve")),
        local=kind.served_here,
        prices=_prices_of(kind, context.pipeline.prices),
        lora=lora,
        built_as=name,
        splits=kind.splits,
        teachers_plans=planned,
        choosable=kind.choosable and not (planned and context.unknown_usage),
        student=kind.student.name if kind.student else None,
        grade=GRADERS[context.pipeline.evaluate.grader],
    )


def _turn(context: Context, built: Built, part: str) -> str:
    return context.models.turn_of(getattr(getattr(built.program, part, None), "lm", None))


def _planner_loads(kind: ArmKind, context: Context, lora: Path | None) -> frozenset[str]:
    """What the first call of an arm's planner may wait for: a base of the user's own, or the server of the student."""
    if kind.planner == "teacher":
        return _named(context.pipeline.roles.teacher)
    return _student_loads(kind, context, lora) if kind.planner == "student" else frozenset()


def _solver_loads(kind: ArmKind, context: Context, lora: Path | None) -> frozenset[str]:
    """What the first call of an arm's solver may wait for."""
    return _student_loads(kind, context, lora) if kind.student_solves else _named(context.pipeline.roles.solver)


def _named(role: Endpoint) -> frozenset[str]:
    return frozenset({f"{role.serve} {role.base}"} if role.base is not None else ())


def _student_loads(kind: ArmKind, context: Context, lora: Path | None) -> frozenset[str]:
    warms_up = context.models.student_model.warms_up
    return frozenset({f"student {lora or (kind.student and kind.student.name)}"} if warms_up else ())


def recorded_arms(context: Context) -> list[Arm]:
    """The arms that ran elsewhere. None of them can answer a new question."""
    arms = []
    for name, recording in context.recordings.items():
        program = RecordedProgram(recording, context.task.test, context.task.train)
        arms.append(
            Arm(
                name=name,
                program=program,
                key=recording_key(context, name),
                label=f"{context.pipeline.evaluate.recorded[name].label or name} (recorded)",
                splits=program.splits,
                choosable=False,
                recording={"file": recording.file.name, "sha256": recording.sha256},
                grade=GRADERS[context.pipeline.evaluate.grader],
            )
        )
    return arms


def _built(kind: ArmKind, parts: Parts, solving: Solving | None, lora: Path | None) -> Built:
    """An arm's program, with a predictor `solve`.

    Raises:
        PluginError: An arm of another package can't be built, or its program has no such predictor.
    """
    remedy = "Correct or uninstall the package that adds the arm."
    try:
        built = kind.build(parts, solving, lora)
        built.program.solve  # noqa: B018 - part of the key
    except (DivconError, LMError):
        raise
    except Exception as error:
        problem = f"The arm {kind.name} can't be built: {type(error).__name__}: {error}."
        raise PluginError(problem, remedy) from error
    return built


def check_arms(context: Context, compiled: Compiled | None) -> None:
    """Build the arms of other packages that need no trained student, so that a run doesn't find out at its end.

    Raises:
        PluginError: One can't be built.
    """
    for name in context.pipeline.arms:
        kind, _ = read_arm(name)
        if kind.student is None and kind.name not in ARMS.own:
            bound_arm(context, compiled, name)


def _prices_of(kind: ArmKind, known: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """The prices of an arm's roles. The planner may be the teacher or a student; the solver may be a student too."""
    planner = {"teacher": "teacher", "student": "decomposer"}.get(kind.planner or "", "")
    found = {"decomposer": known.get(planner), "solver": known.get("decomposer" if kind.student_solves else "solver")}
    return {role: price for role, price in found.items() if price}
