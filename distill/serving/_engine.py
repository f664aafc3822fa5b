"""Serving engines: what one has to offer, and which there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from divcon.distill._engine import Backend
from divcon.distill._table import Table
from divcon.distill.serving._settings import AdapterMode, AnyServerSettings
from divcon.distill.serving.embedded import Base, Precision, WantedPrecision

Level = Literal["ok", "warning", "failure"]


@dataclass(frozen=True)
class Finding:
    """One thing that the doctor looked at.

    Attributes:
        level: `failure` where the pipeline can't run.
        what: What was looked at, in a word or two.
        text: What was found.
        remedy: What to do; empty where nothing needs to be done.
    """

    level: Level
    what: str
    text: str
    remedy: str = ""


@dataclass(frozen=True)
class ServingOptions:
    """How a base is served.

    Attributes:
        settings: The server to start or to use; None for an engine's own choice, and for one that needs none.
        adapter_mode: How adapters are served, where an engine can do it in several ways.
        precision: What the engine computes in.
        log: Where a server's output goes; a file in the temporary folder by default.
        told: Told in one line what happens.
    """

    settings: AnyServerSettings | None = None
    adapter_mode: AdapterMode = "auto"
    precision: WantedPrecision = "auto"
    log: Path | None = None
    told: Callable[[str], None] | None = None


class ServedBase(Protocol):
    """A base and its adapters behind an engine.

    Attributes:
        base: The base.
        warms_up: Whether the first call waits for something that later ones don't, such as the start of a server.
    """

    base: Base
    warms_up: bool

    @property
    def tokenizer(self) -> Any:
        """The base's tokenizer."""

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the cores of this processor."""

    @property
    def precision(self) -> Precision | None:
        """What it computes in, where that is known."""

    def add(self, folder: Path) -> str:
        """Make an adapter known, and return the name it is served under, which carries its content hash.

        Raises:
            DivconError: It can't be served.
        """

    def backend(self, name: str = "", *, pattern: str | None = None, thinks: bool = True) -> Backend:
        """What a role's engine asks.

        Args:
            name: An adapter's served name; empty for the base.
            pattern: A regular expression that every reply has to match.
            thinks: Whether the chat template is left its choice to have the model think first. False is asked only of
                a base whose template takes `enable_thinking`.

        Raises:
            DivconError: There is no such adapter, or the engine holds replies to no pattern.
        """

    def model_name(self, name: str) -> str:
        """The public name of the base (an empty name) or of an adapter: LiteLLM's provider, a slash and a name."""

    def deciding(self, name: str, cap: int | None = None) -> list[Any]:
        """What decides the replies of the base (an empty name) or of an adapter, besides its public name.

        Args:
            name: An adapter's served name.
            cap: How many subquestions replies are held to by a pattern; None where they are held to none.

        Returns:
            JSON-ready parts of a reply's key. They never change, so that kept replies are found.
        """

    def close(self) -> None:
        """End what was started for it and free its memory; the next call starts and loads it again."""


class Engine(Protocol):
    """One way to serve a base and its adapters.

    Attributes:
        name: In a pipeline file, after `serve:`.
        where: Where it answers, as messages say it: `in this process`.
        settings: The type of `server:` under the role.
        takes: Which of the keys `server`, `adapter` and `guided` it heeds.
    """

    @property
    def name(self) -> str: ...

    @property
    def where(self) -> str: ...

    @property
    def settings(self) -> type[AnyServerSettings]: ...

    @property
    def takes(self) -> frozenset[str]: ...

    def serves(self, base: Base, options: ServingOptions) -> ServedBase:
        """A base behind this engine; nothing is started or loaded yet."""

    def examine(self, settings: AnyServerSettings | None) -> Iterator[Finding]:
        """Look whether it can serve; nothing is started."""

    def check_adapter(self, folder: Path, base: Base) -> None:
        """Raise where it can't serve an adapter of a base.

        Raises:
            DivconError: It can't.
        """


ENGINES: Table[Engine] = Table(
    "serving engine",
    "divcon.engines",
    {
        "embedded": "divcon.distill.serving.embedded._engine:ENGINE",
        "vllm": "divcon.distill.serving.vllm._engine:ENGINE",
    },
    needs=("where", "settings", "takes", "serves", "examine", "check_adapter"),
)
