"""One server: a child process on loopback, or one that runs already."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from divcon.distill._pace import forget_pace
from divcon.distill._proxies import is_loopback
from divcon.distill.serving._settings import AnyServerSettings
from divcon.distill.serving.server._adapters import Adapter
from divcon.distill.serving.server._client import AdapterClient, client_of
from divcon.distill.serving.server._errors import ServerDied, ServerError
from divcon.distill.serving.server._process import HOST, ServerProcess, free_port
from divcon.distill.serving.server._software import Launch, ServerSoftware

Told = Callable[[str], None]
_PORTS = 3  # attempts to get a port


class StartedServer:
    """A server of ours, for one folder of weights.

    Args:
        software: What it runs.
        launch: What it is started with.
        log: Where its output goes.

    Raises:
        ServerError: The settings leave too few slots for the adapters.
    """

    def __init__(self, software: ServerSoftware, launch: Launch, log: Path) -> None:
        self.software = software
        self.launch = launch
        self.name = launch.name
        self.log = log
        self.died_before = 0
        self._cancelled = threading.Event()
        self._process: ServerProcess | None = None
        launch.slots = software.slots(launch)

    @property
    def api_base(self) -> str:
        return f"http://{HOST}:{self.launch.port}/v1"

    @property
    def client(self) -> AdapterClient:
        return client_of(self.software.client, self.api_base, os.environ.get(self.launch.settings.key_variable))

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def takes(self, adapter: Adapter) -> bool:
        """Whether an adapter can be served unmerged without starting it anew."""
        if adapter.server_rank > (self.launch.rank or 0):
            return False
        return adapter.name in self.launch.adapters or self.software.has_room(self.launch)

    @property
    def _health(self) -> str:
        return f"http://{HOST}:{self.launch.port}{self.software.health}"

    def healthy(self) -> bool:
        """Whether it says that it is well; a server whose engine has died doesn't."""
        try:
            return httpx.get(self._health, timeout=5.0, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    def start(self, told: Told | None = None) -> None:
        """Start it and wait until it answers; where it has ended by itself before, only so often.

        Args:
            told: Told how it goes, now and then.

        Raises:
            ServerDied: It ended while it was loading, or more often than `restarts` admits.
            ServerError: The port is taken, or the deadline has passed.
        """
        if self._process is not None and not self._process.running:
            self.died_before += 1
            if self.died_before > self.launch.settings.restarts:
                raise self._process.died()
        for attempt in range(_PORTS, 0, -1):
            try:
                self._start_once(told)
                return
            except ServerDied as error:
                if error.port_taken and self.launch.settings.port is None and attempt > 1:
                    continue  # somebody took it between our look and the server's
                raise
            except BaseException:
                self.stop()
                raise

    def _start_once(self, told: Told | None) -> None:
        title, deadline = self.software.title, self.launch.settings.deadline
        self.launch.port = free_port(self.launch.settings.port)
        forget_pace(self.api_base)
        self._process = ServerProcess(
            self.command(), self.environment(), self.log, f"{title} with {self.name}", self.software.causes
        )
        next_word = 10.0

        def waiting(gone: float) -> None:
            nonlocal next_word
            if told and gone >= next_word:
                next_word += 10.0
                told(f"{title} is loading {self.name}, {gone:.0f} s of at most {deadline:.0f}")

        self._process.wait_until_ready(self._health, deadline, waiting, self._cancelled)
        if self.name not in (served := self.client.names()) or not self.running:
            raise ServerError(
                f"Another server answers at {self.api_base}: it serves {', '.join(served)}, not {self.name}.",
                "Leave the port out to have a free one picked.",
            )

    def command(self) -> list[str]:
        """What starts it."""
        return self.software.command(self.launch)

    def environment(self) -> dict[str, str]:
        """What its environment has besides ours."""
        return {**self.software.environment(self.launch), **self.launch.settings.environment}

    def load(self, name: str, folder: Path) -> None:
        """Load one more adapter; nothing happens where it is loaded."""
        if name not in self.launch.adapters or name not in self.client.names():
            self.client.load_adapter(name, folder)
            self.launch.adapters[name] = folder

    def stop(self) -> None:
        """End it."""
        self._cancelled.set()
        if self._process is not None:
            self._process.stop()
            self._process = None


class AttachedServer:
    """A server that somebody else runs.

    Args:
        software: What it runs.
        settings: Its address and the variable of its key.
        name: The base's name; replaced by the one it is served under when that is known.
    """

    def __init__(self, software: ServerSoftware, settings: AnyServerSettings, name: str) -> None:
        assert settings.api_base is not None
        self.software = software
        self.settings = settings
        self.api_base = settings.api_base.rstrip("/")
        self.name = name
        self.running = False
        self._serves_base = False

    @property
    def client(self) -> AdapterClient:
        key = os.environ.get(self.settings.api_key_env or self.settings.key_variable)
        return client_of(self.software.client, self.api_base, key)

    def start(self, told: Told | None = None) -> None:
        """Wait until it answers, and find the name of the base.

        Raises:
            ServerError: It can't be reached within the deadline (10 seconds at most: it is said to run already).
        """
        deadline = time.monotonic() + min(self.settings.deadline, 10.0)
        while True:
            with contextlib.suppress(httpx.HTTPError):
                health = self.api_base.removesuffix("/v1") + self.software.health
                httpx.get(health, timeout=2.0, trust_env=not is_loopback(self.api_base))
                break
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        if (name := self.client.name_of(self.name)) is not None:
            self.name, self._serves_base = name, True
        self.running = True

    def require_base(self) -> None:
        """Raise unless the server serves the base itself.

        Raises:
            ServerError: It serves others; they are named.
        """
        if not self._serves_base:
            served = ", ".join(self.client.names())
            raise ServerError(
                f"The server at {self.api_base} doesn't serve '{self.name}'; it serves {served}.",
                f"Start it with --served-model-name {self.name}, or name another server.",
            )

    def load(self, name: str, folder: Path) -> None:
        """Load an adapter, where the server hasn't got it."""
        client = self.client
        if name not in client.names():
            client.load_adapter(name, folder)

    def stop(self) -> None:
        """Leave it alone: it isn't ours."""
        self.running = False


Server = StartedServer | AttachedServer
