"""The stations of a pipeline in order. Each does only what is missing from the run folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from divcon._models import sampling_temperature
from divcon._watch import by_loss, watched
from divcon.distill import (
    RULES,
    Destination,
    Export,
    Key,
    ManifestError,
    NothingToLearn,
    Place,
    Provenance,
    Screened,
    Solver,
    Student,
    Trace,
    Training,
    already_trained,
    collect,
    compile_program,
    export,
    export_targets,
    here,
    read_export,
    rows_hash,
    screen,
    solve_traces,
    train_adapter,
    well_formed,
    write_whole,
)
from divcon.pipeline._cards import data_source
from divcon.pipeline._context import Context
from divcon.pipeline._errors import MissingStation, require_most
from divcon.pipeline._keys import Keys
from divcon.pipeline._programs import Compiled, Programs, compile_key
from divcon.pipeline._record import record_key

_QUOTED = 200  # characters


def compile_prompt(context: Context) -> Compiled | None:
    """Optimize the teacher's prompt if the file asks for it. Returns the optimized prompt, or None."""
    settings = context.pipeline.compile
    if settings.optimizer == "none":
        return None
    key = compile_key(context)
    if (found := Compiled.read(context.folder, key)) is not None:
        context.reporter.finished("compile", "already done")
        return found
    context.reporter.station("compile", f"{settings.optimizer} on up to {settings.examples} questions")
    program = compile_program(
        Programs(context, None).planned_by_teacher(),
        settings.optimizer,
        context.task.train[: settings.examples],
        context.is_right,
        settings.arguments,
        prompt_lm=context.models.teacher,
    )
    compiled = Compiled.of(program)
    compiled.write(context.folder, key, settings.optimizer)
    record_key(context.folder, "compile", key)
    context.reporter.finished("compile", f"{len(compiled.demos)} demos for the teacher's decompose")
    return compiled


@dataclass(frozen=True)
class Stations:
    """The stations after compiling.

    Attributes:
        context: The run's context.
        programs: The run's programs, with the teacher's optimized prompt.
        place: Where the jobs are done.
    """

    context: Context
    programs: Programs
    place: Place = here

    @property
    def keys(self) -> Keys:
        return Keys(self.context, self.programs)

    # -- collect ---------------------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Ask the teacher for the decompositions that are missing.

        Raises:
            Incomplete: Some calls failed.
        """
        context, settings, teacher = self.context, self.context.pipeline.collect, self.context.teacher
        if not context.task.train:
            raise NothingToLearn(*nothing_to_collect(context))
        scripted = " (scripted, not a model)" if teacher.kind == "scripted" else ""
        plans = "1 decomposition" if settings.samples == 1 else f"{settings.samples} decompositions"
        context.reporter.station("collect", f"{plans} per question from {teacher.model}{scripted}")
        key = self.keys.collection()
        with context.watched("collect") as progress:
            found = collect(
                self.programs.planned_by_teacher().decompose,
                context.task.train,
                context.store,
                key.digest,
                samples=settings.samples,
                temperature=sampling_temperature(context.models.teacher, settings.temperature),
                concurrency=settings.concurrency,
                progress=progress,
                place=self.place,
            )
        require_most("collect", found.failed, found.asked, found.first_error, settings.max_failed, context.reporter)
        record_key(context.folder, "collect", key)
        context.reporter.finished("collect", f"{found.asked} traces")

    def traces(self) -> list[Trace]:
        """The traces collected for this run's questions.

        Raises:
            MissingStation: Nothing was collected.
        """
        wanted = {item.id for item in self.context.task.train}
        samples = self.context.pipeline.collect.samples
        stored = self.context.store.traces(self.keys.collection().digest)
        traces = [trace for trace in stored if trace.item in wanted and trace.sample < samples]
        if not traces:
            raise MissingStation("Nothing was collected in this run folder.", "Run 'divcon collect' first.")
        return traces

    # -- screen ----------------------------------------------------------------------------------------------------

    def solver(self) -> Solver:
        """The solver, for rules that call it."""
        settings = self.context.pipeline.screen
        temperature = sampling_temperature(self.context.models.solver, settings.temperature)
        return Solver(self.programs.asking_solver().solve, self.context.is_right, settings.samples, temperature)

    def screen(self) -> dict[str, Screened]:
        """Judge the traces by every rule. Returns the results by rule.

        Raises:
            Incomplete: Some calls failed.
        """
        context, settings = self.context, self.context.pipeline.screen
        traces = self.traces()
        results = {}
        for rule in settings.rules:
            label, key = RULES[rule].label, self.keys.screening(rule)
            context.reporter.station("screen", f"rule {rule} for {label}, {len(traces)} traces")
            with context.watched(f"screen {rule}") as progress:
                screened = screen(
                    rule,
                    traces,
                    context.task.train,
                    context.store,
                    key.digest,
                    solver=self.solver() if RULES[rule].asks_solver else None,
                    max_subquestions=context.pipeline.program.max_subquestions,
                    keep_whole=settings.keep_whole,
                    concurrency=settings.concurrency,
                    progress=progress,
                    place=self.place,
                )
            require_most(
                "screen",
                screened.failed,
                screened.collected,
                screened.first_error,
                settings.max_failed,
                context.reporter,
            )
            record_key(context.folder, f"screen {rule}", key)
            counts = screened.counts()
            write_whole(
                context.folder / "screening" / f"{RULES[rule].student}.json", json.dumps(counts, indent=2) + "\n"
            )
            lost = ", ".join(f"{count} {reason}" for reason, count in counts["lost"].items()) or "none"
            context.reporter.finished(
                f"screen {rule}", f"kept {counts['kept']} of {counts['collected']}; lost: {lost}{first_unread(traces)}"
            )
            results[rule] = screened
        return results

    # -- export ----------------------------------------------------------------------------------------------------

    def rows_file(self, student: Student) -> Path:
        """The file of a student's training rows."""
        return self.context.folder / "exports" / f"{student.name}.jsonl"

    def export(self, screened: dict[str, Screened]) -> dict[str, Export]:
        """Write the training rows of every student.

        Args:
            screened: The results of the screening, by rule.

        Raises:
            NothingToLearn: A rule kept nothing.
            Incomplete: Some calls of the solver failed, which students of the solver need.
        """
        context, exports = self.context, {}
        for student in context.pipeline.decomposer_students:
            assert student.rule is not None
            planner = self.programs.two_stage(context.models.teacher).decompose
            exports[student.name] = self._exported(
                student,
                export(planner, screened[student.rule], context.task.train, self._destination(student)),
            )
        wanted = context.pipeline.solver_students
        if all(self.is_exported(student) for student in wanted):
            return exports
        traces = [trace for trace in self.traces() if self._is_well_formed(trace)]
        context.reporter.station("export", f"the solver's replies to {len(traces)} decompositions, for its students")
        with context.watched("export") as progress:
            solved = solve_traces(
                self.programs.asking_solver().solve,
                traces,
                context.task.train,
                concurrency=context.pipeline.screen.concurrency,
                progress=progress,
                place=self.place,
            )
        require_most(
            "screen",
            solved.failed,
            len(traces),
            solved.first_error,
            context.pipeline.screen.max_failed,
            context.reporter,
        )
        for student in wanted:
            solve = self.programs.learning_to_solve(student).solve
            exports[student.name] = self._exported(
                student, export_targets(student, solve, solved, context.task.train, self._destination(student))
            )
        return exports

    def _destination(self, student: Student) -> Destination:
        return Destination(
            self.rows_file(student), student.name, self.keys.rows(student).digest, student.method, self.context.teacher
        )

    def _exported(self, student: Student, rows: Export) -> Export:
        self.context.reporter.finished(f"export {student.name}", f"{rows.rows} rows in {rows.file}")
        record_key(self.context.folder, f"export {student.name}", self.keys.rows(student))
        return rows

    def _is_well_formed(self, trace: Trace) -> bool:
        pipeline = self.context.pipeline
        return well_formed(trace, pipeline.program.max_subquestions, pipeline.screen.keep_whole) is None

    def is_exported(self, student: Student) -> bool:
        """Whether a student's rows are exported, under the key that this run would export them under."""
        return exported_from(self.rows_file(student)) == self.keys.rows(student).digest

    # -- train -----------------------------------------------------------------------------------------------------

    def train(self) -> dict[str, Path]:
        """Train an adapter on every export that has none. Returns the adapters' folders by student.

        Raises:
            MissingStation: A student's rows aren't exported, or were exported with other settings.
            TrainingError: The rows can't be trained on.
        """
        context, adapters = self.context, {}
        for student in context.pipeline.students:
            training = self._training(student)
            if not self.is_exported(student):
                raise MissingStation(
                    f"There are no training rows at {training.rows}, "
                    "or they were exported with other settings than these, or changed since.",
                    "Run 'divcon export' first.",
                )
            adapters[student.name] = training.output
            if self.is_trained(student):
                context.reporter.finished(f"train {student.name}", "already done")
                continue
            context.reporter.station("train", f"{student.label} on {training.rows.name}")
            self._train(student, training)
            record_key(context.folder, f"train {student.name}", self.training_key(student))
        return adapters

    def _train(self, student: Student, training: Training) -> None:
        context = self.context
        context.models.make_room()
        with watched(context.reporter, f"train {student.name}", unit="steps") as progress:
            manifest = train_adapter(
                training,
                Provenance(
                    student.role,
                    student.name,
                    teacher=context.teacher,
                    data=data_source(context),
                    allowed_overlap=context.task.allowed,
                ),
                progress=by_loss(progress),
            )
        result = manifest.result
        context.reporter.finished(
            f"train {student.name}",
            f"{manifest.rows} rows, {result['steps']} steps, loss {result['first_loss']} to {result['last_loss']}, "
            f"{result['seconds']:.0f} s",
        )

    def _training(self, student: Student) -> Training:
        context = self.context
        return Training(
            self.rows_file(student),
            context.models.base,
            adapter_folder(context.folder, student.name),
            context.pipeline.train.with_method(student.method),
        )

    def training_key(self, student: Student) -> Key:
        """The key of a student's adapter."""
        training = self._training(student)
        base, settings = training.base, training.settings.deciding()
        return Key({"rows": self.keys.rows(student), "train": settings, "base": [base.id, base.revision]})

    def is_trained(self, student: Student) -> bool:
        """Whether a student is trained on the rows and settings of this run."""
        if not self.is_exported(student):
            return False
        try:
            return already_trained(self._training(student)) is not None
        except ManifestError as error:
            self.context.reporter.finished(f"train {student.name}", f"warning: {error.problem} It is trained again.")
            return False

    def adapter(self, student: Student) -> Path:
        """The folder of a student's adapter.

        Raises:
            MissingStation: The student isn't trained, or was trained on other rows or settings.
        """
        if not self.is_exported(student):
            raise MissingStation(
                f"The rows of the student {student.label} are missing, or were exported from other data or settings, "
                "or by an earlier version, or were changed since.",
                "Run 'divcon export' and 'divcon train'; what was trained on the same rows isn't trained again.",
            )
        if not self.is_trained(student):
            raise MissingStation(
                f"The student {student.label} isn't trained, or was trained on other rows or settings than these.",
                "Run 'divcon train' first.",
            )
        return adapter_folder(self.context.folder, student.name)


def nothing_to_collect(context: Context) -> tuple[str, str]:
    """Problem and remedy where there is no training question, and so nothing to collect."""
    plans = context.models.plans
    if plans is None or not context.pipeline.task.train:
        return "task.train is 0, so there is nothing to learn from.", "Raise it, or run 'divcon evaluate' alone."
    return (
        f"No training question has a plan in {plans.file.name}.",
        "Give the plans of training questions, or run 'divcon evaluate' alone.",
    )


def first_unread(traces: Sequence[Trace]) -> str:
    """Words on the first reply that couldn't be read as a list, with its end; empty where all could."""
    reply = next((trace.reply or "" for trace in traces if trace.lost == "unreadable"), None)
    return "" if reply is None else f"; the first unreadable reply ends: {' '.join(reply.split())[-_QUOTED:]!r}"


def adapter_folder(folder: Path, student: str) -> Path:
    """The folder of a student's adapter in a run folder."""
    return folder / "adapters" / student


def exported_from(rows: Path) -> str | None:
    """The key that rows were exported under; None where there are none, or other ones than were exported."""
    exported = read_export(rows)
    return exported.key if exported and exported.sha256 == rows_hash(rows) else None
