"""The section `roles`: the models of the teacher, the decomposer and the solver."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from divcon.benchmarks import RowFields
from divcon.distill._paths import PathOrName, WrittenPath
from divcon.distill._table import Choices
from divcon.distill.serving import ENGINES, AdapterMode, AnyServerSettings, require_address
from divcon.distill.serving.embedded import EMBEDDED_BASE_ID, WantedPrecision

_ADAPTER = re.compile(r"-[0-9a-f]{12}$")  # the end of an adapter's served name


class Section(BaseModel):
    """A part of a file that takes no unknown keys."""

    model_config = ConfigDict(extra="forbid")


class Price(Section):
    """US dollars per million tokens.

    Attributes:
        input: The price of input tokens.
        output: The price of output tokens.
        cached: The price of input tokens that the provider read from its cache; `input` by default.
    """

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(None, ge=0)


class Faults(Section):
    """The faults of a scripted teacher. Each value is the share of its replies that have the fault.

    Attributes:
        missing_step: A step is left out.
        restated_fact: A subquestion asks for a fact that the question states.
        wrong_order: The steps are in the wrong order.
        too_many: There are more subquestions than `program.max_subquestions`.
        cut_off: The reply ends in the middle.
    """

    missing_step: float = Field(0.0, ge=0, le=1)
    restated_fact: float = Field(0.0, ge=0, le=1)
    wrong_order: float = Field(0.0, ge=0, le=1)
    too_many: float = Field(0.0, ge=0, le=1)
    cut_off: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _at_most_all(self) -> Faults:
        if sum(self.model_dump().values()) > 1:
            raise ValueError("the shares of all faults add up to more than 1")
        return self


EMBEDDED = ("base", "solver", "wide-solver")
RECORDED_TEACHER = "recorded"
OF_RECORDED = {"path", "name", "fields"}  # the keys that only a recorded teacher has

EngineName = Annotated[str, AfterValidator(ENGINES.known), Choices(lambda: ENGINES.own)]


def _settings_of_the_engine(server: Any, known: ValidationInfo) -> Any:
    if server is None or "serve" not in known.data:
        return server
    given = server.model_dump(exclude_unset=True) if isinstance(server, BaseModel) else server
    return ENGINES[known.data["serve"]].settings.model_validate(given)


# The settings of a role's server, as its engine has them; `serve` stands before it.
Server = Annotated[AnyServerSettings | None, BeforeValidator(_settings_of_the_engine)]
# What an endpoint has only where somebody else serves it.
_ELSEWHERE = (
    "api_base", "api_key_env", "engine", "retries", "timeout", "first_token", "longest", "give_up", "retry_share",
    "reply_bytes", "faults",
)  # fmt: skip


class Endpoint(Section):
    """A model of a role: `model` over HTTP, shipped, scripted or recorded, or `base` of your own, which divcon serves.

    Attributes:
        model: The model, such as `openai/gpt-5-mini`, `hosted_vllm/NAME`, `embedded/solver`, `embedded/wide-solver`,
            `embedded/base` or `scripted/references`; or `recorded` for a teacher whose plans stand in a file.
        base: A chat model of your own instead: `embedded`, a folder, or a hub name. divcon serves it.
        serve: The engine that serves `base`: `embedded` runs in this process, `vllm` is a server on loopback or a
            running one. Roles with equal bases, engines and servers share one.
        server: The settings of the server of `base`.
        api_base: The server's address, needed for `hosted_vllm/`.
        api_key_env: The environment variable that holds the key; the provider's usual one by default.
        engine: `auto` (DSPy's native client where it supports the model) or `litellm`.
        price: The price of tokens. An unknown price is reported as unknown, never as zero.
        temperature: The sampling temperature; by default the model's own, and 0 for a `base`.
        max_tokens: The largest number of tokens in a reply; by default 2,048 from a server (16,000 from OpenAI's
            reasoning models), and the engine's own limit in this process.
        adapter: The prompt's form: `compact`, or `chat` for DSPy's ChatAdapter.
        retries: How often a failed request is sent again at most.
        timeout: Seconds that a server may be silent between two tokens of a reply. A long reply isn't cut off while
            tokens come, up to `longest`.
        first_token: Seconds until a reply's first token, including the time in a busy server's queue. A server that
            can't stream has to send the whole reply by then.
        longest: Seconds that one reply may take in all.
        give_up: Seconds after a server's first failure until it is given up, where it has answered nothing since. A
            failed request isn't sent again after so many seconds, and a longer `Retry-After` isn't waited for.
        retry_share: The share of the role's calls that may be sent again, in all; the first 20 are free.
        reply_bytes: The largest number of bytes in a reply; by default a million, and 16 for each of `max_tokens`.
        faults: The faults of a scripted teacher.
        path: The file of a recorded teacher's plans: JSON Lines or one JSON array, which may be packed (`.gz`).
        name: Who wrote a recorded teacher's plans. Every output names it.
        fields: The names of the fields of a recorded teacher's file.
    """

    model: str | None = None
    base: PathOrName | None = None
    serve: EngineName = "embedded"
    server: Server = None
    api_base: str | None = None
    api_key_env: str | None = None
    engine: Literal["auto", "litellm"] = "auto"
    price: Price | None = None
    temperature: float | None = Field(None, ge=0)
    max_tokens: int | None = Field(None, ge=1)
    retries: int = Field(4, ge=0)
    timeout: float = Field(120.0, gt=0)
    first_token: float = Field(600.0, gt=0)
    longest: float = Field(3600.0, gt=0)
    give_up: float = Field(600.0, gt=0)
    retry_share: float = Field(0.5, ge=0)
    reply_bytes: int | None = Field(None, ge=1)
    adapter: Literal["compact", "chat"] = "compact"
    faults: Faults | None = None
    path: WrittenPath | None = None
    name: str | None = Field(None, min_length=1)
    fields: RowFields | None = None

    @field_validator("model")
    @classmethod
    def _known_prefix(cls, model: str | None) -> str | None:
        if model is None or model == RECORDED_TEACHER:
            return model
        prefix, slash, name = model.partition("/")
        if not slash or not name:
            raise ValueError(f"'{model}' has no provider; write openai/NAME, hosted_vllm/NAME or embedded/solver")
        if prefix == "vllm":
            raise ValueError(f"'vllm/' would load the model inside this process; write hosted_vllm/{name} and api_base")
        if prefix == "embedded" and name not in EMBEDDED:
            raise ValueError(f"there is no '{model}'; write embedded/ and one of {', '.join(EMBEDDED)}")
        if prefix == "scripted" and name != "references":
            raise ValueError(f"there is no '{model}'; write scripted/references")
        return model

    @model_validator(mode="after")
    def _reachable(self) -> Endpoint:
        if (self.model is None) == (self.base is None):
            raise ValueError("give one of model (of a provider, or shipped) and base (of your own, served by divcon)")
        self._served_one_way()
        if self.model and self.model.startswith("hosted_vllm/") and not self.api_base:
            raise ValueError(f"{self.model} needs api_base, such as http://127.0.0.1:8000/v1")
        if self.faults and not self.scripted:
            raise ValueError("only a scripted teacher has faults")
        fields = type(self).model_fields
        given = {key for key, field in fields.items() if getattr(self, key) != field.default} - {"model", "price"}
        if self.recorded:
            if not (self.path and self.name):
                raise ValueError("a recorded teacher needs path (the file of its plans) and name (who wrote them)")
            if unused := sorted(given - OF_RECORDED):
                raise ValueError(f"a recorded teacher isn't asked, so it takes no {', '.join(unused)}")
        elif unused := sorted(given & OF_RECORDED):
            raise ValueError(f"only a recorded teacher (model: recorded) has {', '.join(unused)}")
        if self.api_base:
            require_address(self.api_base)
        return self

    def _served_one_way(self) -> None:
        fields = type(self).model_fields
        wrong = ("serve", "server") if self.base is None else _ELSEWHERE
        for name in wrong:
            if getattr(self, name) != fields[name].default:
                other = "base, a model of your own" if self.base is None else "model, which somebody else serves"
                raise ValueError(f"{name} goes with {other}")
        _require_taken("model", self.serve, server=self.server)

    @property
    def scripted(self) -> bool:
        return (self.model or "").startswith("scripted/")

    @property
    def recorded(self) -> bool:
        return self.model == RECORDED_TEACHER

    @property
    def asked(self) -> bool:
        """Whether it is a model that can be asked."""
        return not (self.scripted or self.recorded)

    @property
    def embedded(self) -> bool:
        """Whether it is one of the shipped models, in this process."""
        return (self.model or "").startswith("embedded/")

    @property
    def ours(self) -> bool:
        """Whether divcon serves it: in this process, or on a server that it starts or is told of."""
        return self.embedded or self.base is not None

    @property
    def own(self) -> tuple[str, str, AnyServerSettings | None] | None:
        """What is loaded for it: a base, its engine, and the server's settings; None where somebody else serves it."""
        return (self.base or "embedded", self.serve, self.server) if self.ours else None

    def stored_as(self, model: str) -> bool:
        """Whether it is the model of a stored call.

        Args:
            model: The model's stored name. Adapters have the start of their hash at its end.
        """
        if self.recorded:
            return model == f"recorded/{self.name}"
        provider, _, served = model.partition("/")
        if self.base is not None:
            ours = "base" if self.serve == "embedded" else EMBEDDED_BASE_ID if self.base == "embedded" else self.title
            return served == ours and (provider == "embedded") == (self.serve == "embedded")
        return model == self.model or (self.embedded and _ADAPTER.sub("", model) == self.model)

    @property
    def title(self) -> str:
        """What outputs call it: `model`, or the base without the folders that it lies in."""
        base = self.base or ""
        return self.model or (Path(base).name if base.startswith(("/", ".")) else base)


class Decomposer(Section):
    """The model that is trained to decompose.

    Attributes:
        base: The base model: `embedded`, a folder, or a hub name.
        serve: The serving engine: `embedded` runs in this process, `vllm` is a server on loopback or a running one.
        adapter: How a server serves a trained adapter: `lora` (unmerged), `merged` into a copy of the base, or `auto`.
        server: The settings of the server.
        guided: Constrain replies to a numbered list of questions. An untrained model of 135M didn't gain from it.
        temperature: The sampling temperature.
        max_tokens: The largest number of tokens in a reply.
        price: The price of serving it, per million tokens; free by default where it runs in this process.
    """

    base: PathOrName = "embedded"
    serve: EngineName = "embedded"
    adapter: AdapterMode = "auto"
    server: Server = None
    guided: bool = False
    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(128, ge=1)
    price: Price | None = None

    @model_validator(mode="after")
    def _taken_by_the_engine(self) -> Decomposer:
        _require_taken("student", self.serve, server=self.server, adapter=self.adapter != "auto", guided=self.guided)
        return self


def _require_taken(what: str, serve: str, **given: Any) -> None:
    """Refuse keys that an engine doesn't heed.

    Raises:
        ValueError: One of them is given.
    """
    engine = ENGINES[serve]
    for key, value in given.items():
        if value and key not in engine.takes:
            others = " or ".join(name for name, other in ENGINES.items() if key in other.takes)
            raise ValueError(f"{key} is for 'serve: {others}', and this {what} is served {engine.where}")


class Roles(Section):
    """The models of the roles.

    Attributes:
        teacher: The model that writes the decompositions that students learn from.
        decomposer: The small model that learns to decompose.
        solver: The model that answers the question with the subquestions.
        precision: The precision of models on this machine: the embedded engine, and a vLLM server that divcon starts.
            `auto` is bfloat16 where the processor is fast at it, else float32. Replies depend on it.
        servers: What stays loaded of the different bases that divcon serves: all of them (`together`), or one at a
            time (`turns`), where memory is short.
    """

    teacher: Endpoint
    decomposer: Decomposer = Decomposer()
    solver: Endpoint
    precision: WantedPrecision = "auto"
    servers: Literal["together", "turns"] = "together"

    @model_validator(mode="after")
    def _one_precision(self) -> Roles:
        for role in ("teacher", "decomposer", "solver"):
            server = getattr(self, role).server
            if self.precision != "auto" and server is not None and "dtype" in server.arguments:
                raise ValueError(f"precision is given, and {role}.server.arguments has dtype; write one of them")
        return self

    @field_validator("solver", mode="before")
    @classmethod
    def _solver_solves(cls, solver: Any) -> Any:
        model = str(solver.get("model") if isinstance(solver, dict) else getattr(solver, "model", ""))
        if model == RECORDED_TEACHER or model.startswith("scripted/"):
            kind = "recorded" if model == RECORDED_TEACHER else "scripted"
            raise ValueError(f"a {kind} teacher only decomposes; the solver needs a model")
        return solver
