"""The line: the stations of a pipeline in order, each of which does only what is missing from the run folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import dspy
from dspy.utils.exceptions import LMError

from divcon._config import SINGLE, SOLVING, STUDENTS, TRAINED, Endpoint, Pipeline, configuration_of
from divcon._doctor import diagnose
from divcon._models import Models, adapter_of, identity_of, sampling_temperature, wording_of
from divcon._watch import Progress, Reporter, Silent, by_arm, by_loss, watched
from divcon.benchmarks import (
    Arm,
    agreement,
    as_csv,
    compare_costs,
    differences,
    evaluate_arms,
    grade,
    grade_as_paper,
    log_to_mlflow,
    summarize_arm,
    upfront,
    write_report,
)
from divcon.benchmarks.tasks import LONGEST_QUESTION, LoadedTask, load_task
from divcon.distill import (
    Base,
    Export,
    RunStore,
    Screened,
    SolvedTraces,
    Trace,
    TrainSettings,
    bind_adapter,
    collect,
    compile_program,
    error_behind,
    export,
    export_targets,
    fingerprint,
    is_trained,
    read_manifest,
    screen,
    solve_traces,
    train_adapter,
    trouble,
    well_formed,
    write_whole,
)
from divcon.distill.serving import Finding
from divcon.distill.serving.embedded import EmbeddedBaseMissing, is_converted
from divcon.programs import (
    LEARNT,
    ChainOfThought,
    CompactAdapter,
    Direct,
    DivideAndConquer,
    Item,
    SelfAsk,
    Solving,
    Wording,
    solver_role,
)
from divcon.signatures import READER, DivconError, Solve, SolveDirect, Subquestions

LABELS = {
    "direct": "Direct",
    "cot": "Chain of thought",
    "teacher": "Two-stage, teacher",
    "references": "Two-stage, reference subquestions",
    "untuned": "Two-stage, untuned student",
    "sd-t": "Two-stage, SD-T",
    "sd-r": "Two-stage, SD-R",
    "se-untuned": "Two-stage, untuned student solves",
    "se-t": "Two-stage, SE-T solves",
    "se-a": "Two-stage, SE-A solves",
    "se-t-direct": "Two-stage, SE-T (direct) solves",
    "se-a-direct": "Two-stage, SE-A (direct) solves",
    "self-ask": "Self-ask, teacher",
}
_ASKED_OF_TEACHER = ("teacher", "self-ask", *SOLVING)  # arms whose plans are the teacher's


class Incomplete(DivconError):
    """A station did what it could, and some calls failed.

    Attributes:
        results: What an evaluation found nevertheless, or None.
    """

    results: dict[str, Any] | None = None


class Unfit(DivconError):
    """Something that the doctor found would stop the run."""


class MissingStation(DivconError):
    """A station needs what an earlier one makes."""


def announce_conversion(pipeline: Pipeline, reporter: Reporter) -> None:
    """Say that the embedded base is dequantized, where that comes next: nothing else is heard of it."""
    with contextlib.suppress(EmbeddedBaseMissing):  # the doctor says what to install
        if pipeline.roles.decomposer.base == "embedded" and not is_converted():
            reporter.station("base", "dequantizing the embedded base, once; 20 seconds or so")


def heed(findings: Iterable[Finding], reporter: Reporter) -> None:
    """Tell the doctor's warnings, and stop at the first thing that would stop the work.

    Raises:
        Unfit: With that thing.
    """
    for finding in findings:
        if finding.level == "failure":
            raise Unfit(f"{finding.what}: {finding.text}", finding.remedy)
        if finding.level == "warning":
            reporter.finished(finding.what, f"warning: {finding.text}")


def require_all_answered(results: dict[str, Any], lines: Sequence[dict[str, Any]]) -> None:
    """Raise where answers failed, with what was found nevertheless.

    Args:
        results: All that was found.
        lines: Its lines of arms.

    Raises:
        Incomplete: Some answers failed.
    """
    failed = sum(line["failed"] for line in lines)
    if failed:
        first = next(error for line in lines for error in line["errors"])
        incomplete = Incomplete(
            f"{failed} answers failed and are in no accuracy; the first: {first}",
            "Run the same command again; only what failed is asked again.",
        )
        incomplete.results = results
        raise incomplete


@dataclass
class Run:
    """A pipeline and its run folder.

    Attributes:
        pipeline: The validated pipeline file.
        folder: Where everything is kept.
        reporter: Who is told.
        shared: A store that several runs keep their replies in; by default the run has its own.
        loaded: The task, where it isn't the one that the file names.
    """

    pipeline: Pipeline
    folder: Path
    reporter: Reporter = field(default_factory=Silent)
    shared: RunStore | None = None
    loaded: LoadedTask | None = None
    _asking: bool = field(default=False, init=False)

    # -- what the stations share -----------------------------------------------------------------------------------

    @cached_property
    def store(self) -> RunStore:
        return self.shared or RunStore(self.folder)

    @cached_property
    def task(self) -> LoadedTask:
        if self.loaded is not None:
            return self.loaded
        task = self.pipeline.task
        return load_task(**task.model_dump())

    @cached_property
    def models(self) -> Models:
        log = self.folder / f"{self.pipeline.roles.decomposer.serve}.log"
        return Models(
            self.pipeline, self.store, lambda: [*self.task.train, *self.task.test], log,
            lambda text: self.reporter.finished("serve", text),
        )  # fmt: skip

    @property
    def base(self) -> Base:
        return self.models.base

    @property
    def teacher(self) -> dspy.LM:
        return self.models.teacher

    @property
    def solver(self) -> dspy.LM:
        return self.models.solver

    def program(
        self,
        decomposer: dspy.LM,
        *,
        as_teacher: bool = False,
        untrained: bool = False,
        solving: Solving | None = None,
    ) -> DivideAndConquer:
        """The one program of this run, with the given decomposer; solved in another way where one is given.

        A compiled instruction is everybody's. Demonstrations, compiled or shipped, are for models that weren't trained:
        a student has learnt from what they led to, and would pay for every token of them.
        """
        roles, settings = self.pipeline.roles, self.pipeline.program
        program = DivideAndConquer(
            decomposer, self.solver, solving=solving or settings.solving, max_subquestions=settings.max_subquestions,
            allow_whole=settings.allow_whole, salvage=settings.salvage, reask=settings.reask,
            decomposer_wording=Wording() if untrained or as_teacher else LEARNT,
            solver_wording=wording_of(roles.solver),
        )  # fmt: skip
        program.solve.adapter = adapter_of(roles.solver)
        if as_teacher:
            program.decompose.adapter = adapter_of(roles.teacher)
        compiled = self._compiled()
        if compiled:
            signature = program.decompose.signature
            program.decompose.signature = signature.with_instructions(compiled["instructions"])
            if as_teacher:
                program.decompose.demos = [_read_demo(demo) for demo in compiled["demos"]]
        return program

    def _student_program(self, folder: Path | None, solving: Solving | None = None) -> DivideAndConquer:
        """The program with a student in place; an adapter only answers the prompt it was trained on."""
        lm = self.models.student(folder)
        program = self.program(lm, untrained=folder is None, solving=solving)
        if folder is not None:
            bind_adapter(program.decompose, lm, folder, tokenizer=self.models.student_model.tokenizer)
        return program

    def _solver_student_program(self, name: str, folder: Path | None) -> DivideAndConquer:
        """The teacher's program with a solver's student in place; without a folder, what its rows are rendered with."""
        direct = name.endswith("-direct")
        program = self.program(self.teacher, as_teacher=True, solving="direct" if direct else "single_call")
        wording = Wording() if name == "se-untuned" else LEARNT
        program.solve = solver_role(
            SolveDirect if direct else Solve, self.solver, CompactAdapter(), wording, self.pipeline.program.reask
        )
        program.solver_wording = wording
        if folder is not None:
            lm = self.models.student(folder, "solver")
            bind_adapter(program.solve, lm, folder, tokenizer=self.models.student_model.tokenizer)
        return program

    def _compiled(self) -> dict[str, Any] | None:
        file = self.folder / "program.json"
        if self.pipeline.compile.optimizer == "none" or not file.is_file():
            return None
        state = json.loads(file.read_text(encoding="utf-8"))
        return state if self._asking or state.get("stamp") == self._compile_stamp else None

    @cached_property
    def _compile_stamp(self) -> str:
        return fingerprint(
            # Not the solver: swapping it mustn't pay the teacher for another collection.
            self.pipeline.compile.model_dump(), identity_of(self.teacher), self.pipeline.program.model_dump(),
            [item.id for item in self.task.train[: self.pipeline.compile.examples]], *self._grading,
        )  # fmt: skip

    @cached_property
    def _collection(self) -> str:
        teacher = self.program(self.teacher, as_teacher=True).decompose
        prompt = teacher.prompt(question="?", context="?")
        waiting = {"retries", "timeout", "first_token", "longest"}  # changes when an answer comes, not which
        endpoint = self.pipeline.roles.teacher.model_dump(exclude={"price", *waiting})
        settings = self.pipeline.collect.model_dump(exclude={"concurrency", "samples"})
        single = self.pipeline.collect.samples == 1  # a single sample is drawn at the endpoint's own temperature
        return fingerprint(endpoint, prompt, None if single else settings, self.pipeline.task.training_seed)

    def _screening(self, rule: str) -> str:
        settings = self.pipeline.screen.model_dump(exclude={"concurrency", "rule"})
        program = self.program(self.teacher, solving="single_call")
        parts = [rule, self._collection, settings, self.pipeline.program.max_subquestions]
        parts += self._grading if rule == "oracle" else []
        if rule == "oracle":
            parts += [
                READER,
                identity_of(self.solver),
                program.solve.prompt(question="?", subquestions=Subquestions(["a b?"])),
            ]
        return fingerprint(*parts)

    def close(self) -> None:
        """End the server of the student, where one was started, and close the store."""
        if "models" in self.__dict__:
            self.models.close()
        if "store" in self.__dict__ and self.shared is None:
            self.__dict__.pop("store").close()

    # -- stations --------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Everything that can fail before anything is paid for: the folder, the data, the base, the endpoints."""
        self.store  # noqa: B018 - made on first use
        task = self.task
        contents = (*task.train, *task.test)
        self.store.know_items(
            {
                i.id: fingerprint(i.question, i.context, i.answer, i.aliases, i.subquestions, *i.references)
                for i in contents
            }
        )
        self.reporter.station("check", f"{len(task.train)} training and {len(task.test)} test questions")
        self.base, self.solver, self.teacher  # noqa: B018 - made on first use
        bare = [item.id for item in contents if not item.subquestions]
        if bare and any(arm.startswith("references") for arm in self.pipeline.arms):
            raise Unfit(
                f"The arm references needs reference subquestions; {len(bare)} questions have none, first {bare[0]}.",
                "Leave it out of the arms, or take a task whose data has them.",
            )
        notes = self._about_references(contents)
        write_whole(self.folder / "pipeline.json", self.pipeline.model_dump_json(indent=2) + "\n")
        if task.dropped_overlap:
            notes.append(f"{task.dropped_overlap} training questions dropped, since they stand in the test set")
        if task.numbers_only_twins:
            notes.append(
                f"warning: {task.numbers_only_twins} training questions differ from a test question in numbers alone"
            )
        self.reporter.finished("check", "; ".join(notes) or "nothing in the way")

    def _about_references(self, items: Sequence[Item]) -> list[str]:
        """What becomes of reference subquestions where they are served: some can't be read back, some are too many.

        Raises:
            Unfit: None of them can be read.
        """
        asked = [arm.partition("/")[0] for arm in self.pipeline.arms]
        if "references" not in asked and not self.pipeline.roles.teacher.scripted:
            return []
        given = [item for item in items if item.subquestions]
        cap = self.pipeline.program.max_subquestions
        unread = sum(not _reads_back(item.subquestions) for item in given)
        if given and unread == len(given):
            raise Unfit(
                f"None of the {unread} reference decompositions is a list of subquestions, first {given[0].id}.",
                "Write each step as a question or an instruction.",
            )
        longer = sum(len(item.subquestions) > cap for item in given)
        notes = []
        if unread:
            notes.append(f"warning: {unread} of {len(given)} reference decompositions can't be read and fall back")
        if longer:
            notes.append(
                f"warning: {longer} of {len(given)} reference decompositions lose what is beyond "
                f"program.max_subquestions ({cap})"
            )
        return notes

    def examine(self) -> None:
        """Have the doctor look at what is still to be asked, before anything is paid for.

        Raises:
            Unfit: Something would stop the run; the first such thing is named.
        """
        wanted = len(self.task.train) * self.pipeline.collect.samples
        asks = []
        if len(self.store.trace_keys(self._collection)) < wanted:
            asks.append("teacher")
        if not (self.folder / "results.json").is_file():
            asks += ["solver", *(["decomposer"] if any(map(_is_served, self.pipeline.arms)) else [])]
        if not asks:
            return
        announce_conversion(self.pipeline, self.reporter)
        heed(diagnose(self.pipeline, self.folder, asks=tuple(asks)), self.reporter)

    def compile(self) -> None:
        """Optimize the teacher's prompt, if the file asks for it."""
        settings = self.pipeline.compile
        if settings.optimizer == "none":
            return
        if self._compiled() is not None:
            self.reporter.finished("compile", "there already")
            return
        self.reporter.station("compile", f"{settings.optimizer} on up to {settings.examples} questions")
        program = self.program(self.teacher, as_teacher=True)
        compiled = compile_program(
            program,
            settings.optimizer,
            self.task.train[: settings.examples],
            self.is_right,
            settings.arguments,
            prompt_lm=self.teacher,
        )
        state = {
            "stamp": self._compile_stamp,
            "optimizer": settings.optimizer,
            "instructions": compiled.decompose.signature.instructions,
            "demos": [_write_demo(demo) for demo in compiled.decompose.demos],
        }
        write_whole(self.folder / "program.json", json.dumps(state, indent=2, ensure_ascii=False) + "\n")
        self.reporter.finished("compile", f"{len(state['demos'])} demos for the teacher's decompose")

    def collect(self) -> None:
        """Ask the teacher for what isn't there."""
        settings = self.pipeline.collect
        teacher = self.pipeline.roles.teacher
        scripted = " (scripted, not a model)" if teacher.scripted else ""
        self.reporter.station("collect", f"{settings.samples} decompositions a question from {teacher.model}{scripted}")
        with self._watched("collect") as progress:
            found = collect(
                self.program(self.teacher, as_teacher=True).decompose, self.task.train, self.store, self._collection,
                samples=settings.samples, temperature=sampling_temperature(self.teacher, settings.temperature),
                concurrency=settings.concurrency, progress=progress,
            )  # fmt: skip
        self._require_whole("collect", found.failed, found.asked, found.first_error)
        self.reporter.finished("collect", f"{found.asked} traces")

    def screen(self) -> dict[str, Screened]:
        """Judge the traces by every rule."""
        traces = self._traces()
        results = {}
        for rule in self.pipeline.screen.rules:
            settings = self.pipeline.screen
            student = STUDENTS[rule]
            self.reporter.station("screen", f"rule {rule} for {student.upper()}, {len(traces)} traces")
            with self._watched(f"screen {rule}") as progress:
                screened = screen(
                    rule, traces, self.task.train, self.store, self._screening(rule),
                    solve=self.program(self.teacher, solving="single_call").solve, grade=self.is_right,
                    samples=settings.samples,
                    temperature=sampling_temperature(self.solver, settings.temperature),
                    max_subquestions=self.pipeline.program.max_subquestions,
                    keep_whole=settings.keep_whole, concurrency=settings.concurrency, progress=progress,
                )  # fmt: skip
            self._require_whole("screen", screened.failed, screened.collected, screened.first_error)
            counts = screened.counts()
            write_whole(self.folder / "screening" / f"{student}.json", json.dumps(counts, indent=2) + "\n")
            lost = ", ".join(f"{count} {reason}" for reason, count in counts["lost"].items()) or "none"
            self.reporter.finished(f"screen {rule}", f"kept {counts['kept']} of {counts['collected']}; lost: {lost}")
            results[student] = screened
        return results

    def export(self, screened: dict[str, Screened] | None = None) -> dict[str, Export]:
        """Write the training rows of every student."""
        exports = {}
        for student, kept in (screened or self.screen()).items():
            rule = next(rule for rule, name in STUDENTS.items() if name == student)
            rows = export(
                self.program(self.teacher).decompose, kept, self.task.train, self._rows(student), student,
                self._export_stamp(rule),
            )  # fmt: skip
            self.reporter.finished(f"export {student}", f"{rows.rows} rows in {rows.file}")
            exports[student] = rows
        wanted = self.pipeline.solver_students
        if all(self._stamp_of(self._rows(student)) == self._target_stamp(student) for student in wanted):
            return exports
        solved = self._solved()
        for student in wanted:
            solve = self._solver_student_program(student, None).solve
            rows = export_targets(
                student, solve, solved, self.task.train, self._rows(student), self._target_stamp(student)
            )
            self.reporter.finished(f"export {student}", f"{rows.rows} rows in {rows.file}")
            exports[student] = rows
        return exports

    def _solved(self) -> SolvedTraces:
        """The solver's replies to the teacher's decompositions; those that screening drew are in the store."""
        settings = self.pipeline
        cap, whole = settings.program.max_subquestions, settings.screen.keep_whole
        traces = [trace for trace in self._traces() if well_formed(trace, cap, whole) is None]
        self.reporter.station("export", f"the solver's replies to {len(traces)} decompositions, for its students")
        with self._watched("export") as progress:
            solved = solve_traces(
                self.program(self.teacher, solving="single_call").solve, traces, self.task.train,
                concurrency=settings.screen.concurrency, progress=progress,
            )  # fmt: skip
        self._require_whole("export", solved.failed, len(traces), solved.first_error)
        return solved

    def train(self) -> dict[str, Path]:
        """Train an adapter on every export that has none."""
        adapters = {}
        for student in self.pipeline.students:
            rows, folder = self._rows(student), self.folder / "adapters" / student
            if self._stamp_of(rows) != self._wanted_stamp(student):
                raise MissingStation(
                    f"There are no training rows at {rows}, or they were exported with other settings than these.",
                    "Run 'divcon export' first.",
                )
            adapters[student] = folder
            if self._is_current(folder, rows):
                self.reporter.finished(f"train {student}", "there already")
                continue
            self.reporter.station("train", f"{student.upper()} on {rows.name}")
            with watched(self.reporter, f"train {student}", unit="steps") as progress:
                manifest = train_adapter(
                    rows, self.base, folder, self.pipeline.train, student=student,
                    role="decomposer" if student in STUDENTS.values() else "solver",
                    screening=json.loads(rows.with_suffix(".manifest.json").read_text(encoding="utf-8"))["screening"],
                    scripted_teacher=self.pipeline.roles.teacher.scripted,
                    progress=by_loss(progress),
                )  # fmt: skip
            result = manifest.result
            self.reporter.finished(
                f"train {student}",
                f"{manifest.rows} rows, {result['steps']} steps, loss {result['first_loss']} to {result['last_loss']}, "
                f"{result['seconds']:.0f} s",
            )
        return adapters

    def arms(self) -> list[Arm]:
        """The arms of the evaluation, bound to their models."""
        return [self.arm(name) for name in self.pipeline.arms]

    def arm(self, name: str, adapter: Path | None = None, origin: str = "") -> Arm:
        """One arm, bound to its models.

        Args:
            name: As in `evaluate.arms`.
            adapter: The student's adapter, where it isn't this run's own; it was trained on the same prompt.
            origin: Where that adapter comes from, for the label.

        Raises:
            MissingStation: The student isn't trained, or on other rows or settings.
            ManifestError: It was trained on another prompt or base.
        """
        base, _, way = name.partition("/")
        solving = cast("Solving | None", way or None)
        endpoint, solver = self.pipeline.roles.solver, identity_of(self.solver)
        reask = self.pipeline.program.reask
        trained = base in TRAINED
        folder = (adapter or self._adapter(base)) if trained else None
        built: Any
        decomposer: Any
        if base == "direct":
            built = Direct(self.solver, adapter=adapter_of(endpoint), wording=wording_of(endpoint), reask=reask)
            decomposer = None
        elif base == "cot":
            built = ChainOfThought(self.solver, adapter=adapter_of(endpoint), wording=wording_of(endpoint), reask=reask)
            decomposer = None
        elif base == "self-ask":
            # Reasoning models take no stop strings; self-ask cuts their replies itself.
            stop = "max_completion_tokens" not in self.teacher.kwargs
            built = SelfAsk(
                self.teacher, self.solver, max_steps=self.pipeline.program.max_subquestions, stop=stop,
                solver_wording=wording_of(endpoint), reask=reask, adapter=adapter_of(endpoint),
            )  # fmt: skip
            built.decompose.adapter = adapter_of(self.pipeline.roles.teacher)
            decomposer = [identity_of(self.teacher), built.decompose.prompt(question="?", context="?")]
        elif base == "teacher":
            built, decomposer = self.program(self.teacher, as_teacher=True, solving=solving), self._collection
        elif base in SOLVING:
            built, decomposer = self._solver_student_program(base, folder), self._collection
            if not trained:
                built.solve.lm = self.models.student(None, "solver")
            solver = identity_of(built.solve.lm)
        else:
            if base == "references":
                built = self.program(self.models.references, solving=solving)
            else:
                built = self._student_program(folder, solving)
            decomposer = fingerprint(identity_of(built.decompose.lm), built.decompose.prompt(question="?", context="?"))
        prompt = built.solve.prompt(question="?", context="?")
        stamp = fingerprint(name, solver, self.pipeline.program.model_dump(), decomposer, prompt, READER)
        label = LABELS[base] + (f", solved {_WAYS[way]}" if way else "") + (f", {origin}" if origin else "")
        if base in _ASKED_OF_TEACHER and self.pipeline.roles.teacher.scripted:
            label += " (scripted)"
        served = _is_served(name) and self.models.student_model.warms_up
        local = ("solver" if base in SOLVING else "decomposer",) if _is_served(name) else ()
        grading = self._grading
        return Arm(
            name, built, fingerprint(stamp, *grading) if grading else stamp, label, served, local,
            self._prices_of(base), grade_as_paper if "paper" in grading else grade,
        )  # fmt: skip

    def _prices_of(self, arm: str) -> dict[str, dict[str, float]]:
        """The prices of an arm's roles: its planner may be the teacher or a student, and its solver too."""
        known = self.prices()
        planner = known.get("teacher" if arm in _ASKED_OF_TEACHER else "decomposer")
        solver = known.get("decomposer" if arm in SOLVING else "solver")
        found = {"decomposer": None if arm == "references" else planner, "solver": solver}
        return {role: price for role, price in found.items() if price}

    @property
    def _grading(self) -> list[str]:
        """How answers are graded, where that isn't as by default; part of what a verdict depends on."""
        paper = self.pipeline.evaluate.grader == "paper"
        return [*(["paper"] if paper else []), *(["percent"] if self.pipeline.task.percent else [])]

    def is_right(self, item: Item, answer: str) -> bool:
        """Whether an answer is right by the grader of this run."""
        return (grade_as_paper if "paper" in self._grading else grade)(item, answer).right

    def _adapter(self, student: str) -> Path:
        folder, rows = self.folder / "adapters" / student, self._rows(student)
        if self._stamp_of(rows) != self._wanted_stamp(student) or not self._is_current(folder, rows):
            raise MissingStation(
                f"The student {student.upper()} isn't trained, or on other rows or settings than these.",
                "Run 'divcon train' first.",
            )
        return folder

    def evaluate(self, seconds: dict[str, float] | None = None) -> dict[str, Any]:
        """Measure every arm on the test questions, and write `results.json`, `results.csv` and `report.html`."""
        arms = self.arms()
        test, settings = self.task.test, self.pipeline.evaluate
        self.reporter.station("evaluate", f"{len(arms)} arms on {len(test)} questions")
        with self._watched("evaluate") as progress:
            found = evaluate_arms(
                arms, test, self.store, concurrency=settings.concurrency,
                progress=by_arm(progress),
            )  # fmt: skip
        records = {arm.name: answers for arm, answers in zip(arms, found, strict=True)}
        for arm in arms:
            right = sum(record["outcome"] == "right" for record in records[arm.name].values())
            self.reporter.finished(f"evaluate {arm.name}", f"{right} of {len(test)} right")
        results = self._results(arms, records, seconds or {})
        write_whole(self.folder / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")
        write_whole(self.folder / "results.csv", as_csv(results["arms"]))
        write_report(results, records, test, self.folder / "report.html")
        if tracking := self.pipeline.tracking:
            files = [self.folder / name for name in ("results.json", "results.csv", "report.html")]
            log_to_mlflow(tracking.mlflow, tracking.experiment, self.folder.name, results, files)
        require_all_answered(results, results["arms"])
        return results

    def run(self) -> dict[str, Any]:
        """All stations in order."""
        seconds: dict[str, float] = {}

        def timed(name: str, station: Callable[[], Any]) -> Any:
            started = time.perf_counter()
            found = station()
            seconds[name] = round(time.perf_counter() - started, 1)
            return found

        timed("check", self.check)
        self.examine()
        timed("compile", self.compile)
        self.__dict__.pop("_collection", None)  # the compiled prompt is part of it
        timed("collect", self.collect)
        screened = timed("screen", self.screen)
        timed("export", lambda: self.export(screened))
        timed("train", self.train)
        return self.evaluate(seconds)

    def ask(self, question: str, context: str | None = None, student: str | None = None) -> dspy.Prediction:
        """Answer one question with the program of this run.

        Args:
            question: The question.
            context: A passage.
            student: `sd-r`, `sd-t` or `untuned`; the best trained one by default.
        """
        if not question.strip():
            raise DivconError("The question is empty.", "Write one.")
        if len(question) > LONGEST_QUESTION:
            raise DivconError(
                f"The question has {len(question):,} characters, over {LONGEST_QUESTION:,}.",
                "Put the passage into --context and keep the question short.",
            )
        program, name = self.answering_program(student)
        prediction = program(question=question, context=context)
        prediction.student = name
        return prediction

    def answering_program(self, student: str | None = None) -> tuple[DivideAndConquer, str]:
        """The program of this run with a student in place, and the student's name.

        Args:
            student: `sd-r`, `sd-t` or `untuned`; the best trained one by default.

        Raises:
            MissingStation: That student isn't trained.
        """
        self._asking = True  # the run's own compiled prompt and students, whatever has become of its data since
        name, folder = self.students(student)[0]
        return self._student_program(folder), name

    def students(self, student: str | None = None) -> list[tuple[str, Path | None]]:
        """Name and adapter of the trained students, the best first; the untuned one, without, where there is none.

        Args:
            student: Only this one: `sd-r`, `sd-t` or `untuned`.

        Raises:
            DivconError: There is no such student.
            MissingStation: It isn't trained.
        """
        folders = {name: self.folder / "adapters" / name for name in ("sd-r", "sd-t")}
        trained: list[tuple[str, Path | None]] = [(n, folder) for n, folder in folders.items() if is_trained(folder)]
        if student is None:
            return trained or [("untuned", None)]
        if student == "untuned":
            return [("untuned", None)]
        if student not in folders:
            raise DivconError(f"There is no student '{student}'.", "Take sd-r, sd-t or untuned.")
        if (student, folders[student]) not in trained:
            raise MissingStation(
                f"The student {student.upper()} isn't trained in {self.folder}.", "Run 'divcon train'."
            )
        return [(student, folders[student])]

    def lms(self, student: str | None = None) -> dict[str, dspy.LM]:
        """The LMs of this run by role, for `divcon.bind`.

        Args:
            student: As in `answering_program`.
        """
        program, _ = self.answering_program(student)
        return {"decomposer": program.decompose.lm, "solver": program.solve.lm}

    # -- costs -----------------------------------------------------------------------------------------------------

    def prices(self) -> dict[str, dict[str, float]]:
        """US dollars per million tokens by role, of those that the file gives."""
        roles = self.pipeline.roles
        given = {"teacher": roles.teacher.price, "decomposer": roles.decomposer.price, "solver": roles.solver.price}
        return {role: price.model_dump(exclude_none=True) for role, price in given.items() if price}

    def upfront(self, student: str, cell: str | None = None) -> dict[str, Any]:
        """What a trained student of this run cost before its first answer; see `benchmarks.upfront`.

        Args:
            student: Its name.
            cell: Of an experiment, where the store holds several runs.
        """
        stations = ["compile", "collect"] if student == "sd-t" else ["compile", "collect", "screen"]
        paid = [self.store.paid(station, cell, self.prices()) for station in stations]
        seconds = read_manifest(self.folder / "adapters" / student).result["seconds"]
        return upfront(paid, seconds, self.pipeline.costs.training_hour)

    # -- small things ----------------------------------------------------------------------------------------------

    def _traces(self) -> list[Trace]:
        wanted = {item.id for item in self.task.train}
        samples = self.pipeline.collect.samples
        traces = [t for t in self.store.traces(self._collection) if t.item in wanted and t.sample < samples]
        if not traces:
            raise MissingStation("Nothing was collected in this run folder.", "Run 'divcon collect' first.")
        return traces

    def _rows(self, student: str) -> Path:
        return self.folder / "exports" / f"{student}.jsonl"

    def _export_stamp(self, rule: str) -> str:
        return fingerprint(self._screening(rule), [i.id for i in self.task.train], self.pipeline.collect.samples)

    def _wanted_stamp(self, student: str) -> str:
        """What a student's rows have to be exported from, by this pipeline."""
        rule = next((rule for rule, name in STUDENTS.items() if name == student), None)
        return self._target_stamp(student) if rule is None else self._export_stamp(rule)

    def _target_stamp(self, student: str) -> str:
        program = self._solver_student_program(student, None)
        asked = self.program(self.teacher, solving="single_call").solve.prompt(question="?", subquestions="1. a b?")
        return fingerprint(
            student, self._collection, identity_of(self.solver), asked, program.solve.prompt(question="?"),
            [item.id for item in self.task.train], self.pipeline.collect.samples, self.pipeline.screen.keep_whole,
            self.pipeline.program.max_subquestions,
        )  # fmt: skip

    @staticmethod
    def _stamp_of(rows: Path) -> str | None:
        manifest = rows.with_suffix(".manifest.json")
        if not (rows.is_file() and manifest.is_file()):
            return None
        stamp: str | None = json.loads(manifest.read_text(encoding="utf-8")).get("stamp")
        return stamp

    def _is_current(self, folder: Path, rows: Path) -> bool:
        if not (is_trained(folder) and rows.is_file()):
            return False
        manifest = read_manifest(folder)
        return (
            manifest.data_hash == hashlib.sha256(rows.read_bytes()).hexdigest()
            and TrainSettings.model_validate(manifest.settings) == self.pipeline.train
            and manifest.base["revision"] == self.base.revision
        )

    def _watched(self, name: str) -> AbstractContextManager[Progress]:
        return watched(self.reporter, name, self.store, self.prices())

    def _require_whole(self, station: str, failed: int, total: int, first_error: str | None) -> None:
        if failed:
            raise Incomplete(
                f"{station}: {failed} of {total} calls failed; the first: {first_error}",
                "What was answered is kept. Run the same command again; only what failed is asked again.",
            )

    def _results(
        self, arms: list[Arm], records: dict[str, dict[str, dict[str, Any]]], seconds: dict[str, float]
    ) -> dict[str, Any]:
        resamples = self.pipeline.evaluate.resamples
        lines = []
        for arm in arms:
            line = summarize_arm(arm.name, arm.label, [records[arm.name]], resamples, arm.local, arm.prices)
            if arm.name not in SINGLE:
                line["agreement"] = agreement(records[arm.name], self.task.test)
            lines.append(line)
        students = {name: self.folder / "adapters" / name for name in self.pipeline.students}
        manifests = {name: read_manifest(folder) for name, folder in students.items() if is_trained(folder)}
        screening = {name: manifest.screening for name, manifest in manifests.items()}
        main = screening.get("sd-r") or next(iter(screening.values()), {})
        teacher = self.pipeline.roles.teacher
        return {
            "task": self.pipeline.task.model_dump(mode="json", exclude={"path", "test_path"}),
            "questions": len(self.task.test),
            "teacher": {"model": teacher.model, "scripted": teacher.scripted},
            "solver": self.pipeline.roles.solver.model,
            "student_base": self.base.id,
            "program": self.pipeline.program.model_dump(),
            "configuration": configuration_of(self.pipeline),
            "arms": lines,
            "differences": differences({name: [found] for name, found in records.items()}, resamples),
            "costs": compare_costs(lines, {name: self.upfront(name) for name in manifests}),
            "screening": {**{key: main.get(key) for key in ("collected", "kept", "lost")}, "by_student": screening},
            "training": {name: {"rows": m.rows, **m.result} for name, m in manifests.items()},
            "paid": self.store.paid(prices=self.prices()),
            "seconds": seconds,
            "versions": next(iter(manifests.values())).versions if manifests else {},
        }


_WAYS = {"direct": "without steps", "stepwise": "step by step", "dag": "as a graph"}


def _reads_back(asked: Sequence[str]) -> bool:
    try:
        return bool(Subquestions.read(Subquestions(asked).render()))
    except ValueError:  # SubquestionsError, or pydantic's around it
        return False


def _is_served(arm: str) -> bool:
    """Whether an arm's student answers, tuned or not."""
    return arm.partition("/")[0] in ("untuned", "se-untuned", *TRAINED)


def _write_demo(demo: dict[str, Any]) -> dict[str, Any]:
    return {key: value.render() if isinstance(value, Subquestions) else value for key, value in demo.items()}


def _read_demo(demo: dict[str, Any]) -> dict[str, Any]:
    return {key: Subquestions.read(value) if key == "subquestions" else value for key, value in demo.items()}


_KEY_OF = {"decomposer": "decomposer.server"}


def explain_lm_error(error: LMError, pipeline: Pipeline) -> DivconError:
    """An LM's error in the words of the pipeline file: which role, which server, what to do."""
    from dspy.utils.exceptions import LMAuthError, LMNotConfiguredError, LMTimeoutError

    if (ours := error_behind(error)) is not None:
        return ours
    notes = getattr(error, "__notes__", [])
    role = next((note.removeprefix("role: ") for note in notes if note.startswith("role: ")), None)
    endpoint = getattr(pipeline.roles, role, None) if role in ("teacher", "solver") else None
    who = f"The {role}" if role else "A model"
    at = ""
    if isinstance(endpoint, Endpoint):
        who = f"The {role} ({endpoint.model})"
        at = f" at {endpoint.api_base}" if endpoint.api_base else ""
    kept = "What was answered before is kept."
    if isinstance(error, (LMAuthError, LMNotConfiguredError)):
        variable = getattr(endpoint, "api_key_env", None) or "the provider's usual one, such as OPENAI_API_KEY"
        return DivconError(
            f"{who}{at} refused the key, or has none.", f"Set the environment variable ({variable}). {kept}"
        )
    setting = f"roles.{_KEY_OF.get(role or 'teacher', role)}."
    problem, remedy = trouble(error, setting, "the station's concurrency")
    if role == "decomposer" and isinstance(error, LMTimeoutError):
        remedy = "Lower the station's concurrency"  # a student's limits aren't set in the file
    if remedy:
        return DivconError(f"{who}{at} {problem}.", f"{remedy}. {kept}")
    return DivconError(f"{who}{at} failed: {type(error).__name__}: {error.message}", f"{kept} Run again to go on.")
