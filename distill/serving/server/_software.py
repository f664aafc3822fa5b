"""What the software of a server has of its own: everything in which one differs from another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from packaging.version import Version

from divcon.distill.serving._settings import AnyServerSettings
from divcon.distill.serving.embedded import Precision
from divcon.distill.serving.server._causes import Causes
from divcon.distill.serving.server._client import AdapterClient
from divcon.distill.serving.server._installation import Installation, find_installation


@dataclass
class Launch:
    """What a server is started with.

    Attributes:
        installation: Runs it.
        settings: Port, deadline, arguments, environment, restarts.
        weights: The folder it loads.
        name: What it serves them as.
        adapters: Adapters to load with it, by the name to serve each under; those that are loaded later are added.
        rank: The largest rank it is to take; None for a server that takes no adapters.
        precision: What it computes in; the software's own choice where it is None.
        port: On loopback; another one at each start, unless the settings name it.
        slots: How many adapters it computes with at a time.
    """

    installation: Installation
    settings: AnyServerSettings
    weights: Path
    name: str
    adapters: dict[str, Path]
    rank: int | None
    precision: Precision | None
    port: int = 0
    slots: int = 1


class ServerSoftware(ABC):
    """The software of a server, such as vLLM.

    Attributes:
        name: In a pipeline file, after `serve:`.
        title: As messages call it.
        packages: What it may be installed as.
        how_to_install: What to do where it isn't.
        python_variable: The variable of the environment that names the Python it is installed for.
        oldest: The oldest version that was tried; None where any may do.
        provider: LiteLLM's name for whoever serves with it: `hosted_vllm`.
        settings: The settings of its servers.
        client: Asks one of its servers what isn't OpenAI's.
        causes: What makes its servers end by themselves.
        health: Where a server answers 200 once it is ready.
        ranks: The limits on ranks that it can be given, in ascending order.
        rank_argument: The argument that sets this limit.
        precision_argument: The argument that sets what it computes in.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    packages: ClassVar[tuple[str, ...]]
    how_to_install: ClassVar[str]
    python_variable: ClassVar[str]
    oldest: ClassVar[Version | None] = None
    provider: ClassVar[str] = "openai"
    settings: ClassVar[type[AnyServerSettings]] = AnyServerSettings
    client: ClassVar[type[AdapterClient]]
    causes: ClassVar[Causes]
    health: ClassVar[str] = "/health"
    ranks: ClassVar[tuple[int, ...]] = (8, 16, 32, 64, 128, 256)
    rank_argument: ClassVar[str] = "max-lora-rank"
    precision_argument: ClassVar[str] = "dtype"

    def installation(self, settings: AnyServerSettings) -> Installation:
        """The installation that the settings mean.

        Raises:
            ServerError: There is none.
        """
        return find_installation(settings, self.title, self.packages, self.python_variable, self.how_to_install)

    @abstractmethod
    def command(self, launch: Launch) -> list[str]:
        """The command that starts a server."""

    def environment(self, launch: Launch) -> dict[str, str]:
        """What a server's environment has besides this process' own and the settings'."""
        return {}

    def slots(self, launch: Launch) -> int:
        """How many adapters a server computes with at a time.

        Raises:
            ServerError: The settings name a number that isn't enough.
        """
        return max(1, len(launch.adapters))

    def has_room(self, launch: Launch) -> bool:
        """Whether a running server can load one more adapter."""
        return True

    def guided(self, pattern: str) -> dict[str, Any] | None:
        """What is added to a request whose reply has to match a regular expression; None where that can't be had."""
        return None

    def not_served(self, said: str) -> str | None:
        """The name that a server doesn't serve, where it says so in an error."""
        return None
