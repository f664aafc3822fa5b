"""What the measurements of growth share: a fast server in a process of its own, and questions for it."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from _common import free_port, wait_for
from client import serve


@contextmanager
def fast_endpoint(latency: float) -> Iterator[str]:
    """A server on loopback that answers after so many seconds, as an endpoint of a pipeline file."""
    port = free_port()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(port, latency), daemon=True)
    server.start()
    try:
        wait_for(port)
        yield f"{{model: hosted_vllm/m, api_base: 'http://127.0.0.1:{port}/v1'}}"
    finally:
        server.terminate()


def write_questions(file: Path, count: int) -> None:
    """Write so many questions, all different."""
    rows = (
        json.dumps({"question": f"Crate {n} holds {n % 97} plums and {n % 89} pears; how many?", "answer": "7"})
        for n in range(count)
    )
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")
