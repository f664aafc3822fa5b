"""`DistillDecomposer`: the stations as one DSPy teleprompter, for the planner of any program.

It runs the program with the teacher in the planner's place, keeps the planner's calls that led to a good end, trains
a student on them, and gives back a copy of the program in which the student plans.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import copy
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, get_args

import dspy
from dspy.clients.backend_selection import CLIENT_KEYS
from dspy.teleprompt.teleprompt import Teleprompter
from dspy.utils.exceptions import AdapterParseError
from filelock import FileLock, Timeout

from divcon.distill._bind import bind_adapter
from divcon.distill._engine import StoredEngine, at_station, role_lm
from divcon.distill._http import LMBackend
from divcon.distill._jobs import overlapped
from divcon.distill._manifest import prompt_parts, read_manifest
from divcon.distill._provider import EmbeddedEngine, embedded_lm
from divcon.distill._store import RunStore, fingerprint
from divcon.distill.serving.embedded import local_base
from divcon.distill.serving.embedded._model import shared_model
from divcon.distill.training import (
    Destination,
    Provenance,
    Training,
    TrainSettings,
    is_trained,
    train_adapter,
    write_rows,
)
from divcon.programs import ChatAdapter, CompactAdapter, RolePredict, why_refused
from divcon.signatures import DivconError, Subquestions

Progress = Callable[[str, int, int], None]
_Stored = dict[tuple[int, str], dspy.BaseLM]  # by original LM and role


class DistillationError(DivconError):
    """The program, the examples or the teacher can't give a student."""


@dataclass(frozen=True)
class _Row:
    """One call of the planner in a run that ended well."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]


class _RecordedPlanner(RolePredict):
    """The planner while its program is watched: what it was asked and said, copied at once.

    A trace holds the program's own objects, which it goes on to change (`steps.pop(0)`), and copies of the program
    (BestOfN) have other predictors than the one that was looked for.
    """

    def forward(self, **kwargs: Any) -> dspy.Prediction:
        asked = copy.deepcopy(self._asked(kwargs))
        return self._noted(asked, super().forward(**kwargs))

    async def aforward(self, **kwargs: Any) -> dspy.Prediction:
        asked = copy.deepcopy(self._asked(kwargs))
        return self._noted(asked, await super().aforward(**kwargs))

    def _asked(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        fields = self.signature.input_fields.items()
        return {name: kwargs.get(name, None if field.is_required() else field.default) for name, field in fields}

    @staticmethod
    def _noted(asked: dict[str, Any], prediction: dspy.Prediction) -> dspy.Prediction:
        if (notes := _notes.get()) is not None:
            notes.append((prediction, _Row(asked, copy.deepcopy(dict(prediction)))))
        return prediction


_notes: contextvars.ContextVar[list[tuple[dspy.Prediction, _Row]] | None] = contextvars.ContextVar(
    "divcon_planner_notes", default=None
)


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
            compiled = self._with_planner(student.deepcopy(), role)
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
    ) -> tuple[list[_Row], dict[str, Any]]:
        stored: _Stored = {}
        programs = [self._recorded(teaching, store, stored, sample) for sample in range(self.samples)]
        jobs = [(example, sample) for sample in range(self.samples) for example in trainset]
        rows: list[_Row] = []
        lost: Counter[str] = Counter()
        done = 0
        first_error: Exception | None = None
        first_failed = ""
        failed = 0

        def run(job: tuple[dspy.Example, int]) -> list[_Row] | str:
            example, sample = job
            program = programs[sample]
            notes: list[tuple[dspy.Prediction, _Row]] = []
            _notes.set(notes)  # every job has a context of its own
            with dspy.context(trace=[]):
                try:
                    prediction = _run(program, example)
                except AdapterParseError as error:
                    return why_refused(error)
                trace = list(dspy.settings.trace)
            # Attempts that the program threw away (BestOfN) are in no trace.
            counted = {id(prediction) for _, _, prediction in trace}
            good = [row for prediction, row in notes if id(prediction) in counted]
            if not good:
                return "not_asked"
            if self._value(self.metric(example, prediction, trace)) < self.threshold:
                return "unsolved"
            return next((why for row in good if (why := _unusable(program, student, row))), None) or good

        results: dict[int, list[_Row] | str] = {}
        position = {id(job): number for number, job in enumerate(jobs)}
        with at_station("collect"):
            for job, found, error in overlapped(run, jobs, self.concurrency):
                if found is None:
                    failed += 1
                    if first_error is None:
                        first_error, first_failed = error, repr(job[0].inputs().toDict())[:120]
                else:
                    results[position[id(job)]] = found
                done += 1
                if self.progress:
                    self.progress("collect", done, len(jobs))
        if first_error is not None:
            raise DistillationError(
                f"{failed} of {len(jobs)} runs of the program failed; the first, on {first_failed}: "
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
        base = local_base(self.base)
        template = shared_model(base).tokenizer.chat_template
        # Named after what it is made of: a program compiled earlier goes on with the adapter that it has.
        made_of = fingerprint(
            unique, self.settings.deciding(), base.id, base.revision, template, prompt_parts(role), self.predictor
        )[:8]
        file = self.folder / "exports" / f"{name}-{made_of}.jsonl"
        folder = self.folder / "adapters" / f"{name}-{made_of}"
        write_rows(unique, role, Destination(file, name), counts)
        if is_trained(folder):
            return folder, read_manifest(folder)
        told = self.progress
        progress = (lambda done, total, loss: told("train", done, total)) if told else None
        manifest = train_adapter(
            Training(file, base, folder, self.settings),
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

    def _behind_store(self, given: dspy.Module, store: RunStore, stored: _Stored) -> dspy.Module:
        """A copy of the program with every LM behind the store; equal LMs of a predictor share what is in flight."""
        program: dspy.Module = given.deepcopy()
        originals = dict(given.named_predictors())
        for name, predictor in program.named_predictors():
            lm = originals[name].lm or dspy.settings.lm
            if lm is None:
                raise DistillationError(
                    f"The predictor '{name}' has no LM.", "Set it, or pass teacher=dspy.LM(...) for the planner."
                )
            role = "teacher" if name == self.predictor else name
            if (id(lm), role) not in stored:
                stored[id(lm), role] = _stored(lm, role, store)
            predictor.lm = stored[id(lm), role]
        return program

    def _recorded(self, teaching: dspy.Module, store: RunStore, stored: _Stored, sample: int) -> dspy.Module:
        """The teaching program behind the store, its planner one that is watched and refuses replies cut off."""
        program = self._behind_store(teaching, store, stored)
        given = self._planner(program)
        adapter = given.adapter if isinstance(given, RolePredict) else dspy.settings.adapter or ChatAdapter()
        planner = _RecordedPlanner(
            given.signature, _role_name(given, self.predictor), lm=given.lm, adapter=adapter, refuse_cut_off=True,
            **given.config,
        )  # fmt: skip
        planner.demos = given.demos
        if self.samples > 1:
            planner.config = {**planner.config, "rollout_id": sample, "temperature": self.temperature}
        return self._with_planner(program, planner)

    def _with_planner(self, program: dspy.Module, role: RolePredict) -> dspy.Module:
        """The program with `role` wherever its planner was, under all its names."""
        if self.predictor == "self":  # the program is the planner
            return role
        _replace(program, self._planner(program), role, set())
        return program

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
        program = self._behind_store(given, store, {})

        def answer(example: dspy.Example) -> float:
            with contextlib.suppress(AdapterParseError):
                return self._value(self.metric(example, _run(program, example)))
            return 0.0

        found = [value for _, value, _ in overlapped(answer, list(valset), self.concurrency) if value is not None]
        return {"score": mean(found) if found else None, "answered": len(found), "failed": len(valset) - len(found)}

    @staticmethod
    def _value(score: Any) -> float:
        return float(getattr(score, "score", score))


def _stored(lm: dspy.BaseLM, role: str, store: RunStore) -> dspy.BaseLM:
    own = getattr(lm, "engine", None)
    if isinstance(own, StoredEngine):
        return lm  # of a run, whose store keeps its replies
    state = getattr(own, "dump_state", None)
    where: Any = lm.kwargs.get("api_base") or lm.kwargs.get("base_url") or (state() if state else None)
    if isinstance(own, EmbeddedEngine):
        where = own.model.base.revision
    elif where is None:  # the environment decides
        where = os.environ.get(f"{lm.model.partition('/')[0].upper()}_API_BASE")
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


def _run(program: dspy.Module, example: dspy.Example) -> Any:
    """One run; a program that can only be awaited is, in this thread."""
    if hasattr(type(program), "forward"):
        return program(**example.inputs())
    return asyncio.run(program.acall(**example.inputs()))


def _replace(node: Any, old: Any, new: Any, seen: set[int]) -> Any:
    """Put `new` for `old` in a module, its sub-modules, lists and dicts; gives back what stands for `node`."""
    if node is old:
        return new
    if id(node) in seen:
        return node
    seen.add(id(node))
    if isinstance(node, dspy.Module):
        for name, value in list(vars(node).items()):
            if (put := _replace(value, old, new, seen)) is not value:
                setattr(node, name, put)
    elif isinstance(node, list):
        node[:] = [_replace(value, old, new, seen) for value in node]
    elif isinstance(node, dict):
        node.update({key: _replace(value, old, new, seen) for key, value in node.items()})
    elif type(node) is tuple:
        put = tuple(_replace(value, old, new, seen) for value in node)
        return put if any(a is not b for a, b in zip(put, node, strict=True)) else node
    return node


def _unusable(program: dspy.Module, student: RolePredict, row: _Row) -> str | None:
    """Why a call isn't worth learning, or None: a list of no use, or a reply that wouldn't be read as it was meant."""
    reply = student.training_row(row.inputs, row.outputs)["completion"][0]["content"]
    try:
        read = student.adapter.parse(student.signature, reply)
        again = student.adapter.format_assistant_message_content(student.signature, read)
    except AdapterParseError:
        return "unreadable"
    if again != reply:
        return "unreadable"
    cap = getattr(program, "max_subquestions", None)
    for value in row.outputs.values():
        if isinstance(value, Subquestions):
            if not len(value):
                return "whole"
            if cap is not None and len(value) > cap:
                return "over_long"
    return None
