"""A server as a child process: started on a port of its own, waited for, watched, and ended for good."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import httpx

from divcon.distill.serving.embedded import inherited
from divcon.distill.serving.server._causes import Causes, port_was_taken
from divcon.distill.serving.server._errors import ServerDied, ServerError
from divcon.signatures import masked

HOST = "127.0.0.1"  # nothing here listens anywhere else
_TAIL = 15  # lines of the log that an error shows
_POLL = 0.2  # seconds between two looks at a server that is starting


def free_port(wanted: int | None = None) -> int:
    """A port on loopback that nobody listens on; `wanted` itself where it is given.

    It is free when this returns. Whoever starts a server on it has to look whether it was the one that got it.

    Raises:
        ServerError: `wanted` is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted or 0))
        except OSError as error:
            raise ServerError(
                f"Port {wanted} on {HOST} can't be used: {error.strerror}.",
                "Leave the port out to have a free one picked, or name another.",
            ) from error
        port: int = probe.getsockname()[1]
        return port


class ServerProcess:
    """A server process behind a watchdog that ends it when this process ends, however that happens.

    Args:
        command: Starts the server.
        environment: Added to this process' own.
        log: Where its output goes; appended to.
        name: What errors call it.
        causes: What makes such a server end by itself.
        grace: Seconds it is given to end by itself before it is made to.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        name: str,
        causes: Causes,
        grace: float = 3.0,
    ) -> None:
        self.log = log
        self.causes = causes
        self.name = name
        self._stopping = False
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._begin = output.tell()
            try:
                self._watchdog = subprocess.Popen(
                    [sys.executable, "-I", str(Path(__file__).with_name("_watchdog.py")), str(grace), *command],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**inherited(), **environment},
                )
            except OSError as error:
                raise ServerError(f"{name} can't be started: {error.strerror}.", "Check its Python.") from error
        atexit.register(self.stop)

    @property
    def running(self) -> bool:
        return self._watchdog.poll() is None

    def wait_until_ready(
        self,
        health: str,
        deadline: float,
        waiting: Callable[[float], None] | None = None,
        cancelled: threading.Event | None = None,
    ) -> None:
        """Wait until the server answers 200 at its health address.

        Args:
            health: The address.
            deadline: Seconds it may take.
            waiting: Told the seconds gone by, now and then.
            cancelled: Ends the wait when it is set.

        Raises:
            ServerDied: It ended; with the last lines of its log and, where that is known, why.
            ServerError: It wasn't ready in time, and was ended.
        """
        started = time.monotonic()
        with httpx.Client(timeout=2.0, trust_env=False) as client:
            while True:
                if cancelled is not None and cancelled.is_set():
                    self.stop()
                    raise ServerError(f"{self.name} was ended while it was starting.", "Start it again.")
                if not self.running:
                    raise self.died()
                with contextlib.suppress(httpx.HTTPError):
                    if client.get(health).status_code == 200:
                        return
                gone = time.monotonic() - started
                if gone > deadline:
                    self.stop()
                    raise ServerError(
                        f"{self.name} wasn't ready after {gone:.0f} s; it was ended. Its log ends with:\n{self.tail()}",
                        f"Raise the deadline, or look at {self.log}.",
                    )
                if waiting:
                    waiting(gone)
                time.sleep(_POLL)

    def died(self) -> ServerDied:
        """The error that says how it ended."""
        log = self.output()
        problem, remedy = self.causes.explain(self.name, self._watchdog.poll(), log)
        error = ServerDied(f"{problem}\nIts log ends with:\n{self.tail()}", remedy or f"Look at {self.log}.")
        error.port_taken = port_was_taken(log)
        return error

    def output(self) -> str:
        """What this process has written to the log so far, 200,000 characters at most, masked of secrets."""
        try:
            with self.log.open("rb") as stream:
                end = stream.seek(0, os.SEEK_END)
                stream.seek(max(self._begin, end - 200_000))
                return masked(stream.read().decode("utf-8", "replace"))
        except OSError:
            return ""

    def tail(self) -> str:
        """The last lines of the log, with secrets that may stand in a command line left out."""
        lines = [line.rstrip()[:300] for line in self.output().splitlines() if line.strip()]
        return "\n".join(f"  {_without_keys(line)}" for line in lines[-_TAIL:]) or "  (nothing)"

    def stop(self) -> None:
        """End the server and wait until it is gone; nothing happens where it is."""
        atexit.unregister(self.stop)
        if self._watchdog.stdin is not None and not self._watchdog.stdin.closed:
            with contextlib.suppress(OSError):
                self._watchdog.stdin.close()
        self._watchdog.terminate()  # a process that was forked meanwhile holds the pipe open
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._watchdog.wait(30)


def _without_keys(line: str) -> str:
    return re.sub(r"(?i)(api[-_]?key[\"']?\s*[=:]\s*)(\[[^\]]*\]|\S+)", r"\1***", line)
