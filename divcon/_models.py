"""The LMs of a run: what the pipeline file names as teacher, solver and student, each behind the run's store."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import dspy

from divcon._config import Endpoint, Pipeline
from divcon.distill import (
    Base,
    EmbeddedModel,
    LMBackend,
    Patience,
    RunStore,
    ScriptedTeacher,
    StoredEngine,
    fingerprint,
    local_base,
    role_lm,
    shared_model,
)
from divcon.distill.serving.embedded import Precision, WantedPrecision, embedded_base, solver_adapter, solver_wording
from divcon.distill.serving.vllm import VLLMModel
from divcon.programs import ChatAdapter, CompactAdapter, Item, Wording
from divcon.signatures import list_pattern


@dataclass
class Models:
    """The LMs of one run, each made on first use.

    Attributes:
        pipeline: The validated pipeline file.
        store: Where replies are kept.
        items: All questions of the task, which is what a scripted teacher knows.
        log: Where a server writes.
        told: Is told how serving goes.
    """

    pipeline: Pipeline
    store: RunStore
    items: Callable[[], Sequence[Item]]
    log: Path
    told: Callable[[str], None]

    @cached_property
    def base(self) -> Base:
        return local_base(self.pipeline.roles.decomposer.base)

    @cached_property
    def student_model(self) -> EmbeddedModel | VLLMModel:
        """What serves the students: one base with its adapters."""
        student = self.pipeline.roles.decomposer
        if student.serve == "vllm":
            return VLLMModel(
                self.base, student.server, adapter=student.adapter, precision=self._precision, log=self.log,
                told=self.told,
            )  # fmt: skip
        # One engine, and so one copy of the weights and one queue, where student and solver share the base.
        same = self.base.revision == embedded_base().revision
        return self._embedded if same else shared_model(self.base, self._precision)

    @cached_property
    def _embedded(self) -> EmbeddedModel:
        return shared_model(embedded_base(), self._precision)

    @property
    def _precision(self) -> WantedPrecision:
        return self.pipeline.roles.precision

    @cached_property
    def teacher(self) -> dspy.LM:
        return self._of_endpoint("teacher", self.pipeline.roles.teacher)

    @cached_property
    def solver(self) -> dspy.LM:
        return self._of_endpoint("solver", self.pipeline.roles.solver)

    @cached_property
    def references(self) -> dspy.LM:
        """The task's reference decompositions, served unspoiled; scripted, and no model."""
        return self._of_endpoint("decomposer", Endpoint(model="scripted/references"))

    def _of_endpoint(self, role: str, endpoint: Endpoint) -> dspy.LM:
        model = endpoint.model
        # What decides the answers goes into the key of every reply: the same name elsewhere is another model.
        identity = fingerprint(endpoint.model_dump(include={"model", "api_base", "faults"}))
        backend: Any
        if endpoint.scripted:
            faults = endpoint.faults.model_dump() if endpoint.faults else {}
            cap, seed = self.pipeline.program.max_subquestions, self.pipeline.task.training_seed
            backend = ScriptedTeacher(self.items(), faults, cap, seed)
            identity = fingerprint(identity, cap, seed)
        elif endpoint.embedded:
            name = model.partition("/")[2]
            adapter = self._embedded.add(solver_adapter(name)) if name != "base" else ""
            backend, model = self._embedded.backend(adapter), f"embedded/{adapter or 'base'}"
            identity = fingerprint(model, self._embedded.base.revision, *_named(self._embedded.precision))
        else:
            options: dict[str, Any] = {}
            if endpoint.api_base:
                options["api_base"] = endpoint.api_base
            if endpoint.api_key_env:
                options["api_key"] = os.environ.get(endpoint.api_key_env, "")
            elif model.startswith("hosted_vllm/"):
                options["api_key"] = "none"  # vLLM asks for no key unless it was started with one
            inner = dspy.LM(
                model, engine=endpoint.engine, cache=False, num_retries=endpoint.retries,
                temperature=endpoint.temperature, max_tokens=endpoint.max_tokens, **options,
            )  # fmt: skip
            patience = Patience(endpoint.timeout, endpoint.first_token, endpoint.longest)
            backend = LMBackend(inner, patience)
        price = endpoint.price.model_dump(exclude_none=True) if endpoint.price else None
        engine = StoredEngine(backend, role, model, self.store, price, identity)
        return role_lm(engine, temperature=endpoint.temperature, max_tokens=endpoint.max_tokens)

    def student(self, adapter: Path | None, role: str = "decomposer") -> dspy.LM:
        """The LM of a student: its base, or one of its adapters.

        Args:
            adapter: The adapter's folder.
            role: `decomposer`, or `solver` for a solver's student, which may write as much as the solver.
        """
        student, model = self.pipeline.roles.decomposer, self.student_model
        name = model.add(adapter) if adapter else ""
        price = student.price.model_dump(exclude_none=True) if student.price else None
        decomposes = role == "decomposer"
        backend: Any
        if isinstance(model, VLLMModel):
            cap = self.pipeline.program.max_subquestions
            guided = student.guided and decomposes
            backend = model.backend(
                name, pattern=list_pattern(cap, self.pipeline.program.allow_whole) if guided else None
            )
            shown = f"hosted_vllm/{name or self.base.id}"
            # Not the address of a server of ours, which is another one each time.
            served = model.served_as_known(name)
            deciding = model.settings.deciding()
            identity = fingerprint(
                shown, self.base.revision, "vllm", served, deciding, cap if guided else None, *_named(model.precision)
            )
        else:
            backend = model.backend(name)
            shown = f"embedded/{name or 'base'}"
            identity = fingerprint(shown, self.base.revision, *_named(model.precision))
        engine = StoredEngine(backend, role, shown, self.store, price, identity)
        solver = self.pipeline.roles.solver
        longest = student.max_tokens if decomposes else (solver.max_tokens or 4 * student.max_tokens)
        return role_lm(engine, temperature=student.temperature, max_tokens=longest)

    def close(self) -> None:
        """End the server of the student, where one was started."""
        student = self.__dict__.get("student_model")
        if isinstance(student, VLLMModel):
            student.close()


def _named(precision: Precision | None) -> list[str]:
    """A precision as a part of a key; bfloat16 is none, so that keys made before there was a choice hold."""
    return [precision] if precision not in (None, "bfloat16") else []


def adapter_of(endpoint: Endpoint) -> dspy.Adapter:
    """The adapter (the DSPy kind) that an endpoint's predictors pin."""
    return ChatAdapter() if endpoint.adapter == "chat" else CompactAdapter(wording_of(endpoint).labels)


def wording_of(endpoint: Endpoint) -> Wording:
    """How an endpoint is asked: a solver that ships here in the words it learnt, any other as an untrained model."""
    name = endpoint.model.partition("/")[2]
    return solver_wording(name) if endpoint.embedded and name != "base" else Wording()


def identity_of(lm: dspy.LM) -> dict[str, Any]:
    """What decides an LM's answers, as far as a client can know."""
    limits = ("temperature", "max_tokens", "max_completion_tokens")
    return {"served": lm.engine.identity, **{key: lm.kwargs.get(key) for key in limits}}


def sampling_temperature(lm: dspy.LM, wanted: float | None) -> float | None:
    """The temperature for further samples; OpenAI's reasoning models take none, which DSPy shows by their limits."""
    return None if "max_completion_tokens" in lm.kwargs else wanted
