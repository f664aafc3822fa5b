"""What the speed scripts share: the machine in words, a timer, and one JSON file a script."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def machine() -> dict[str, Any]:
    """The machine that a figure was measured on, without its name."""
    model, flags = platform.processor() or platform.machine(), ""
    if Path("/proc/cpuinfo").is_file():
        lines = dict(
            line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if line.count(":") == 1
        )
        named = {key.strip(): value.strip() for key, value in lines.items()}
        model, flags = named.get("model name", model), named.get("flags", "")
    wide = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags.split()]
    versions = {name: metadata.version(name) for name in ("dspy", "litellm", "torch", "transformers")}
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "instructions": wide,
        "python": platform.python_version(),
        **versions,
    }


def commit() -> str:
    """The commit that is checked out here, with a plus sign where files differ from it."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait up to a minute until a server listens on a port of loopback.

    Raises:
        TimeoutError: None does.
    """
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


def timed(work: Callable[[], T]) -> tuple[T, float, float]:
    """What `work` gives, the seconds it took, and the CPU seconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, time.perf_counter() - wall, time.process_time() - cpu


def at_once(work: Callable[[T], R], jobs: Sequence[T], concurrency: int) -> list[R]:
    """`work` on every job, `concurrency` at a time."""
    with ThreadPoolExecutor(concurrency) as pool:
        return list(pool.map(work, jobs))


def write(output: Path | None, results: dict[str, Any]) -> None:
    """Print the results, and keep them."""
    text = json.dumps({"machine": machine(), **results}, indent=2) + "\n"
    print(text, end="")
    if output is not None:
        output.write_text(text, encoding="utf-8")
