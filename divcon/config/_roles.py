"""The section `roles`: who plans, who learns to, and who solves."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from divcon.distill._table import Choices
from divcon.distill.serving import ENGINES, AdapterMode, AnyServerSettings
from divcon.distill.serving.embedded import WantedPrecision


class Section(BaseModel):
    """A part of a file that takes no unknown keys."""

    model_config = ConfigDict(extra="forbid")


class Price(Section):
    """US dollars per million tokens.

    Attributes:
        input: For input tokens.
        output: For output tokens.
        cached: For input tokens that the provider read from its cache; as `input` where it isn't given.
    """

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(None, ge=0)


class Faults(Section):
    """How often a scripted teacher errs, each as a share of its replies.

    Attributes:
        missing_step: A step is left out.
        restated_fact: A subquestion asks for what the question states.
        wrong_order: The steps stand in another order.
        too_many: There are more subquestions than the cap allows.
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


class Endpoint(Section):
    """A model that is asked: over HTTP by LiteLLM's naming, `embedded/...` in this process, or `scripted/references`.

    Attributes:
        model: `openai/gpt-5-mini`, `hosted_vllm/NAME`, `embedded/solver`, `embedded/wide-solver`, `embedded/base`,
            `scripted/references`.
        api_base: The server's address, needed for `hosted_vllm/`.
        api_key_env: The environment variable that holds the key; the provider's usual one by default.
        engine: `auto` (DSPy's native client where it can) or `litellm`.
        price: Where known. An unknown price is reported as unknown, never as zero.
        temperature: Of its replies; the model's own by default.
        max_tokens: The longest reply in tokens; the model's own limit by default.
        adapter: `compact`, or `chat` for a model that is used to DSPy's ChatAdapter.
        retries: How often a request that failed is sent again at most.
        timeout: Seconds that a server may be silent between two tokens of a reply. However long a reply takes, it is
            waited for while tokens come.
        first_token: Seconds until a reply's first token, the time in a busy server's queue included. A server that
            can't stream has to give the whole reply by then.
        longest: Seconds that one reply may take in all.
        faults: Of a scripted teacher.
    """

    model: str
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
    adapter: Literal["compact", "chat"] = "compact"
    faults: Faults | None = None

    @field_validator("model")
    @classmethod
    def _known_prefix(cls, model: str) -> str:
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
        if self.model.startswith("hosted_vllm/") and not self.api_base:
            raise ValueError(f"{self.model} needs api_base, such as http://127.0.0.1:8000/v1")
        if self.faults and not self.scripted:
            raise ValueError("only a scripted teacher has faults")
        if self.api_base:
            parts = urlsplit(self.api_base)
            if parts.username or parts.password or parts.query:
                raise ValueError("api_base holds a user or a query, where secrets stand; give the address alone")
        return self

    @property
    def scripted(self) -> bool:
        return self.model.startswith("scripted/")

    @property
    def embedded(self) -> bool:
        return self.model.startswith("embedded/")


class Decomposer(Section):
    """The model that becomes the decomposer.

    Attributes:
        base: `embedded`, a folder, or a hub name.
        serve: What it runs on, by its name in the table of serving engines: `embedded` is in this process, `vllm` a
            server on loopback or a running one.
        adapter: How a server serves a trained adapter: `lora` (unmerged), `merged` into a copy of the base, or `auto`.
        server: The server.
        guided: Have the server write nothing but a numbered list of questions. For a small untuned model.
        temperature: Of its replies.
        max_tokens: The longest reply in tokens.
        price: What serving it costs, per million tokens; free by default where it runs in this process.
    """

    base: str = "embedded"
    serve: Annotated[str, AfterValidator(ENGINES.known), Choices(lambda: ENGINES.own)] = "embedded"
    adapter: AdapterMode = "auto"
    server: AnyServerSettings | None = None
    guided: bool = False
    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(128, ge=1)
    price: Price | None = None

    @field_validator("server", mode="before")
    @classmethod
    def _settings_of_the_engine(cls, server: Any, known: ValidationInfo) -> Any:
        if server is None or "serve" not in known.data:
            return server
        given = server.model_dump(exclude_unset=True) if isinstance(server, BaseModel) else server
        return ENGINES[known.data["serve"]].settings.model_validate(given)

    @model_validator(mode="after")
    def _taken_by_the_engine(self) -> Decomposer:
        engine = ENGINES[self.serve]
        for key, given in (("server", self.server), ("adapter", self.adapter != "auto"), ("guided", self.guided)):
            if given and key not in engine.takes:
                others = " or ".join(name for name, other in ENGINES.items() if key in other.takes)
                raise ValueError(f"{key} is for 'serve: {others}', and this student is served {engine.where}")
        return self


class Roles(Section):
    """Who does what.

    Attributes:
        teacher: Writes the decompositions that students learn from.
        decomposer: The small model that learns to plan.
        solver: Answers with the subquestions.
        precision: What models on this machine compute in: the embedded engine, and a vLLM server that is started.
            `auto` is bfloat16 where the processor is fast in it, else float32. It decides replies.
    """

    teacher: Endpoint
    decomposer: Decomposer = Decomposer()
    solver: Endpoint
    precision: WantedPrecision = "auto"

    @model_validator(mode="after")
    def _one_precision(self) -> Roles:
        server = self.decomposer.server
        if self.precision != "auto" and server is not None and "dtype" in server.arguments:
            raise ValueError("precision is given, and decomposer.server.arguments has dtype; write one of them")
        return self

    @field_validator("solver")
    @classmethod
    def _solver_solves(cls, solver: Endpoint) -> Endpoint:
        if solver.scripted:
            raise ValueError("a scripted teacher only decomposes; the solver needs a model")
        return solver
