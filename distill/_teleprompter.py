"""`DistillDecomposer`: the stations from collect to bind as one DSPy teleprompter, for the planner of any program.

It runs the program with the teacher as the planner, keeps the planner's calls of the runs that score well, trains a
student on them, and returns a copy of the program whose planner is the student.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import dspy
from dspy.teleprompt.teleprompt import Teleprompter
from dspy.utils.exceptions import AdapterParseError
from filelock import FileLock, Timeout

from divcon.distill._bind import bind_adapter
from divcon.distill._booking import at_station
from divcon.distill._jobs import run_jobs
from divcon.distill._manifest import prompt_parts
from divcon.distill._paths import expanded_path
from divcon.distill._provider import embedded_lm
from divcon.distill._rebinding import DistillationError, StoredLMs, behind_store, with_planner
from divcon.distill._recording import PlannerCall, RecordedPlanner, recording, run_program, why_unusable
from divcon.distill._store import RunStore, fingerprint
from divcon.distill._teacher import Author
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
from divcon.programs._arguments import require_callable, require_instance, require_program, require_whole_number
from divcon.signatures import Subquestions

Progress = Callable[[str, int, int], None]
_TRAINED_WITH = ("torch", "transformers", "peft", "trl", "datasets")  # the extra `train`


@dataclass(frozen=True, eq=False)
class _Run:
    """One run of the program."""

    example: dspy.Example
    sample: int


class DistillDecomposer(Teleprompter):
    """Distils one predictor of a program into a small local model.

    Every reply is kept in `folder`, and no call is made twice. A compilation that failed or was stopped resumes when
    `compile` is called again.

    Args:
        metric: Takes (example, prediction, trace), and returns a bool or a number; see `threshold`.
        folder: The folder for replies, training rows and adapters.
        predictor: The planner's name in `named_predictors()`.
        base: The student's base: `embedded`, a folder, or a hub name.
        adapter: The DSPy adapter that renders the student's prompts; `CompactAdapter` by default.
        train: The training settings.
        samples: Runs of the program per example; the planner's calls of all good runs are kept.
        temperature: The teacher's sampling temperature where there are several samples.
        threshold: The lowest score of a run whose calls are kept.
        max_tokens: The largest number of tokens in a reply of the student.
        concurrency: Runs at a time.
        progress: Called with (station, done, total).

    Raises:
        UnusableArgument: An argument can't be used.

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
        require_callable("The metric", metric, "lambda example, prediction, trace=None: ...")
        for name, number in (("samples", samples), ("max_tokens", max_tokens), ("concurrency", concurrency)):
            require_whole_number(name, number, least=1)
        if adapter is not None:
            require_instance("The adapter", adapter, dspy.Adapter, "an adapter of DSPy's, such as CompactAdapter()")
        if train is not None:
            require_instance("train", train, TrainSettings, "TrainSettings(...)")
        self.metric = metric
        self.folder = expanded_path(folder)
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
            teacher: An LM for the planner, or a program of the same structure, or a list with one of these. By
                default the program itself is the teacher, with the LM that its planner has.
            valset: Examples to score before and after; the scores are in the result's `distillation`.

        Returns:
            A copy of the program whose planner is the student; its `distillation` holds the counts.

        Raises:
            UnusableArgument: `student` is no program.
            DistillationError: The program, the examples or the teacher can't be used, or what trains isn't installed,
                all of which is found before a call is paid for; or runs failed. The program is unchanged, and replies
                are kept.
            dspy.LMError: A call failed.
            TrainingError: The rows can't be trained on.
        """
        require_program(student)
        if not trainset:
            raise DistillationError("The trainset is empty.", "Give examples with .with_inputs(...).")
        _require_examples("trainset", trainset)
        _require_examples("valset", valset or ())
        planner = self._planner(student)
        self._require_text(planner)
        teaching = self._teaching(student, teacher)
        self._require_trainable()
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self.folder / "compile.lock", timeout=0):
                return self._compile(student, planner, teaching, trainset, valset)
        except Timeout as error:
            raise DistillationError(
                f"Another compilation is running in {self.folder}.",
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
            store.require_replies_of_results()
            rows, counts = self._collect(teaching, trainset, store, self._student(planner, None))
            taught_by = self._planner(teaching).lm or dspy.settings.lm
            folder, manifest = self._train(planner, rows, counts, Author(model=taught_by.model))
            lm = embedded_lm(self.base, adapter=folder, max_tokens=self.max_tokens)
            role = self._student(planner, lm)
            bind_adapter(role, lm, folder, tokenizer=shared_model(local_base(self.base)).tokenizer)
            compiled = with_planner(student.deepcopy(), self.predictor, role)
            compiled.distillation = {
                **counts,
                "training": manifest.result,
                "served": role.trained,
                "adapter": str(folder),
            }
            if valset:
                compiled.distillation["valset"] = {
                    "before": self._score(student, valset, store),
                    "after": self._score(compiled, valset, store),
                }
        except Exception:
            store.close()
            raise  # Ctrl-C leaves the store open, so that calls in flight can still write their replies
        store.close()
        compiled._compiled = True
        return compiled

    # -- stations --------------------------------------------------------------------------------------------------

    def _collect(
        self, teaching: dspy.Module, trainset: Sequence[dspy.Example], store: RunStore, student: RolePredict
    ) -> tuple[list[PlannerCall], dict[str, Any]]:
        """The planner's calls in the good runs, and the counts of kept and lost runs."""
        stored: StoredLMs = {}
        programs = [self._recorded(teaching, store, stored, sample) for sample in range(self.samples)]
        jobs = [_Run(example, sample) for sample in range(self.samples) for example in trainset]
        results: dict[int, list[PlannerCall] | str] = {}
        failed: list[_Run] = []
        report = self.progress
        with at_station("collect"):
            tally = run_jobs(
                lambda job: self._run(programs[job.sample], job.example, student),
                jobs,
                self.concurrency,
                lambda job, found: results.update({id(job): found}),
                failed=lambda job, error: failed.append(job),
                progress=(lambda done, total, remark="", unit="": report("collect", done, total)) if report else None,
            )
        if tally.first_error is not None:
            first = repr(failed[0].example.inputs().toDict())[:120]
            raise DistillationError(
                f"{tally.failed} of {len(jobs)} runs of the program failed; the first, on {first}: {tally.said}.",
                f"Compile again: replies are kept in {self.folder}, so only the failed calls are repeated.",
            ) from tally.first_error
        found = [results[id(job)] for job in jobs]
        lost = Counter(reason for reason in found if isinstance(reason, str))
        kept = [calls for calls in found if not isinstance(calls, str)]
        if not kept:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(lost.items()))
            raise DistillationError(
                f"None of {len(jobs)} runs of the program can be learnt from ({reasons}).",
                "Try the program and the metric on a few examples, or lower the threshold.",
            )
        counts = {"collected": len(jobs), "kept": len(kept), "lost": dict(sorted(lost.items()))}
        return [call for calls in kept for call in calls], counts

    def _run(self, program: dspy.Module, example: dspy.Example, student: RolePredict) -> list[PlannerCall] | str:
        """The planner's calls in one run, or the reason why they can't be learnt from."""
        with recording() as notes, dspy.context(trace=[]):
            try:
                prediction = run_program(program, example)
            except AdapterParseError as error:
                return why_refused(error)
            trace = list(dspy.settings.trace)
        # The trace doesn't hold attempts that the program rejected (BestOfN).
        counted = {id(prediction) for _, _, prediction in trace}
        good = [call for prediction, call in notes if id(prediction) in counted]
        if not good:
            return "not_asked"
        if self._value(self.metric(example, prediction, trace)) < self.threshold:
            return "unsolved"
        return next((why for call in good if (why := why_unusable(program, student, call))), None) or good

    def _train(
        self, planner: Any, rows: Sequence[PlannerCall], counts: dict[str, Any], teacher: Author
    ) -> tuple[Path, Any]:
        role = self._student(planner, None)
        rendered = [role.training_row(row.inputs, row.outputs) for row in rows]
        unique = list({json.dumps(row): row for row in rendered}.values())
        name = "".join(letter if letter.isalnum() else "-" for letter in self.predictor).strip("-")
        base = local_base(self.base)
        template = shared_model(base).tokenizer.chat_template
        # The name depends on everything that decides the adapter, so that a new adapter never overwrites the one that
        # a program compiled earlier still uses.
        made_of = fingerprint(
            unique, self.settings.deciding(), base.id, base.revision, template, prompt_parts(role), self.predictor
        )[:8]
        file = self.folder / "exports" / f"{name}-{made_of}.jsonl"
        folder = self.folder / "adapters" / f"{name}-{made_of}"
        write_rows(unique, role, Destination(file, name), counts)
        training = Training(file, base, folder, self.settings)
        if (trained := already_trained(training)) is not None:
            return folder, trained
        report = self.progress
        progress = (lambda done, total, loss: report("train", done, total)) if report else None
        manifest = train_adapter(
            training,
            Provenance(_role_name(planner, self.predictor), student=name, screening=counts, teacher=teacher),
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
        """The teaching program with stored LMs and a recorded planner, which refuses replies that were cut off."""
        program = behind_store(teaching, self.predictor, store, stored)
        given = self._planner(program)
        adapter = given.adapter if isinstance(given, RolePredict) else dspy.settings.adapter or ChatAdapter()
        name = _role_name(given, self.predictor)
        planner = RecordedPlanner(
            given.signature, name, lm=given.lm, adapter=adapter, refuse_cut_off=True, **given.config
        )
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
                        f"The planner's field '{name}' is a {kind.__name__}; a student reads and writes text only.",
                        "Give the planner a text field instead, or distil another predictor.",
                    )

    def _require_trainable(self) -> None:
        """Find out, before rows are paid for, that the packages and the base to train are here."""
        missing = [name for name in _TRAINED_WITH if find_spec(name) is None]
        if missing:
            raise DistillationError(
                f"Training needs {', '.join(missing)}, which isn't installed.", "Run: pip install 'divcon[train]'."
            )
        local_base(self.base)

    def _student(self, planner: Any, lm: dspy.BaseLM | None) -> RolePredict:
        """The predictor of the student: the planner's signature, no demonstrations, the student's DSPy adapter."""
        return RolePredict(
            planner.signature, _role_name(planner, self.predictor), lm=lm, adapter=self.adapter, refuse_cut_off=True
        )

    def _score(self, given: dspy.Module, valset: Sequence[dspy.Example], store: RunStore) -> dict[str, Any]:
        """The mean score of the examples that were answered, and how many were answered and failed."""
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


def _require_examples(name: str, examples: Sequence[Any]) -> None:
    """Refuse what isn't a list of examples with inputs."""
    for number, example in enumerate(examples, 1):
        if not isinstance(example, dspy.Example):
            raise DistillationError(
                f"Number {number} of the {name} is a {type(example).__name__}.",
                "Give dspy.Example(question=...).with_inputs('question').",
            )
        if example._input_keys is None:
            raise DistillationError(
                f"Example {number} of the {name} doesn't say which of its fields are inputs.",
                "Add .with_inputs('question'), with the names of the program's inputs.",
            )


def _role_name(predictor: Any, name: str) -> str:
    return predictor.role if isinstance(predictor, RolePredict) else name
