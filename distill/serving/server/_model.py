"""A base and its adapters behind a server, used as the embedded engine is: names to ask by, and what answers to them.

Servers start with the first call and not before, so a run whose replies are all in its store starts none. Unmerged
adapters share one server with their base. A merged one is a model of its own; one server runs at a time then, and the
calls for another wait until those under way have ended, since two servers would claim the same memory.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

import dspy
from dspy.utils.exceptions import LMError, LMServerError, LMTransportError

from divcon.distill._http import LMBackend
from divcon.distill._manifest import ManifestError
from divcon.distill._probe import read_probe
from divcon.distill.serving._settings import AdapterMode, AnyServerSettings
from divcon.distill.serving._turn import Turnstile
from divcon.distill.serving.embedded import Base, Precision, WantedPrecision, cpu_has_bfloat16, named_precision
from divcon.distill.serving.server._adapters import Adapter, merged_copy, read_adapter
from divcon.distill.serving.server._backend import ServerBackend
from divcon.distill.serving.server._checks import Probed, probe, require_apart
from divcon.distill.serving.server._errors import ServerError
from divcon.distill.serving.server._installation import Installation
from divcon.distill.serving.server._servers import AttachedServer, Server, StartedServer
from divcon.distill.serving.server._software import Launch, ServerSoftware
from divcon.signatures import DivconError

_DYING = 30.0  # seconds a dying server may take until its process is gone


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

    Attributes:
        probed: What the probe of each adapter has found on the server that runs.
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
        self.probed: dict[str, Probed] = {}
        self._adapters: dict[str, Adapter] = {}
        self._askers: dict[tuple[str, str, str], LMBackend] = {}
        # Who may call, and who may start another server. Its lock guards what follows.
        self._turnstile: Turnstile[Server] = Turnstile(self)
        self._lock = self._turnstile.lock
        self._closings = 0
        self._current: str | None = None  # the adapter that is served merged; empty for the base's own server
        self._server: Server | None = None
        self._ready: dict[str, float] = {}  # when each adapter was loaded and probed on the server that runs
        self._failures: dict[str, DivconError] = {}  # what couldn't be served; it isn't tried again by every caller

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
        return self._server.api_base if self._server is not None else None

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
        return "merged" if self.installation.on_cpu or adapter.not_as_lora else "lora"

    def require(self, name: str) -> None:
        """Raise unless the base (an empty name) or a known adapter is meant.

        Raises:
            ManifestError: There is no such adapter.
        """
        if name and name not in self._adapters:
            raise ManifestError(f"There is no adapter '{name}' here.", "Add its folder first.")

    def backend(self, name: str = "", *, pattern: str | None = None, engine: str = "auto") -> ServerBackend:
        """What a role's engine asks: the base, or one of its adapters by served name.

        Args:
            name: The adapter; empty for the base.
            pattern: A regular expression that every reply has to match.
            engine: The client of the `dspy.LM` behind it: `auto` or `litellm`.

        Raises:
            ManifestError: There is no such adapter.
            ServerError: The software holds replies to no pattern.
        """
        self.require(name)
        added = self.software.guided(pattern) if pattern is not None else {}
        if added is None:
            raise ServerError(f"{self.software.title} holds replies to no pattern.", "Leave out guided.")
        return ServerBackend(self, name, added, engine)

    def model_name(self, name: str) -> str:
        """The public name of the base (an empty name) or of an adapter: `hosted_vllm/NAME`."""
        return f"{self.software.provider}/{name or self.base.id}"

    def deciding(self, name: str, cap: int | None = None) -> list[Any]:
        """See `ServedBase.deciding`; not the address of a server of ours, which is another one each time."""
        served = self.served_as(self._adapters[name]) if name else "base"
        settings = self.settings.deciding()
        return [self.base.revision, self.software.name, served, settings, cap, *named_precision(self.precision)]

    def asker(self, name: str, server: Server, engine: str = "auto") -> LMBackend:
        """What asks a server that `serving` gave, over HTTP."""
        key = (server.api_base, name, engine)
        asker = self._askers.get(key)
        if asker is None:
            # A server of ours isn't somebody else's busy one, and one that has died is started again by `serving`.
            retries = 0 if isinstance(server, StartedServer) else 3
            lm = dspy.LM(
                f"{self.software.provider}/{name or server.name}", engine=engine, api_base=server.api_base,
                api_key=server.client.key, cache=False, num_retries=retries,
            )  # fmt: skip
            asker = self._askers[key] = LMBackend(lm)
        return asker

    def server_of(self, name: str) -> str:
        """What tells the server that an adapter needs from others: its own name where it is merged, else nothing."""
        return name if name and self.served_as(self._adapters[name]) == "merged" else ""

    def start(self, name: str = "") -> str:
        """Start the server of the base or of an adapter now, probe it, and return its address.

        What couldn't be served before is tried again.
        """
        with self._lock:
            self._failures.pop(name, None)
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
        with self._turnstile.using(name) as server:
            yield server

    @contextlib.asynccontextmanager
    async def aserving(self, name: str = "") -> AsyncIterator[Server]:
        """`serving`, awaited."""
        self.require(name)
        async with self._turnstile.ausing(name) as server:
            yield server

    def has_failed(self, server: Server, error: LMError, attempt: int, began: float) -> bool:
        """Whether a call failed because the server it went to is gone, so that it should be asked again of the next.

        A dying server of ours answers 500 for a while, closes its sockets, and is gone some seconds later. A server of
        somebody else's that was started anew has lost the adapters that were loaded into it.
        """
        if isinstance(server, AttachedServer):
            return attempt == 0 and self._has_lost(server, error, began)
        if not isinstance(error, (LMTransportError, LMServerError)):
            return False
        deadline = time.monotonic() + _DYING
        while self._server is server and server.running:
            if server.healthy() or time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return self._server is server

    def _has_lost(self, server: AttachedServer, error: LMError, began: float) -> bool:
        name = self.software.not_served(str(error))
        with self._lock:
            if name not in self._adapters or self._server is not server:
                return False
            if self._ready.get(name, 0.0) < began:  # else another caller found it, and it was loaded since
                self._ready.pop(name, None)
            return True

    def close(self) -> None:
        """End the server, where it is ours, and forget what failed. The next call starts a server again."""
        with self._lock:
            server, self._server, self._current = self._server, None, None
            self._closings += 1
            self._ready.clear()
            self._askers.clear()
            self._failures.clear()
        if server is not None:
            server.stop()

    # -- what the turnstile asks -----------------------------------------------------------------------------------

    def there(self, target: str) -> Server | None:
        """The server that serves the base or an adapter as it is; see `Shared`."""
        return self._server if not self.disturbs(target) and (not target or target in self._ready) else None

    def disturbs(self, target: str) -> bool:
        """Whether another server has to run than the one that does; see `Shared`."""
        server, adapter = self._server, self._adapters.get(target)
        if server is None or not server.running or self._current != self.server_of(target):
            return True
        unmerged = adapter is not None and not self.server_of(target)
        return unmerged and isinstance(server, StartedServer) and not server.takes(adapter)  # type: ignore[arg-type]

    def refused(self, target: str) -> DivconError | None:
        """Why `target` couldn't be served; see `Shared`."""
        failure = self._failures.get(target)
        return type(failure)(failure.problem, failure.remedy) if failure else None

    def change(self, target: str) -> Server:
        """Start what `target` needs, load and probe it; see `Shared`."""
        with self._lock:
            closings = self._closings
        try:
            return self._bring_up(target, closings)
        except DivconError as error:
            with self._lock:
                # A running server may have been put right by its owner, so that is tried again.
                if not self.settings.api_base and closings == self._closings:
                    self._failures[target] = error
            raise

    def _bring_up(self, name: str, closings: int) -> Server:
        """Start what `name` needs, load and probe it, while only `close` may come between."""
        key = self.server_of(name)
        adapter = self._adapters.get(name)
        with self._lock:
            server, ready = self._server, name in self._ready
        if server is not None and (self._current != key or (server.running and self.disturbs(name))):
            server.stop()
            server = None
        if server is None or not server.running:
            server, ready = self._start(server or self._made(key), key, closings), False
        if not name and isinstance(server, AttachedServer):
            server.require_base()
        if adapter is not None and not ready:
            self._check(server, adapter, merged=bool(key))
            with self._lock:
                if self._server is server:
                    self._ready[name] = time.monotonic()
        return server

    def _start(self, server: Server, key: str, closings: int) -> Server:
        with self._lock:
            self._still_open(closings)
            self._server, self._current = server, key
            self._ready.clear()
            self._askers.clear()
        started = time.perf_counter()
        try:
            server.start(self.told)
            with self._lock:
                self._still_open(closings)
        except BaseException:
            server.stop()
            with self._lock:
                if self._server is server:
                    self._server = None
            raise
        beside = server.launch.adapters if isinstance(server, StartedServer) else ()
        what = key or ", ".join([self.base.id, *beside])
        took = time.perf_counter() - started
        self.told(f"{self.software.title} serves {what} at {server.api_base} after {took:.0f} s")
        return server

    def _still_open(self, closings: int) -> None:
        if closings != self._closings:
            raise ServerError("The server was closed while it was being started.", "Start it again.")

    def _made(self, key: str) -> Server:
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
                self.installation, self.settings, self.base.path, self.base.id,
                {name: adapter.folder for name, adapter in unmerged.items()},
                max((adapter.server_rank for adapter in unmerged.values()), default=None),
                self.precision,
            )  # fmt: skip
        return StartedServer(self.software, launch, self.log)

    def _check(self, server: Server, adapter: Adapter, merged: bool) -> None:
        if not merged:
            server.load(adapter.name, adapter.folder)
        row = read_probe(adapter.folder)
        if row is None:
            self.told(f"{adapter.name} comes without a probe: that it is applied was not checked")
            return
        ids = self.tokenizer.apply_chat_template(row.messages, add_generation_prompt=True)["input_ids"]
        client, base = server.client, self.base.id if merged else server.name
        found = probe(client, adapter.name, row, base, ids)
        if isinstance(server, AttachedServer):
            require_apart(client, adapter.name, row, base, found)
        self.probed[adapter.name] = found
        self.told(
            f"probe of {adapter.name}: a reply it has learnt has log-probability {found.adapter_logprob:.2f}, "
            f"without it {found.base_logprob:.2f}"
        )
