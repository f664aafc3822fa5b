"""A base and its adapters behind vLLM, used as the embedded engine is: names to ask by, and LMs that answer to them.

Servers start with the first call and not before, so a run whose replies are all in its store starts none. Unmerged
adapters share one server with their base. A merged one is a model of its own; one server runs at a time then, and the
calls for another wait until those under way have ended, since two servers would claim the same memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import dspy
from dspy.lm15 import Request, Response
from dspy.utils.exceptions import LMError, LMServerError, LMTransportError

from divcon.distill._http import LMBackend
from divcon.distill._manifest import ManifestError
from divcon.distill._probe import read_probe
from divcon.distill.serving.embedded import Base, Precision, WantedPrecision, cpu_has_bfloat16
from divcon.distill.serving.server._adapters import Adapter, merged_copy, read_adapter
from divcon.distill.serving.server._client import probe, require_apart
from divcon.distill.serving.server._process import ServerError
from divcon.distill.serving.server._servers import AttachedServer, Server, StartedServer
from divcon.distill.serving.server._settings import AdapterMode, Installation, ServerSettings, find_installation
from divcon.signatures import DivconError

_DYING = 30.0  # seconds a dying server may take until its process is gone
_WAITING = ThreadPoolExecutor(256, thread_name_prefix="divcon-vllm-waiting")
_LOOKING = ThreadPoolExecutor(256, thread_name_prefix="divcon-vllm-looking")
_NOT_SERVED = re.compile(r"model `([^`]+)` does not exist")


class VLLMModel:
    """A base, and any number of its adapters, served by vLLM.

    Args:
        base: The base model.
        settings: The server to start, or the running one to use.
        adapter: `lora` serves adapters unmerged, all on one server; `merged` serves a merged copy each; `auto` is
            `merged` on a CPU and where vLLM can't take an adapter unmerged, else `lora`.
        precision: What a server of ours computes in; `auto` leaves that to vLLM, but for a CPU that is slow in
            bfloat16, which computes in float32. `settings.arguments` may say `dtype` instead.
        log: Where a server's output goes; a file in the temporary folder by default.
        told: Told in one line what happens.

    Raises:
        ServerError: There is no vLLM where the settings say.
    """

    def __init__(
        self,
        base: Base,
        settings: ServerSettings | None = None,
        *,
        adapter: AdapterMode = "auto",
        precision: WantedPrecision = "auto",
        log: Path | None = None,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self.base = base
        self.settings = settings or ServerSettings()
        self.mode = adapter
        self.wanted = precision
        self.log = log or Path(tempfile.gettempdir()) / f"divcon-vllm-{id(self):x}.log"
        self.told = told or (lambda text: None)
        self.probed: dict[str, dict[str, float]] = {}
        self._adapters: dict[str, Adapter] = {}
        self._askers: dict[tuple[str, str, str], LMBackend] = {}
        self._turn = threading.Condition()
        self._changing = False
        self._calls = 0
        self._closings = 0
        self._current: str | None = None  # the adapter that is served merged; empty for the base's own server
        self._server: Server | None = None
        self._ready: dict[str, float] = {}  # when each adapter was loaded and probed on the server that runs
        self._failures: dict[str, DivconError] = {}  # what couldn't be served; it isn't tried again by every caller

    def __deepcopy__(self, memo: dict[int, Any]) -> VLLMModel:
        return self

    def __enter__(self) -> VLLMModel:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @functools.cached_property
    def installation(self) -> Installation | None:
        """The vLLM that runs here; None where a running server is used."""
        return None if self.settings.api_base else find_installation(self.settings)

    @functools.cached_property
    def precision(self) -> Precision | None:
        """What a server of ours is told to compute in; None where vLLM, or whoever runs it, has chosen."""
        if self.installation is None or "dtype" in self.settings.arguments:
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
            ServerError: vLLM can't serve it, or not in the way that was asked for.
        """
        adapter = read_adapter(folder, self.base)
        if adapter.not_as_lora and self.mode == "lora":
            raise ServerError(
                f"vLLM can't serve the adapter in {folder} unmerged: {adapter.not_as_lora}.", "Serve it merged."
            )
        allowed = self.settings.arguments.get("max-lora-rank")
        if allowed is not None and adapter.rank > int(allowed) and self.served_as(adapter) == "lora":
            raise ServerError(
                f"The adapter in {folder} has rank {adapter.rank}, and the server is to take {allowed} at most.",
                "Take max-lora-rank out of server.arguments, raise it, or serve the adapter merged.",
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

    def served_as_known(self, name: str) -> str:
        """How the base (an empty name) or a known adapter is served."""
        return self.served_as(self._adapters[name]) if name else "base"

    def require(self, name: str) -> None:
        """Raise unless the base (an empty name) or a known adapter is meant.

        Raises:
            ManifestError: There is no such adapter.
        """
        if name and name not in self._adapters:
            raise ManifestError(f"There is no adapter '{name}' here.", "Add its folder first.")

    def backend(self, name: str = "", *, pattern: str | None = None, engine: str = "auto") -> VLLMBackend:
        """What a role's engine asks: the base, or one of its adapters by served name.

        Args:
            name: The adapter; empty for the base.
            pattern: A regular expression that every reply has to match (vLLM's structured outputs).
            engine: The client of the `dspy.LM` behind it: `auto` or `litellm`.
        """
        self.require(name)
        return VLLMBackend(self, name, pattern, engine)

    def asker(self, name: str, server: Server, engine: str = "auto") -> LMBackend:
        """What asks a server that `serving` gave, over HTTP."""
        key = (server.api_base, name, engine)
        asker = self._askers.get(key)
        if asker is None:
            # A server of ours isn't somebody else's busy one, and one that has died is started again by `serving`.
            retries = 0 if isinstance(server, StartedServer) else 3
            lm = dspy.LM(
                f"hosted_vllm/{name or server.name}", engine=engine, api_base=server.api_base,
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
        with self._turn:
            self._failures.pop(name, None)
        with self.serving(name) as server:
            return server.api_base

    @contextlib.contextmanager
    def serving(self, name: str = "") -> Iterator[Server]:
        """The running server of the base or of an adapter, for the time of a call.

        Raises:
            ServerError: It can't be started, loaded or used; see the message.
        """
        server = self._enter(name)
        try:
            yield server
        finally:
            self._leave()

    @contextlib.asynccontextmanager
    async def aserving(self, name: str = "") -> AsyncIterator[Server]:
        """`serving`, awaited."""
        server = self._enter_at_once(name)
        if server is None:
            # Not the loop's own threads: callers that wait here would keep those from whom they wait for.
            entering = asyncio.get_running_loop().run_in_executor(_WAITING, self._enter, name)
            try:
                server = await asyncio.shield(entering)
            except asyncio.CancelledError:
                entering.add_done_callback(self._leave_unasked)
                raise
        try:
            yield server
        finally:
            self._leave()

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
        name = _NOT_SERVED.search(str(error))
        with self._turn:
            if name is None or name[1] not in self._adapters or self._server is not server:
                return False
            if self._ready.get(name[1], 0.0) < began:  # else another caller found it, and it was loaded since
                self._ready.pop(name[1], None)
            return True

    def close(self) -> None:
        """End the server, where it is ours, and forget what failed. The next call starts a server again."""
        with self._turn:
            server, self._server, self._current = self._server, None, None
            self._closings += 1
            self._ready.clear()
            self._askers.clear()
            self._failures.clear()
        if server is not None:
            server.stop()

    # -- whose turn it is ------------------------------------------------------------------------------------------

    def _fits(self, name: str) -> bool:
        return not self._must_change(name) and (not name or name in self._ready)

    def _must_change(self, name: str) -> bool:
        """Whether another server has to run than the one that does."""
        server, adapter = self._server, self._adapters.get(name)
        if server is None or not server.running or self._current != self.server_of(name):
            return True
        unmerged = adapter is not None and not self.server_of(name)
        return unmerged and isinstance(server, StartedServer) and not server.takes(adapter)  # type: ignore[arg-type]

    def _enter_at_once(self, name: str) -> Server | None:
        with self._turn:
            if self._changing or not self._fits(name):
                return None
            self._calls += 1
            return self._server

    def _enter(self, name: str) -> Server:
        with self._turn:
            while self._changing or (self._calls and self._must_change(name)):
                self._turn.wait()
            if self._fits(name):
                self._calls += 1
                assert self._server is not None
                return self._server
            if failure := self._failures.get(name):
                raise type(failure)(failure.problem, failure.remedy)
            self._changing = True
            closings = self._closings
        try:
            server = self._bring_up(name, closings)
        except BaseException as error:
            with self._turn:
                self._changing = False
                if isinstance(error, DivconError) and not self.settings.api_base and closings == self._closings:
                    self._failures[name] = error
                self._turn.notify_all()
            raise
        with self._turn:
            self._changing = False
            self._calls += 1
            self._turn.notify_all()
        return server

    def _leave_unasked(self, entered: asyncio.Future[Server]) -> None:
        """Leave for a caller who was cancelled while it was entering."""
        if not entered.cancelled() and entered.exception() is None:
            self._leave()

    def _leave(self) -> None:
        with self._turn:
            self._calls -= 1
            self._turn.notify_all()

    def _bring_up(self, name: str, closings: int) -> Server:
        """Start what `name` needs, load and probe it; `_changing` keeps everybody else out meanwhile, but `close`."""
        key = self.server_of(name)
        adapter = self._adapters.get(name)
        with self._turn:
            server = self._server
        if server is not None and (self._current != key or (server.running and self._must_change(name))):
            server.stop()
            server = None
        if server is None or not server.running:
            made = server or self._made(key)
            with self._turn:
                self._still_open(closings)
                self._server, self._current = made, key
                self._ready.clear()
                self._askers.clear()
            started = time.perf_counter()
            try:
                made.start(self.told)
                self._still_open(closings)
            except BaseException:
                made.stop()
                with self._turn:
                    if self._server is made:
                        self._server = None
                raise
            server = made
            what = key or ", ".join([self.base.id, *getattr(server, "adapters", ())])
            self.told(f"vLLM serves {what} at {server.api_base} after {time.perf_counter() - started:.0f} s")
        if not name and isinstance(server, AttachedServer):
            server.require_base()
        if adapter is not None and name not in self._ready:
            self._check(server, adapter, merged=bool(key))
            self._ready[name] = time.monotonic()
        return server

    def _still_open(self, closings: int) -> None:
        with self._turn:
            if closings != self._closings:
                raise ServerError("The server was closed while it was being started.", "Start it again.")

    def _made(self, key: str) -> Server:
        if self.settings.api_base:
            return AttachedServer(self.settings, self.base.id)
        assert self.installation is not None
        if key:
            adapter = self._adapters[key]
            self.told(f"merging {key} into its base")
            weights = merged_copy(adapter, self.base)
            return StartedServer(self.installation, self.settings, weights, key, {}, None, self.log, self.precision)
        unmerged = {n: a for n, a in self._adapters.items() if self.served_as(a) == "lora"}
        return StartedServer(
            self.installation, self.settings, self.base.path, self.base.id,
            {name: adapter.folder for name, adapter in unmerged.items()},
            max((adapter.server_rank for adapter in unmerged.values()), default=None), self.log,
            self.precision,
        )  # fmt: skip

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
            require_apart(client, adapter.name, row, base)
        self.probed[adapter.name] = found
        self.told(
            f"probe of {adapter.name}: a reply it has learnt has log-probability {found['adapter_logprob']:.2f}, "
            f"without it {found['base_logprob']:.2f}"
        )


class VLLMBackend:
    """Answers requests with a `VLLMModel`, by the base or one of its adapters.

    A call that a dying server cut off is asked again of its successor.
    """

    def __init__(self, model: VLLMModel, adapter: str, pattern: str | None, engine: str) -> None:
        self.model = model
        self.adapter = adapter
        self.pattern = pattern
        self.engine = engine

    def __deepcopy__(self, memo: dict[int, Any]) -> VLLMBackend:
        return self

    def complete(self, request: Request, rollout: int) -> Response:
        attempt = 0
        while True:
            with self.model.serving(self.adapter) as server:
                began = time.monotonic()
                asker = self.model.asker(self.adapter, server, self.engine)
                try:
                    return asker.complete(self._asked(request, asker.lm), rollout)
                except LMError as error:
                    if not self.model.has_failed(server, error, attempt, began):
                        raise
            attempt += 1

    async def acomplete(self, request: Request, rollout: int) -> Response:
        attempt = 0
        while True:
            async with self.model.aserving(self.adapter) as server:
                began = time.monotonic()
                asker = self.model.asker(self.adapter, server, self.engine)
                try:
                    return await asker.acomplete(self._asked(request, asker.lm), rollout)
                except LMError as error:
                    loop = asyncio.get_running_loop()
                    if not await loop.run_in_executor(_LOOKING, self.model.has_failed, server, error, attempt, began):
                        raise
            attempt += 1

    def _asked(self, request: Request, lm: dspy.LM) -> Request:
        config = request.config
        if self.pattern is not None:
            extensions = {**(config.extensions or {}), "structured_outputs": {"regex": self.pattern}}
            config = replace(config, extensions=extensions)
        return replace(request, model=lm.model, config=config)
