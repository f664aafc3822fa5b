"""The LMs of a run: teacher, solver and students of the pipeline file. Their calls go through the run's store.

Roles on equal bases share what is loaded for them: one model in this process, or one server.
"""

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
    LMBackend,
    Patience,
    RecordedTeacher,
    RunStore,
    ScriptedTeacher,
    StoredEngine,
    fingerprint,
    local_base,
    role_lm,
)
from divcon.distill.serving import ENGINES, OneAtATime, ServedBase, ServingOptions, TurnBackend
from divcon.distill.serving._one_at_a_time import turn_name
from divcon.distill.serving.embedded import solver_adapter, solver_wording
from divcon.distill.serving.server import AnyServerSettings, ServedModel
from divcon.programs import ChatAdapter, CompactAdapter, Item, Wording
from divcon.signatures import DivconError, learn_variable, list_pattern


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
    _bases: dict[str, Base] = field(default_factory=dict, init=False)
    _served: dict[tuple[bool, Base, str, str], ServedBase] = field(default_factory=dict, init=False)
    _backends: dict[int, tuple[Any, str]] = field(default_factory=dict, init=False)

    @cached_property
    def base(self) -> Base:
        return self._base(self.pipeline.roles.decomposer.base)

    def _base(self, name: str) -> Base:
        if name not in self._bases:
            self._bases[name] = local_base(name)
        return self._bases[name]

    @cached_property
    def student_model(self) -> ServedBase:
        """The served base of the students, with their adapters."""
        student = self.pipeline.roles.decomposer
        return self._serving("decomposer", student.base, student.serve, student.server)

    def served(self, role: str, endpoint: Endpoint) -> ServedBase:
        """The served base of an endpoint: that of the students or of another role where it is the same."""
        assert endpoint.own is not None
        base, serve, server = endpoint.own
        student = self.pipeline.roles.decomposer
        if (serve, self._told(serve, server)) == (student.serve, self._told(student.serve, student.server)):
            students = self.student_model if self._base(base) == self.base else None
            # Not a server whose base has to end for each merged adapter, and the other way round.
            if students is not None and not (isinstance(students, ServedModel) and students.merges):
                return students
        return self._serving(role, base, serve, server)

    @staticmethod
    def _told(serve: str, server: AnyServerSettings | None) -> str:
        """A server's settings, with its engine's own where none are given."""
        return (server or ENGINES[serve].settings()).model_dump_json()

    def _serving(self, role: str, base: str, serve: str, server: AnyServerSettings | None) -> ServedBase:
        key = (role == "decomposer", self._base(base), serve, self._told(serve, server))
        if key not in self._served:
            log, mode = self.log, self.pipeline.roles.decomposer.adapter
            if role != "decomposer":
                log, mode = log.with_name(f"{serve}-{role}.log"), "auto"
            options = ServingOptions(server, mode, self.pipeline.roles.precision, log, self.report)
            self._served[key] = ENGINES[serve].serves(self._base(base), options)
        return self._served[key]

    @cached_property
    def _turns(self) -> OneAtATime | None:
        """Lets in calls to one served base at a time; None where all stay loaded."""
        return OneAtATime() if self.pipeline.roles.servers == "turns" else None

    def _in_turn(self, served: ServedBase, backend: Any) -> Any:
        """A backend of a served base; one that waits for its turn where there are turns, and the server is ours."""
        settings = served.settings if isinstance(served, ServedModel) else None
        if self._turns is None or (settings is not None and settings.api_base):
            self._backends[id(backend)] = backend, turn_name(served)
            return backend
        return self._turns.backend(served, backend)

    def turn_of(self, lm: Any) -> str:
        """What answers an LM's calls, where it should have the processor or the memory to itself; else empty."""
        backend = getattr(getattr(lm, "engine", None), "backend", None)
        if isinstance(backend, TurnBackend):
            return backend.turn
        return self._backends[id(backend)][1] if id(backend) in self._backends and self._crowded else ""

    @cached_property
    def _crowded(self) -> bool:
        """Whether different bases would compute on the cores of this processor, where each is far slower for it."""
        roles = self.pipeline.roles
        asked = [(name, role) for name, role in (("teacher", roles.teacher), ("solver", roles.solver)) if role.asked]
        served = [self.student_model, *(self.served(name, role) for name, role in asked if role.ours)]
        # Other workers load what they are sent.
        return self.pipeline.run.executor == "threads" and len({id(one) for one in served if one.on_cpu}) > 1

    def make_room(self) -> None:
        """Free the memory of the base that is loaded, where only one is at a time; a training may need it next."""
        if self._turns is not None:
            self._turns.close()

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
        model, max_tokens, temperature = endpoint.model or "", endpoint.max_tokens, endpoint.temperature
        # The identity is part of every reply's key: a model of the same name on another server is another model.
        identity = fingerprint(endpoint.model_dump(include={"model", "api_base", "faults"}))
        backend: Any
        if endpoint.scripted:
            faults = endpoint.faults.model_dump() if endpoint.faults else {}
            cap, seed = self.pipeline.program.max_subquestions, self.pipeline.task.training_seed
            backend = ScriptedTeacher(self.items(), faults, cap, seed)
            identity = fingerprint(identity, cap, seed)
        elif endpoint.recorded and self.plans is not None:
            items, model = self.items(), f"recorded/{endpoint.name}"
            backend = RecordedTeacher(items, plans_of(self.plans.match(items)), str(endpoint.name))
            identity = fingerprint(identity, *self.plans.deciding)
        elif endpoint.ours:
            served, name = self.served(role, endpoint), model.partition("/")[2]
            adapter = served.add(solver_adapter(name)) if name not in ("", "base") else ""
            template = _chat_template(served) if endpoint.base else ""
            # A model that thinks before it answers would run out of tokens while it does.
            quiet = "enable_thinking" in template
            backend = served.backend(adapter, thinks=False) if quiet else served.backend(adapter)
            backend, model = self._in_turn(served, backend), served.model_name(adapter)
            identity = fingerprint(model, *served.deciding(adapter), *(["no thinking"] if quiet else []))
            if endpoint.base:
                temperature = temperature or 0.0
                max_tokens = max_tokens or (_LONGEST if served.warms_up else None)
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
                temperature=temperature,
                max_tokens=max_tokens,
                **options,
            )
            patience = Patience(endpoint.timeout, endpoint.first_token, endpoint.longest, endpoint.give_up)
            backend = LMBackend(inner, patience, endpoint.retry_share, endpoint.reply_bytes)
            self._over_http.append(backend)
        price = endpoint.price.model_dump(exclude_none=True) if endpoint.price else None
        engine = StoredEngine(
            backend, role, model, self.store, price, identity, accepts_empty=endpoint.ours or not endpoint.asked
        )
        return role_lm(engine, temperature=temperature, max_tokens=max_tokens)

    def student(self, adapter: Path | None, role: str = "decomposer") -> dspy.LM:
        """The LM of a student: the base, or one of its adapters.

        Args:
            adapter: The adapter's folder; None for the base.
            role: `decomposer`, or `solver` for a student of the solver, which gets the solver's token limit.
        """
        student, model = self.pipeline.roles.decomposer, self.student_model
        name = model.add(adapter) if adapter else ""
        price = student.price.model_dump(exclude_none=True) if student.price else None
        program, guided = self.pipeline.program, student.guided and role == "decomposer"
        pattern = list_pattern(program.max_subquestions, program.allow_whole) if guided else None
        shown = model.model_name(name)
        identity = fingerprint(shown, *model.deciding(name, program.max_subquestions if guided else None))
        backend = self._in_turn(model, model.backend(name, pattern=pattern))
        engine = StoredEngine(backend, role, shown, self.store, price, identity, accepts_empty=True)
        return role_lm(engine, temperature=student.temperature, max_tokens=self.longest_of_student(role))

    def longest_of_student(self, role: str) -> int:
        """The most tokens that a student writes: as solver, as many as the solver may."""
        student, solver = self.pipeline.roles.decomposer, self.pipeline.roles.solver
        return student.max_tokens if role == "decomposer" else (solver.max_tokens or 4 * student.max_tokens)

    def close(self) -> None:
        """Stop the servers that were started, and close the connections to the other servers.

        What is loaded in this process stays, except where only one base is loaded at a time.
        """
        for backend in self._over_http:
            backend.close()
        for served in self._served.values():
            if served.warms_up:
                served.close()
        self.make_room()


_LONGEST = 2048
"""The limit of a server's reply, in tokens, where the file gives none. No reply is asked for without a limit."""


def usual_limit(model: str) -> int:
    """The largest number of tokens in a reply where the file gives none."""
    # DSPy refuses a smaller limit for OpenAI's reasoning models.
    return 16_000 if "max_completion_tokens" in dspy.LM(model).kwargs else _LONGEST


def _chat_template(served: ServedBase) -> str:
    """The chat template of a base.

    Raises:
        DivconError: It has none.
    """
    if not (template := served.tokenizer.chat_template):
        raise DivconError(f"{served.base.id} has no chat template.", "Take an instruction-tuned model.")
    return str(template)


def prompt_adapter_of(endpoint: Endpoint) -> dspy.Adapter:
    """The DSPy adapter of an endpoint's predictors."""
    return ChatAdapter() if endpoint.adapter == "chat" else CompactAdapter(wording_of(endpoint).labels)


def wording_of(endpoint: Endpoint) -> Wording:
    """The wording of an endpoint's prompts; a solver that ships with divcon has the wording it was trained with."""
    name = (endpoint.model or "").partition("/")[2]
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
