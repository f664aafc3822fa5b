"""What the speed scripts share: the machine in words, a timer, and one JSON file a script."""

from __future__ import annotations

import json
import os
import platform
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
