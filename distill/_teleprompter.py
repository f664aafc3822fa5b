"""`DistillDecomposer`: the stations as one DSPy teleprompter, for the planner of any program.

It runs the program with the teacher in the planner's place, keeps the planner's calls that led to a good end, trains
a student on them, and gives back a copy of the program in which the student plans.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import dspy
from dspy.teleprompt.teleprompt import Teleprompter
from dspy.utils.exceptions import AdapterParseError
from filelock import FileLock, Timeout

from divcon.distill._bind import bind_adapter
from divcon.distill._engine import at_station
from divcon.distill._jobs import run_jobs
from divcon.distill._manifest import prompt_parts
from divcon.distill._provider import embedded_lm
from divcon.distill._rebinding import DistillationError, StoredLMs, behind_store, with_planner
from divcon.distill._recording import PlannerCall, RecordedPlanner, recording, run_program, why_unusable
from divcon.distill._store import RunStore, fingerprint
from divcon.distill.serving.embedded import local_base
from divcon.distill.serving.embedded._model import shared_model
from divcon.distill.training import (
    Destination,
    Provenance,
    Training,
    TrainSettings,
    already_trained,
    train_adapter,
    write_rows,
)
from divcon.programs import ChatAdapter, CompactAdapter, RolePredict, why_refused
from divcon.signatures import Subquestions

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, eq=False)
class _Run:
    """One run of the program."""

    example: dspy.Example
    sample: int


class DistillDecomposer(Teleprompter):
    """Moves one predictor of a program to a small local model.

    Everything asked on the way is kept in `folder` and asked for once: a compilation that failed or was stopped goes
    on when it is started again.

    Args:
        metric: (example, prediction, trace) to bool or a number; a run counts as good from `threshold` on.
        folder: Where replies, rows and the adapter are kept.
        predictor: The planner's name, as `named_predictors()` has it.
        base: The student's base: `embedded`, a folder, or a hub name.
        adapter: How the student is asked; `CompactAdapter` by default.
        train: How it is trained.
        samples: Runs of the program for every example; the first good ones of it are kept.
        temperature: Of the teacher where there are several samples.
        threshold: The score from which a run is good.
        max_tokens: The longest reply of the student.
        concurrency: Runs at a time.
        progress: Called with (station, done, in all).

    Examples:
        >>> tune = DistillDecomposer(lambda e, p, t=None: p.answer == e.answer, folder="runs/mine", predictor="plan")
        >>> tune.predictor
        'plan'
    """

    def __init__(
        self,
        metric: Callable[..., Any],
        folder: Path | str,
        *,
        predictor: str = "decompose",
        base: str = "embedded",
        adapter: dspy.Adapter | None = None,
        train: TrainSettings | None = None,
        samples: int = 1,
        temperature: float = 0.7,
        threshold: float = 1.0,
        max_tokens: int = 128,
        concurrency: int = 16,
        progress: Progress | None = None,
    ) -> None:
        super().__init__()
        self.metric = metric
        self.folder = Path(folder)
        self.predictor = predictor
        self.base = base
        self.adapter = adapter or CompactAdapter()
        self.settings = train or TrainSettings()
        self.samples = samples
        self.temperature = temperature
        self.threshold = threshold
        self.max_tokens = max_tokens
        self.concurrency = concurrency
        self.progress = progress

    def compile(
        self,
        student: dspy.Module,
        *,
        trainset: list[dspy.Example],
        teacher: Any = None,
        valset: list[dspy.Example] | None = None,
    ) -> dspy.Module:
        """Distil the planner.

        Args:
            student: The program. It isn't changed.
            trainset: Examples with inputs set.
            teacher: An LM for the planner's place, or a program of the same structure (or a list with one); by
                default the program as it is teaches, with the LM its planner has.
            valset: Examples to score before and after; the scores are in the result's `distillation`.

        Returns:
            A copy whose planner runs on the student; its `distillation` holds the counts.

        Raises:
            DistillationError: See the class. The program is as it was, and what was answered is kept.
            dspy.LMError: A call failed.
            TrainingError: The rows can't be trained on.
        """
        if not trainset:
            raise DistillationError("The trainset is empty.", "Give examples with .with_inputs(...).")
        planner = self._planner(student)
        self._require_text(planner)
        teaching = self._teaching(student, teacher)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "compile.lock", timeout=0):
                return self._compile(student, planner, teaching, trainset, valset)
        except Timeout as error:
            raise DistillationError(
                f"Another compilation is at work in {self.folder}.",
                "Wait for it, or give this one a folder of its own.",
            ) from error

    def _compile(
        self,
        student: dspy.Module,
        planner: Any,
        teaching: dspy.Module,
        trainset: Sequence[dspy.Example],
        valset: Sequence[dspy.Example] | None,
    ) -> dspy.Module:
        store = RunStore(self.folder)
        try:
            rows, counts = self._collect(teaching, trainset, store, self._student(planner, None))
            folder, manifest = self._train(planner, rows, counts)
            lm = embedded_lm(self.base, adapter=folder, max_tokens=self.max_tokens)
            role = self._student(planner, lm)
            bind_adapter(role, lm, folder, tokenizer=shared_model(local_base(self.base)).tokenizer)
            compiled = with_planner(student.deepcopy(), self.predictor, role)
            compiled.distillation = {
                **counts, "training": manifest.result, "served": role.trained, "adapter": str(folder)
            }  # fmt: skip
            if valset:
                compiled.distillation["valset"] = {
                    "before": self._score(student, valset, store),
                    "after": self._score(compiled, valset, store),
                }
        except Exception:
            store.close()
            raise  # not on Ctrl-C: what is in flight still lands in the store
        store.close()
        compiled._compiled = True
        return compiled

    # -- stations --------------------------------------------------------------------------------------------------

    def _collect(
        self, teaching: dspy.Module, trainset: Sequence[dspy.Example], store: RunStore, student: RolePredict
    ) -> tuple[list[PlannerCall], dict[str, Any]]:
        """The planner's calls in the runs that ended well, and the counts of the others."""
        stored: StoredLMs = {}
        programs = [self._recorded(teaching, store, stored, sample) for sample in range(self.samples)]
        jobs = [_Run(example, sample) for sample in range(self.samples) for example in trainset]
        results: dict[int, list[PlannerCall] | str] = {}
        failed: list[_Run] = []
        told = self.progress
        with at_station("collect"):
            tally = run_jobs(
                lambda job: self._run(programs[job.sample], job.example, student),
                jobs,
                self.concurrency,
                lambda job, found: results.update({id(job): found}),
                failed=lambda job, error: failed.append(job),
                progress=(lambda done, total, remark="": told("collect", done, total)) if told else None,
            )
        if tally.first_error is not None:
            first = repr(failed[0].example.inputs().toDict())[:120]
            raise DistillationError(
                f"{tally.failed} of {len(jobs)} runs of the program failed; the first, on {first}: {tally.said}.",
                f"What was answered is kept in {self.folder}; compile again, and only what failed is asked again.",
            ) from tally.first_error
        found = [results[id(job)] for job in jobs]
        lost = Counter(reason for reason in found if isinstance(reason, str))
        kept = [calls for calls in found if not isinstance(calls, str)]
        if not kept:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(lost.items()))
            raise DistillationError(
                f"Of {len(jobs)} runs of the program none can be learnt from ({reasons}).",
                "Try the program and the metric on a few examples, or lower the threshold.",
            )
        counts = {"collected": len(jobs), "kept": len(kept), "lost": dict(sorted(lost.items()))}
        return [call for calls in kept for call in calls], counts

    def _run(self, program: dspy.Module, example: dspy.Example, student: RolePredict) -> list[PlannerCall] | str:
        """The planner's calls in one run, or why they aren't learnt from."""
        with recording() as notes, dspy.context(trace=[]):
            try:
                prediction = run_program(program, example)
            except AdapterParseError as error:
                return why_refused(error)
            trace = list(dspy.settings.trace)
        # Attempts that the program threw away (BestOfN) are in no trace.
        counted = {id(prediction) for _, _, prediction in trace}
        good = [call for prediction, call in notes if id(prediction) in counted]
        if not good:
            return "not_asked"
        if self._value(self.metric(example, prediction, trace)) < self.threshold:
            return "unsolved"
        return next((why for call in good if (why := why_unusable(program, student, call))), None) or good

    def _train(self, planner: Any, rows: Sequence[PlannerCall], counts: dict[str, Any]) -> tuple[Path, Any]:
        role = self._student(planner, None)
        rendered = [role.training_row(row.inputs, row.outputs) for row in rows]
        unique = list({json.dumps(row): row for row in rendered}.values())
        name = "".join(letter if letter.isalnum() else "-" for letter in self.predictor).strip("-")
        base = local_base(self.base)
        template = shared_model(base).tokenizer.chat_template
        # Named after what it is made of: a program compiled earlier goes on with the adapter that it has.
        made_of = fingerprint(
            unique, self.settings.deciding(), base.id, base.revision, template, prompt_parts(role), self.predictor
        )[:8]
        file = self.folder / "exports" / f"{name}-{made_of}.jsonl"
        folder = self.folder / "adapters" / f"{name}-{made_of}"
        write_rows(unique, role, Destination(file, name), counts)
        training = Training(file, base, folder, self.settings)
        if (there := already_trained(training)) is not None:
            return folder, there
        told = self.progress
        progress = (lambda done, total, loss: told("train", done, total)) if told else None
        manifest = train_adapter(
            training,
            Provenance(_role_name(planner, self.predictor), student=name, screening=counts),
            progress=progress,
        )
        return folder, manifest

    # -- the programs ----------------------------------------------------------------------------------------------

    def _planner(self, program: dspy.Module) -> Any:
        named = dict(program.named_predictors())
        if self.predictor not in named:
            raise DistillationError(
                f"The program has no predictor '{self.predictor}'; it has {', '.join(named) or 'none'}.",
                "Name one of them as predictor=...",
            )
        return named[self.predictor]

    def _teaching(self, student: dspy.Module, teacher: Any) -> dspy.Module:
        if isinstance(teacher, (list, tuple)):
            if len(teacher) > 1:
                raise DistillationError("There are several teachers.", "Give one; compile again for another.")
            teacher = teacher[0] if teacher else None
        if isinstance(teacher, dspy.Module):
            self._planner(teacher)
            return teacher.deepcopy()
        teaching: dspy.Module = student.deepcopy()
        if teacher is not None:
            if not isinstance(teacher, dspy.BaseLM):
                raise DistillationError(
                    f"The teacher is a {type(teacher).__name__}, neither an LM nor a program.", "Give dspy.LM(...)."
                )
            self._planner(teaching).lm = teacher
        return teaching

    def _recorded(self, teaching: dspy.Module, store: RunStore, stored: StoredLMs, sample: int) -> dspy.Module:
        """The teaching program behind the store, its planner one that is watched and refuses replies cut off."""
        program = behind_store(teaching, self.predictor, store, stored)
        given = self._planner(program)
        adapter = given.adapter if isinstance(given, RolePredict) else dspy.settings.adapter or ChatAdapter()
        planner = RecordedPlanner(
            given.signature, _role_name(given, self.predictor), lm=given.lm, adapter=adapter, refuse_cut_off=True,
            **given.config,
        )  # fmt: skip
        planner.demos = given.demos
        if self.samples > 1:
            planner.config = {**planner.config, "rollout_id": sample, "temperature": self.temperature}
        return with_planner(program, self.predictor, planner)

    def _require_text(self, planner: Any) -> None:
        fields = {**planner.signature.input_fields, **planner.signature.output_fields}
        for name, field in fields.items():
            for kind in (field.annotation, *get_args(field.annotation)):
                if isinstance(kind, type) and kind is not Subquestions and issubclass(kind, (dspy.Type, dspy.History)):
                    raise DistillationError(
                        f"The planner's field '{name}' is a {kind.__name__}, and the student reads and writes text.",
                        "Give the planner a text field instead, or distil another predictor.",
                    )

    def _student(self, planner: Any, lm: dspy.BaseLM | None) -> RolePredict:
        """The planner as the student is asked: its instruction, no demonstrations, the student's adapter."""
        return RolePredict(
            planner.signature, _role_name(planner, self.predictor), lm=lm, adapter=self.adapter, refuse_cut_off=True
        )

    def _score(self, given: dspy.Module, valset: Sequence[dspy.Example], store: RunStore) -> dict[str, Any]:
        """Three-valued: the mean over what was answered, and how many failed."""
        program = behind_store(given, self.predictor, store, {})

        values: list[float] = []

        def answer(example: dspy.Example) -> float:
            with contextlib.suppress(AdapterParseError):
                return self._value(self.metric(example, run_program(program, example)))
            return 0.0

        run_jobs(answer, list(valset), self.concurrency, lambda example, value: values.append(value))
        answered = len(values)
        score = mean(values) if values else None
        return {"score": score, "answered": answered, "failed": len(valset) - answered}

    @staticmethod
    def _value(score: Any) -> float:
        return float(getattr(score, "score", score))


def _role_name(predictor: Any, name: str) -> str:
    return predictor.role if isinstance(predictor, RolePredict) else name
