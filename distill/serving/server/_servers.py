"""One vLLM server: a child process on loopback, or one that runs already."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import httpx

from divcon.distill._pace import forget_pace
from divcon.distill.serving.embedded import Precision
from divcon.distill.serving.server._adapters import Adapter
from divcon.distill.serving.server._client import ServerClient, client_of, is_loopback
from divcon.distill.serving.server._process import HOST, ServerDied, ServerError, ServerProcess, free_port
from divcon.distill.serving.server._settings import Installation, ServerSettings

Told = Callable[[str], None]
_PORTS = 3  # attempts to get a port
_SLOTS = 4  # adapters that a server computes with at a time; on a GPU each takes memory


class StartedServer:
    """A vLLM server of ours, for one folder of weights.

    Args:
        installation: The vLLM that runs it.
        settings: Port, deadline, arguments, environment, restarts.
        weights: The folder it loads.
        name: What it serves them as.
        adapters: LoRA adapters to load with it, by the name to serve each under.
        lora_rank: The largest rank it is to take; None for a server without LoRA.
        log: Where its output goes.
        precision: What it computes in; vLLM's own choice by default.

    Raises:
        ServerError: `max-loras` in the settings leaves the base no slot of its own, on a CPU.
    """

    def __init__(
        self,
        installation: Installation,
        settings: ServerSettings,
        weights: Path,
        name: str,
        adapters: Mapping[str, Path],
        lora_rank: int | None,
        log: Path,
        precision: Precision | None = None,
    ) -> None:
        self.precision = precision
        self.installation = installation
        self.settings = settings
        self.weights = weights
        self.name = name
        self.adapters = dict(adapters)
        self.lora_rank = lora_rank
        self.slots = self._slots()
        self.log = log
        self.died_before = 0
        self._cancelled = threading.Event()
        self._process: ServerProcess | None = None
        self._port = 0

    @property
    def api_base(self) -> str:
        return f"http://{HOST}:{self._port}/v1"

    @property
    def client(self) -> ServerClient:
        return client_of(self.api_base, os.environ.get("VLLM_API_KEY"))

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.running

    def takes(self, adapter: Adapter) -> bool:
        """Whether an adapter can be served unmerged without starting it anew."""
        if adapter.server_rank > (self.lora_rank or 0):
            return False
        return not self.installation.on_cpu or adapter.name in self.adapters or len(self.adapters) + 1 < self.slots

    def _slots(self) -> int:
        """How many adapters it computes with at a time.

        vLLM 0.32 on a CPU computes a request to the base with whatever stands in the last slot, where it shares a
        batch with a request to an adapter. So one more slot than there are adapters stays empty there.
        """
        needed = len(self.adapters) + 1
        given = self.settings.arguments.get("max-loras")
        if not self.installation.on_cpu:
            return int(given) if given else max(1, min(len(self.adapters), _SLOTS))
        if self.lora_rank is not None and given and int(given) < needed:
            raise ServerError(
                f"max-loras is {given}, and {len(self.adapters)} adapters on a CPU take {needed}: vLLM would answer "
                "requests to the base with the adapter in the last slot.",
                "Leave max-loras out, or serve the adapters merged.",
            )
        return int(given) if given else max(needed, _SLOTS)

    def healthy(self) -> bool:
        """Whether it says that it is well; a server whose engine has died doesn't."""
        try:
            return httpx.get(f"http://{HOST}:{self._port}/health", timeout=5.0, trust_env=False).status_code == 200
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
            if self.died_before > self.settings.restarts:
                raise self._process.died()
        for attempt in range(_PORTS, 0, -1):
            try:
                self._start_once(told)
                return
            except ServerDied as error:
                if error.port_taken and self.settings.port is None and attempt > 1:
                    continue  # somebody took it between our look and the server's
                raise
            except BaseException:
                self.stop()
                raise

    def _start_once(self, told: Told | None) -> None:
        self._port = free_port(self.settings.port)
        forget_pace(self.api_base)
        self._process = ServerProcess(self.command(), self.environment(), self.log, f"vLLM with {self.name}")
        next_word = 10.0

        def waiting(gone: float) -> None:
            nonlocal next_word
            if told and gone >= next_word:
                next_word += 10.0
                told(f"vLLM is loading {self.name}, {gone:.0f} s of at most {self.settings.deadline:.0f}")

        health = f"http://{HOST}:{self._port}/health"
        self._process.wait_until_ready(health, self.settings.deadline, waiting, self._cancelled)
        if self.name not in (served := self.client.names()) or not self.running:
            raise ServerError(
                f"Another server answers at {self.api_base}: it serves {', '.join(served)}, not {self.name}.",
                "Leave the port out to have a free one picked.",
            )

    def command(self) -> list[str]:
        """What starts it."""
        words = [
            str(self.installation.python), "-m", "vllm.entrypoints.openai.api_server",
            "--model", str(self.weights), "--served-model-name", self.name,
            "--host", HOST, "--port", str(self._port),
        ]  # fmt: skip
        if "generation-config" not in self.settings.arguments:
            # A base's own defaults (a penalty on repetition, say) would change greedy replies too, and only here.
            words += ["--generation-config", "vllm"]
        if self.precision is not None:
            words += ["--dtype", self.precision]
        if self.lora_rank is not None:
            given = self.settings.arguments
            words.append("--enable-lora")
            if "max-lora-rank" not in given:
                words += ["--max-lora-rank", str(self.lora_rank)]
            if "max-loras" not in given:
                words += ["--max-loras", str(self.slots)]
            if self.adapters:
                words += ["--lora-modules", *(f"{name}={folder.resolve()}" for name, folder in self.adapters.items())]
        if self.installation.on_cpu and "enforce-eager" not in self.settings.arguments:
            # Compiled it decodes 7 % faster, and is ready after 81 s instead of 34 (two cores, 135M parameters).
            words.append("--enforce-eager")
        return words + self.settings.command_line()

    def environment(self) -> dict[str, str]:
        """What its environment has besides ours."""
        ours = {
            "VLLM_NO_USAGE_STATS": "1",  # nothing is reported to anybody
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "PYTHONUNBUFFERED": "1",
            "TOKENIZERS_PARALLELISM": "false",
        }
        if self.installation.on_cpu and "VLLM_CPU_KVCACHE_SPACE" not in os.environ:
            # vLLM would claim nine tenths of the machine's memory, and not start where that isn't free.
            ours["VLLM_CPU_KVCACHE_SPACE"] = "2"
        return {**ours, **self.settings.environment}

    def load(self, name: str, folder: Path) -> None:
        """Load one more adapter; nothing happens where it is loaded."""
        if name not in self.adapters or name not in self.client.names():
            self.client.load_adapter(name, folder)
            self.adapters[name] = folder

    def stop(self) -> None:
        """End it."""
        self._cancelled.set()
        if self._process is not None:
            self._process.stop()
            self._process = None


class AttachedServer:
    """A server that somebody else runs.

    Args:
        settings: Its address and the variable of its key.
        name: The base's name; replaced by the one it is served under when that is known.
    """

    def __init__(self, settings: ServerSettings, name: str) -> None:
        assert settings.api_base is not None
        self.settings = settings
        self.api_base = settings.api_base.rstrip("/")
        self.name = name
        self.lora_rank = None
        self.running = False
        self._serves_base = False

    @property
    def client(self) -> ServerClient:
        return client_of(self.api_base, os.environ.get(self.settings.api_key_env or "VLLM_API_KEY"))

    def start(self, told: Told | None = None) -> None:
        """Wait until it answers, and find the name of the base.

        Raises:
            ServerError: It can't be reached within the deadline (10 seconds at most: it is said to run already).
        """
        deadline = time.monotonic() + min(self.settings.deadline, 10.0)
        while True:
            with contextlib.suppress(httpx.HTTPError):
                health, here = f"{self.api_base.removesuffix('/v1')}/health", is_loopback(self.api_base)
                httpx.get(health, timeout=2.0, trust_env=not here)
                break
            if time.monotonic() > deadline:
                break
            time.sleep(0.5)
        last = self.name.rpartition("/")[2]
        for name, weights in self.client.bases().items():
            # A base in a folder is often served under its whole path, or under a name of the server's own.
            if name == self.name or (last in (name.rpartition("/")[2], weights.rpartition("/")[2])):
                self.name, self._serves_base = name, True
                break
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
