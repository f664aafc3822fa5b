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
from typing import Any

import dspy
from dspy.clients.backend_selection import CLIENT_KEYS
from dspy.teleprompt.teleprompt import Teleprompter
from dspy.utils.exceptions import AdapterParseError
from dspy.utils.magicattr import set as set_by_path

from divcon.distill._bind import bind_adapter
from divcon.distill._engine import LMBackend, StoredEngine, at_station, role_lm
from divcon.distill._export import write_rows
from divcon.distill._manifest import read_manifest
from divcon.distill._overlap import overlapped
from divcon.distill._provider import embedded_lm
from divcon.distill._serve import shared_model
from divcon.distill._store import RunStore, fingerprint
from divcon.distill._train import TrainSettings, is_trained, train_adapter
from divcon.distill.embedded import local_base
from divcon.programs import ChatAdapter, CompactAdapter, ReplyCutOff, RolePredict
from divcon.programs._divide import why_refused
from divcon.signatures import DivconError, Subquestions

Progress = Callable[[str, int, int], None]


class DistillationError(DivconError):
    """The program, the examples or the teacher can't give a student."""


@dataclass(frozen=True)
class _Row:
    """One call of the planner in a run that ended well."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]


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
        teaching = self._teaching(student, teacher)
        store = RunStore(self.folder)
        with contextlib.closing(store):
            rows, counts = self._collect(teaching, trainset, store)
            folder, manifest = self._train(planner, rows, counts)
        compiled = student.deepcopy()
        lm = embedded_lm(self.base, adapter=folder, max_tokens=self.max_tokens)
        role = self._student(planner, lm)
        # Whatever a teleprompter did to the given planner's prompt, the rows were rendered by this one.
        bind_adapter(role, lm, folder, tokenizer=shared_model(local_base(self.base)).tokenizer)
        compiled = self._with_planner(compiled, role)
        compiled.distillation = {**counts, "training": manifest.result, "served": role.trained}
        if valset:
            compiled.distillation["valset"] = {
                "before": self._score(student, valset),
                "after": self._score(compiled, valset),
            }
        compiled._compiled = True
        return compiled

    # -- stations --------------------------------------------------------------------------------------------------

    def _collect(
        self, teaching: dspy.Module, trainset: Sequence[dspy.Example], store: RunStore
    ) -> tuple[list[_Row], dict[str, Any]]:
        programs = [self._recorded(teaching, store, sample) for sample in range(self.samples)]
        jobs = [(example, sample) for sample in range(self.samples) for example in trainset]
        rows: list[_Row] = []
        lost: Counter[str] = Counter()
        done = 0
        first_error: Exception | None = None
        failed = 0

        def run(job: tuple[dspy.Example, int]) -> list[_Row] | str:
            example, sample = job
            program, planner = programs[sample]
            with dspy.context(trace=[]):
                try:
                    prediction = program(**example.inputs())
                except AdapterParseError as error:
                    return "cut_off" if isinstance(error, ReplyCutOff) else why_refused(error)
                trace = list(dspy.settings.trace)
            calls = [(inputs, outputs) for predictor, inputs, outputs in trace if predictor is planner]
            if not calls:
                return "not_asked"
            if self._value(self.metric(example, prediction, trace)) < self.threshold:
                return "unsolved"
            good = [_Row(dict(inputs), dict(outputs)) for inputs, outputs in calls]
            return next((why for row in good if (why := _unusable(program, row))), None) or good

        results: dict[int, list[_Row] | str] = {}
        position = {id(job): number for number, job in enumerate(jobs)}
        with at_station("collect"):
            for job, found, error in overlapped(run, jobs, self.concurrency):
                if found is None:
                    failed, first_error = failed + 1, first_error or error
                else:
                    results[position[id(job)]] = found
                done += 1
                if self.progress:
                    self.progress("collect", done, len(jobs))
        if first_error is not None:
            raise DistillationError(
                f"{failed} of {len(jobs)} runs of the program failed; the first: "
                f"{type(first_error).__name__}: {first_error}.",
                f"What was answered is kept in {self.folder}; compile again, and only what failed is asked again.",
            ) from first_error
        for _, found in sorted(results.items()):
            if isinstance(found, str):
                lost[found] += 1
            else:
                rows += found
        kept = sum(not isinstance(found, str) for found in results.values())
        counts = {"collected": len(jobs), "kept": kept, "lost": dict(sorted(lost.items()))}
        if not rows:
            reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(lost.items()))
            raise DistillationError(
                f"Of {len(jobs)} runs of the program none can be learnt from ({reasons}).",
                "Try the program and the metric on a few examples, or lower the threshold.",
            )
        return rows, counts

    def _train(self, planner: Any, rows: Sequence[_Row], counts: dict[str, Any]) -> tuple[Path, Any]:
        role = self._student(planner, None)
        rendered = [role.training_row(row.inputs, row.outputs) for row in rows]
        unique = list({json.dumps(row): row for row in rendered}.values())
        name = "".join(letter if letter.isalnum() else "-" for letter in self.predictor).strip("-")
        file, folder = self.folder / "exports" / f"{name}.jsonl", self.folder / "adapters" / name
        exported = write_rows(unique, role, file, name, counts)
        base = local_base(self.base)
        if is_trained(folder):
            there = read_manifest(folder)
            made = (there.data_hash, there.settings, there.base["revision"], there.prompt)
            if made == (exported.sha256, self.settings.model_dump(), base.revision, _prompt_of(file)):
                return folder, there
        told = self.progress
        progress = (lambda done, total, loss: told("train", done, total)) if told else None
        manifest = train_adapter(
            file, base, folder, self.settings, role=_role_name(planner, self.predictor), student=name,
            screening=counts, progress=progress,
        )  # fmt: skip
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

    def _recorded(self, teaching: dspy.Module, store: RunStore, sample: int) -> tuple[dspy.Module, RolePredict]:
        """The teaching program with every LM behind the store, and its planner as a role that refuses cut replies."""
        program = teaching.deepcopy()
        for name, predictor in program.named_predictors():
            lm = predictor.lm or dspy.settings.lm
            if lm is None:
                raise DistillationError(
                    f"The predictor '{name}' has no LM.", "Set it, or pass teacher=dspy.LM(...) for the planner."
                )
            predictor.lm = _stored(lm, "teacher" if name == self.predictor else name, store)
        given = self._planner(program)
        adapter = given.adapter if isinstance(given, RolePredict) else dspy.settings.adapter or ChatAdapter()
        planner = RolePredict(
            given.signature, _role_name(given, self.predictor), lm=given.lm, adapter=adapter, refuse_cut_off=True,
            **given.config,
        )  # fmt: skip
        planner.demos = given.demos
        if self.samples > 1:
            planner.config = {**planner.config, "rollout_id": sample, "temperature": self.temperature}
        return self._with_planner(program, planner), planner

    def _with_planner(self, program: dspy.Module, role: RolePredict) -> dspy.Module:
        if self.predictor == "self":  # the program is the planner
            return role
        set_by_path(program, self.predictor, role)
        return program

    def _student(self, planner: Any, lm: dspy.BaseLM | None) -> RolePredict:
        """The planner as the student is asked: its instruction, no demonstrations, the student's adapter."""
        return RolePredict(
            planner.signature, _role_name(planner, self.predictor), lm=lm, adapter=self.adapter, refuse_cut_off=True
        )

    def _score(self, program: dspy.Module, valset: Sequence[dspy.Example]) -> dict[str, Any]:
        """Three-valued: the mean over what was answered, and how many failed."""

        def answer(example: dspy.Example) -> float:
            with contextlib.suppress(AdapterParseError):
                return self._value(self.metric(example, program(**example.inputs())))
            return 0.0

        found = [value for _, value, _ in overlapped(answer, list(valset), self.concurrency) if value is not None]
        return {"score": mean(found) if found else None, "answered": len(found), "failed": len(valset) - len(found)}

    @staticmethod
    def _value(score: Any) -> float:
        return float(getattr(score, "score", score))


def _stored(lm: dspy.BaseLM, role: str, store: RunStore) -> dspy.BaseLM:
    if isinstance(getattr(lm, "engine", None), StoredEngine):
        return lm  # of a run, whose store keeps its replies
    where = lm.kwargs.get("api_base") or lm.kwargs.get("base_url")
    asked = {key: value for key, value in lm.kwargs.items() if key not in CLIENT_KEYS}
    limit = asked.pop("max_completion_tokens", None)
    asked.setdefault("max_tokens", limit)
    asked.setdefault("temperature", None)
    engine = StoredEngine(
        LMBackend(lm.copy(cache=False)), role, lm.model, store,
        price=getattr(lm, "divcon_price", None), identity=fingerprint(lm.model, where),
    )  # fmt: skip
    return role_lm(engine, **asked)


def _role_name(predictor: Any, name: str) -> str:
    return predictor.role if isinstance(predictor, RolePredict) else name


def _unusable(program: dspy.Module, row: _Row) -> str | None:
    """Why a list of subquestions isn't worth learning, or None; other outputs are the metric's business."""
    cap = getattr(program, "max_subquestions", None)
    for value in row.outputs.values():
        if isinstance(value, Subquestions):
            if not len(value):
                return "whole"
            if cap is not None and len(value) > cap:
                return "over_long"
    return None


def _prompt_of(file: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads(file.with_suffix(".manifest.json").read_text(encoding="utf-8"))["prompt"]
    return found
