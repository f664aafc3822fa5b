"""The one server that runs for a base and its adapters: started with the first call, changed, loaded and probed.

Servers start with the first call and not before, so a run whose replies are all in its store starts none. Unmerged
adapters share one server with their base. A merged one is a model of its own; one server runs at a time then, and the
calls for another wait until those under way have ended, since two servers would claim the same memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Any, Protocol

import dspy
from dspy.lm15 import Request
from dspy.utils.exceptions import LMError, LMServerError, LMTransportError

from divcon.distill._control import request_without_control_tokens, without_control_tokens
from divcon.distill._http import LMBackend
from divcon.distill._probe import read_probe
from divcon.distill.serving._settings import AnyServerSettings
from divcon.distill.serving._turn import Turnstile
from divcon.distill.serving.embedded import Base
from divcon.distill.serving.server._adapters import Adapter
from divcon.distill.serving.server._checks import Probed, probe, require_apart
from divcon.distill.serving.server._errors import ServerError
from divcon.distill.serving.server._servers import AttachedServer, Server, StartedServer
from divcon.distill.serving.server._software import ServerSoftware
from divcon.signatures import DivconError

_DYING = 30.0  # seconds a dying server may take until its process is gone


class Plan(Protocol):
    """What is served, and which server that takes.

    Attributes:
        software: What the server runs.
        base: The base.
        settings: The server to start, or the running one to use.
        told: Told in one line what happens.
    """

    software: ServerSoftware
    base: Base
    settings: AnyServerSettings
    told: Callable[[str], None]

    @property
    def tokenizer(self) -> Any:
        """The base's."""

    def adapter(self, name: str) -> Adapter | None:
        """A known adapter; None for the base (an empty name)."""

    def server_of(self, name: str) -> str:
        """What tells the server that an adapter needs from others: its own name where it is merged, else nothing."""

    def unstarted(self, key: str) -> Server:
        """The server that `server_of` tells from others."""


class CurrentServer:
    """The one server that runs, which calls share; see `Shared`.

    Args:
        plan: What is served.

    Attributes:
        probed: What the probe of each adapter has found, by served name.
    """

    def __init__(self, plan: Plan) -> None:
        self.probed: dict[str, Probed] = {}
        self._plan = plan
        # Who may call, and who may start another server. Its lock guards what follows.
        self._turnstile: Turnstile[Server] = Turnstile(self)
        self._lock = self._turnstile.lock
        self._closings = 0
        self._server: Server | None = None
        self._key: str | None = None  # which one it is: the adapter that is merged, or empty for the base's own
        self._ready: dict[str, float] = {}  # when each adapter was loaded and probed on it
        self._failures: dict[str, DivconError] = {}  # what couldn't be served; it isn't tried again by every caller
        self._askers: dict[tuple[str, str, str], LMBackend] = {}

    @property
    def address(self) -> str | None:
        """The address of the server that runs now."""
        return self._server.api_base if self._server is not None else None

    def serving(self, name: str) -> AbstractContextManager[Server]:
        """The running server of the base (an empty name) or of an adapter, for the time of a call.

        Raises:
            ServerError: It can't be started, loaded or used; see the message.
        """
        return self._turnstile.using(name)

    def aserving(self, name: str) -> AbstractAsyncContextManager[Server]:
        """`serving`, awaited."""
        return self._turnstile.ausing(name)

    def as_text(self, request: Request) -> Request:
        """The request with control tokens in its texts made plain text, as training does it."""
        return request_without_control_tokens(request, self._plan.tokenizer)

    def forgive(self, name: str) -> None:
        """Have what couldn't be served tried again."""
        with self._lock:
            self._failures.pop(name, None)

    def asker(self, name: str, server: Server, engine: str) -> LMBackend:
        """What asks a server that `serving` gave, over HTTP."""
        key = (server.api_base, name, engine)
        asker = self._askers.get(key)
        if asker is None:
            # A server of ours isn't somebody else's busy one, and one that has died is started again by `serving`.
            retries = 0 if isinstance(server, StartedServer) else 3
            lm = dspy.LM(
                f"{self._plan.software.provider}/{name or server.name}",
                engine=engine,
                api_base=server.api_base,
                api_key=server.client.key,
                cache=False,
                num_retries=retries,
            )
            asker = self._askers[key] = LMBackend(lm)
        return asker

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
        name = self._plan.software.not_served(str(error))
        with self._lock:
            if name is None or self._plan.adapter(name) is None or self._server is not server:
                return False
            if self._ready.get(name, 0.0) < began:  # else another caller found it, and it was loaded since
                self._ready.pop(name, None)
            return True

    def close(self) -> None:
        """End the server, where it is ours, and forget what failed. The next call starts a server again."""
        with self._lock:
            server, self._server, self._key = self._server, None, None
            self._closings += 1
            self._ready.clear()
            askers = list(self._askers.values())
            self._askers.clear()
            self._failures.clear()
        for asker in askers:
            asker.close()
        if server is not None:
            server.stop()

    # -- what the turnstile asks -----------------------------------------------------------------------------------

    def there(self, target: str) -> Server | None:
        """The server that serves the base or an adapter as it is; see `Shared`."""
        return self._server if not self.disturbs(target) and (not target or target in self._ready) else None

    def disturbs(self, target: str) -> bool:
        """Whether another server has to run than the one that does; see `Shared`."""
        server, adapter = self._server, self._plan.adapter(target)
        if server is None or not server.running or self._key != self._plan.server_of(target):
            return True
        if adapter is None or self._key == target or not isinstance(server, StartedServer):
            return False
        return not server.takes(adapter)

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
                if not self._plan.settings.api_base and closings == self._closings:
                    self._failures[target] = error
            raise

    def _bring_up(self, name: str, closings: int) -> Server:
        """Start what `name` needs, load and probe it, while only `close` may come between."""
        key = self._plan.server_of(name)
        adapter = self._plan.adapter(name)
        with self._lock:
            server, ready = self._server, name in self._ready
            # One of ours that has died is started again, and isn't another.
            is_other = self._key != key or (server is not None and server.running and self.disturbs(name))
        if server is not None and is_other:
            server.stop()
            server = None
        if server is None or not server.running:
            server, ready = self._start(server or self._plan.unstarted(key), key, closings), False
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
            self._server, self._key = server, key
            self._ready.clear()
            self._askers.clear()
        started = time.perf_counter()
        try:
            server.start(self._plan.told)
            with self._lock:
                self._still_open(closings)
        except BaseException:
            server.stop()
            with self._lock:
                if self._server is server:
                    self._server = None
            raise
        beside = server.launch.adapters if isinstance(server, StartedServer) else ()
        what = key or ", ".join([self._plan.base.id, *beside])
        took = time.perf_counter() - started
        self._plan.told(f"{self._plan.software.title} serves {what} at {server.api_base} after {took:.0f} s")
        return server

    def _still_open(self, closings: int) -> None:
        if closings != self._closings:
            raise ServerError("The server was closed while it was being started.", "Start it again.")

    def _check(self, server: Server, adapter: Adapter, merged: bool) -> None:
        if not merged:
            server.load(adapter.name, adapter.folder)
        row = read_probe(adapter.folder)
        if row is None:
            self._plan.told(f"{adapter.name} comes without a probe: that it is applied was not checked")
            return
        row = row.model_copy(update={"messages": without_control_tokens(row.messages, self._plan.tokenizer)})
        ids = self._plan.tokenizer.apply_chat_template(row.messages, add_generation_prompt=True)["input_ids"]
        client, base = server.client, self._plan.base.id if merged else server.name
        found = probe(client, adapter.name, row, base, ids)
        if isinstance(server, AttachedServer):
            require_apart(client, adapter.name, row, base, found)
        self.probed[adapter.name] = found
        self._plan.told(
            f"probe of {adapter.name}: a reply it has learnt has log-probability {found.adapter_logprob:.2f}, "
            f"without it {found.base_logprob:.2f}"
        )
