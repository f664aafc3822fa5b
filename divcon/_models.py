"""The LMs of a run: teacher, solver and students of the pipeline file. Their calls go through the run's store."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import dspy

from divcon.benchmarks import Recording, RowFields, plans_of, read_recording
from divcon.config import Endpoint, Pipeline
from divcon.distill import (
    Base,
    EmbeddedModel,
    LMBackend,
    Patience,
    RecordedTeacher,
    RunStore,
    ScriptedTeacher,
    StoredEngine,
    fingerprint,
    local_base,
    role_lm,
    shared_model,
)
from divcon.distill.serving import ENGINES, ServedBase, ServingOptions
from divcon.distill.serving.embedded import WantedPrecision, embedded_base, solver_adapter, solver_wording
from divcon.programs import ChatAdapter, CompactAdapter, Item, Wording
from divcon.signatures import learn_variable, list_pattern


@dataclass
class Models:
    """The LMs of one run, each made on first use.

    Attributes:
        pipeline: The validated pipeline file.
        store: The store that keeps the replies.
        items: Returns all items of the task, which a scripted or a recorded teacher can answer.
        log: The log file of a server.
        report: Gets lines about serving.
    """

    pipeline: Pipeline
    store: RunStore
    items: Callable[[], Sequence[Item]]
    log: Path
    report: Callable[[str], None]
    _over_http: list[LMBackend] = field(default_factory=list, init=False)

    @cached_property
    def base(self) -> Base:
        return local_base(self.pipeline.roles.decomposer.base)

    @cached_property
    def student_model(self) -> ServedBase:
        """The served base of the students, with their adapters."""
        student = self.pipeline.roles.decomposer
        options = ServingOptions(student.server, student.adapter, self._precision, self.log, self.report)
        return ENGINES[student.serve].serves(self.base, options)

    @cached_property
    def _embedded(self) -> EmbeddedModel:
        return shared_model(embedded_base(), self._precision)

    @property
    def _precision(self) -> WantedPrecision:
        return self.pipeline.roles.precision

    @cached_property
    def plans(self) -> Recording | None:
        """The file of a recorded teacher; None for other teachers."""
        teacher = self.pipeline.roles.teacher
        if teacher.path is None:
            return None
        return read_recording(teacher.path, teacher.fields or RowFields(), "subquestions", "roles.teacher")

    @cached_property
    def teacher(self) -> dspy.LM:
        return self._of_endpoint("teacher", self.pipeline.roles.teacher)

    @cached_property
    def solver(self) -> dspy.LM:
        return self._of_endpoint("solver", self.pipeline.roles.solver)

    @cached_property
    def references(self) -> dspy.LM:
        """A scripted LM, no model, that answers with the task's reference decompositions, without faults."""
        return self._of_endpoint("decomposer", Endpoint(model="scripted/references"))

    def _of_endpoint(self, role: str, endpoint: Endpoint) -> dspy.LM:
        model, max_tokens = endpoint.model, endpoint.max_tokens
        # The identity is part of every reply's key: a model of the same name on another server is another model.
        identity = fingerprint(endpoint.model_dump(include={"model", "api_base", "faults"}))
        backend: Any
        if endpoint.scripted:
            faults = endpoint.faults.model_dump() if endpoint.faults else {}
            cap, seed = self.pipeline.program.max_subquestions, self.pipeline.task.training_seed
            backend = ScriptedTeacher(self.items(), faults, cap, seed)
            identity = fingerprint(identity, cap, seed)
        elif self.plans is not None and endpoint.recorded:
            items, model = self.items(), f"recorded/{endpoint.name}"
            backend = RecordedTeacher(items, plans_of(self.plans.match(items)), str(endpoint.name))
            identity = fingerprint(identity, *self.plans.deciding)
        elif endpoint.embedded:
            name = model.partition("/")[2]
            adapter = self._embedded.add(solver_adapter(name)) if name != "base" else ""
            backend, model = self._embedded.backend(adapter), self._embedded.model_name(adapter)
            identity = fingerprint(model, *self._embedded.deciding(adapter))
        else:
            options: dict[str, Any] = {}
            if endpoint.api_base:
                options["api_base"] = endpoint.api_base
            if endpoint.api_key_env:
                learn_variable(endpoint.api_key_env)
                options["api_key"] = os.environ.get(endpoint.api_key_env, "")
            elif model.startswith("hosted_vllm/"):
                options["api_key"] = "none"  # vLLM asks for no key unless it was started with one
            max_tokens = max_tokens or usual_limit(model)
            inner = dspy.LM(
                model,
                engine=endpoint.engine,
                cache=False,
                num_retries=endpoint.retries,
                temperature=endpoint.temperature,
                max_tokens=max_tokens,
                **options,
            )
            patience = Patience(endpoint.timeout, endpoint.first_token, endpoint.longest, endpoint.give_up)
            backend = LMBackend(inner, patience, endpoint.retry_share, endpoint.reply_bytes)
            self._over_http.append(backend)
        price = endpoint.price.model_dump(exclude_none=True) if endpoint.price else None
        engine = StoredEngine(
            backend, role, model, self.store, price, identity, accepts_empty=endpoint.embedded or not endpoint.asked
        )
        return role_lm(engine, temperature=endpoint.temperature, max_tokens=max_tokens)

    def student(self, adapter: Path | None, role: str = "decomposer") -> dspy.LM:
        """The LM of a student: the base, or one of its adapters.

        Args:
            adapter: The adapter's folder; None for the base.
            role: `decomposer`, or `solver` for a student of the solver, which gets the solver's token limit.
        """
        student, model = self.pipeline.roles.decomposer, self.student_model
        name = model.add(adapter) if adapter else ""
        price = student.price.model_dump(exclude_none=True) if student.price else None
        decomposes = role == "decomposer"
        program, guided = self.pipeline.program, student.guided and decomposes
        pattern = list_pattern(program.max_subquestions, program.allow_whole) if guided else None
        shown = model.model_name(name)
        identity = fingerprint(shown, *model.deciding(name, program.max_subquestions if guided else None))
        backend = model.backend(name, pattern=pattern)
        engine = StoredEngine(backend, role, shown, self.store, price, identity, accepts_empty=True)
        solver = self.pipeline.roles.solver
        longest = student.max_tokens if decomposes else (solver.max_tokens or 4 * student.max_tokens)
        return role_lm(engine, temperature=student.temperature, max_tokens=longest)

    def close(self) -> None:
        """Stop the server of the student, if one was started, and close the connections to the other servers."""
        for backend in self._over_http:
            backend.close()
        if (student := self.__dict__.get("student_model")) is not None:
            student.close()


def usual_limit(model: str) -> int:
    """The largest number of tokens in a reply where the file gives none: no reply of a server is without an end."""
    return (
        16_000 if "max_completion_tokens" in dspy.LM(model).kwargs else 2048
    )  # OpenAI's reasoning models take no less


def prompt_adapter_of(endpoint: Endpoint) -> dspy.Adapter:
    """The DSPy adapter of an endpoint's predictors."""
    return ChatAdapter() if endpoint.adapter == "chat" else CompactAdapter(wording_of(endpoint).labels)


def wording_of(endpoint: Endpoint) -> Wording:
    """The wording of an endpoint's prompts; a solver that ships with divcon has the wording it was trained with."""
    name = endpoint.model.partition("/")[2]
    return solver_wording(name) if endpoint.embedded and name != "base" else Wording()


def identity_of(lm: dspy.LM) -> dict[str, Any]:
    """Everything that decides an LM's answers and that a client can know."""
    limits = ("temperature", "max_tokens", "max_completion_tokens")
    return {"served": lm.engine.identity, **{key: lm.kwargs.get(key) for key in limits}}


def sampling_temperature(lm: dspy.LM, wanted: float | None) -> float | None:
    """The temperature for further samples; None for OpenAI's reasoning models, which take none.

    DSPy gives these models `max_completion_tokens`.
    """
    return None if "max_completion_tokens" in lm.kwargs else wanted
