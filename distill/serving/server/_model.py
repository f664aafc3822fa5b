"""A base and its adapters behind a server: what is served, how, and under which names."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

from divcon.distill._manifest import ManifestError
from divcon.distill.serving._settings import AdapterMode, AnyServerSettings
from divcon.distill.serving.embedded import Base, Precision, WantedPrecision, cpu_has_bfloat16, named_precision
from divcon.distill.serving.server._adapters import Adapter, merged_copy, read_adapter
from divcon.distill.serving.server._backend import ServerBackend
from divcon.distill.serving.server._checks import Probed
from divcon.distill.serving.server._current import CurrentServer
from divcon.distill.serving.server._errors import ServerError
from divcon.distill.serving.server._installation import Installation
from divcon.distill.serving.server._servers import AttachedServer, Server, StartedServer
from divcon.distill.serving.server._software import Launch, ServerSoftware


class ServedModel:
    """A base, and any number of its adapters, served by a server.

    Args:
        software: What the server runs.
        base: The base model.
        settings: The server to start, or the running one to use.
        adapter: `lora` serves adapters unmerged, all on one server; `merged` serves a merged copy each; `auto` is
            `merged` on a CPU and where the software can't take an adapter unmerged, else `lora`.
        precision: What a server of ours computes in; `auto` leaves that to the software, but for a CPU that is slow in
            bfloat16, which computes in float32. `settings.arguments` may say it instead.
        log: Where a server's output goes; a file in the temporary folder by default.
        told: Told in one line what happens.
    """

    warms_up = True  # the server starts with the first call

    def __init__(
        self,
        software: ServerSoftware,
        base: Base,
        settings: AnyServerSettings | None = None,
        *,
        adapter: AdapterMode = "auto",
        precision: WantedPrecision = "auto",
        log: Path | None = None,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.software = software
        self.base = base
        self.settings = settings or software.settings()
        self.mode = adapter
        self.wanted = precision
        self.log = log or Path(tempfile.gettempdir()) / f"divcon-{software.name}-{id(self):x}.log"
        self.told = told or (lambda text: None)
        self._adapters: dict[str, Adapter] = {}
        self._current = CurrentServer(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @functools.cached_property
    def installation(self) -> Installation | None:
        """What a server of ours runs from; None where a running server is used.

        Raises:
            ServerError: The software isn't where the settings say.
        """
        return None if self.settings.api_base else self.software.installation(self.settings)

    @property
    def on_cpu(self) -> bool:
        """Whether a server of ours computes on the cores of this processor; not where none is installed."""
        try:
            found = self.installation
        except ServerError:
            return False
        return found is not None and found.on_cpu

    @functools.cached_property
    def precision(self) -> Precision | None:
        """What a server of ours is told to compute in; None where the software, or whoever runs it, has chosen."""
        if self.installation is None or self.software.precision_argument in self.settings.arguments:
            return None
        if self.wanted != "auto":
            return self.wanted
        return "float32" if self.installation.on_cpu and not cpu_has_bfloat16() else None

    @functools.cached_property
    def tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.base.path)

    @property
    def address(self) -> str | None:
        """The address of the server that runs now."""
        return self._current.address

    @property
    def probed(self) -> dict[str, Probed]:
        """What the probe of each adapter has found, by served name."""
        return self._current.probed

    def add(self, folder: Path) -> str:
        """Make an adapter known, and return the name it is served under, which carries its content hash.

        Raises:
            ManifestError: The adapter has no manifest, was changed, or was trained on another base.
            ServerError: The software can't serve it, or not in the way that was asked for.
        """
        adapter = read_adapter(folder, self.base, self.software)
        if adapter.not_as_lora and self.mode == "lora":
            raise ServerError(
                f"{self.software.title} can't serve the adapter in {folder} unmerged: {adapter.not_as_lora}.",
                "Serve it merged.",
            )
        limit = self.software.rank_argument
        allowed = self.settings.arguments.get(limit)
        if allowed is not None and adapter.rank > int(allowed) and self.served_as(adapter) == "lora":
            raise ServerError(
                f"The adapter in {folder} has rank {adapter.rank}, and the server is to take {allowed} at most.",
                f"Take {limit} out of server.arguments, raise it, or serve the adapter merged.",
            )
        self._adapters[adapter.name] = adapter
        return adapter.name

    def served_as(self, adapter: Adapter) -> Literal["lora", "merged"]:
        """How an adapter is served."""
        if self.mode != "auto":
            return self.mode
        if self.installation is None:
            return "lora"  # a server of somebody else's takes adapters or has the merged copy under its name
        return "merged" if self.merges or adapter.not_as_lora else "lora"

    @property
    def merges(self) -> bool:
        """Whether adapters are served as merged copies, for each of which the server of another has to end."""
        return self.mode == "merged" or (
            self.mode == "auto" and self.installation is not None and self.installation.on_cpu
        )

    def require(self, name: str) -> None:
        """Raise unless the base (an empty name) or a known adapter is meant.

        Raises:
            ManifestError: There is no such adapter.
        """
        if name and name not in self._adapters:
            raise ManifestError(f"There is no adapter '{name}' here.", "Add its folder first.")

    def backend(
        self, name: str = "", *, pattern: str | None = None, thinks: bool = True, engine: str = "auto"
    ) -> ServerBackend:
        """What a role's engine asks: the base, or one of its adapters by served name.

        Args:
            name: The adapter; empty for the base.
            pattern: A regular expression that every reply has to match.
            thinks: See `ServedBase.backend`.
            engine: The client of the `dspy.LM` behind it: `auto` or `litellm`.

        Raises:
            ManifestError: There is no such adapter.
            ServerError: The software holds replies to no pattern.
        """
        self.require(name)
        added = self.software.guided(pattern) if pattern is not None else {}
        if added is None:
            raise ServerError(f"{self.software.title} holds replies to no pattern.", "Leave out guided.")
        if not thinks:
            added = {**added, "chat_template_kwargs": {"enable_thinking": False}}
        return ServerBackend(self._current, name, added, engine)

    def model_name(self, name: str) -> str:
        """The public name of the base (an empty name) or of an adapter: `hosted_vllm/NAME`."""
        return f"{self.software.provider}/{name or self.base.id}"

    def deciding(self, name: str, cap: int | None = None) -> list[Any]:
        """See `ServedBase.deciding`; not the address of a server of ours, which is another one each time."""
        served = self.served_as(self._adapters[name]) if name else "base"
        settings = self.settings.deciding()
        return [self.base.revision, self.software.name, served, settings, cap, *named_precision(self.precision)]

    def start(self, name: str = "") -> str:
        """Start the server of the base or of an adapter now, probe it, and return its address.

        What couldn't be served before is tried again.
        """
        self._current.forgive(name)
        with self.serving(name) as server:
            return server.api_base

    @contextlib.contextmanager
    def serving(self, name: str = "") -> Iterator[Server]:
        """The running server of the base or of an adapter, for the time of a call; no other call inside it.

        Raises:
            ManifestError: There is no such adapter.
            ServerError: It can't be started, loaded or used; see the message.
        """
        self.require(name)
        with self._current.serving(name) as server:
            yield server

    def close(self) -> None:
        """End the server, where it is ours, and forget what failed. The next call starts a server again."""
        self._current.close()

    # -- what the current server asks; see `Plan` ------------------------------------------------------------------

    def adapter(self, name: str) -> Adapter | None:
        """A known adapter; None for the base."""
        return self._adapters.get(name)

    def server_of(self, name: str) -> str:
        """What tells the server that an adapter needs from others: its own name where it is merged, else nothing."""
        return name if name and self.served_as(self._adapters[name]) == "merged" else ""

    def unstarted(self, key: str) -> Server:
        """The server of a merged adapter, or of the base and its unmerged ones; not started."""
        if self.settings.api_base:
            return AttachedServer(self.software, self.settings, self.base.id)
        assert self.installation is not None
        if key:
            self.told(f"merging {key} into its base")
            weights = merged_copy(self._adapters[key], self.base)
            launch = Launch(self.installation, self.settings, weights, key, {}, None, self.precision)
        else:
            unmerged = {n: a for n, a in self._adapters.items() if self.served_as(a) == "lora"}
            launch = Launch(
                self.installation,
                self.settings,
                self.base.path,
                self.base.id,
                {name: adapter.folder for name, adapter in unmerged.items()},
                max((adapter.server_rank for adapter in unmerged.values()), default=None),
                self.precision,
            )
        return StartedServer(self.software, launch, self.log)
