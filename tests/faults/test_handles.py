"""A long-lived process that does run after run keeps no connection, file or thread of those that are over."""

from __future__ import annotations

from pathlib import Path

import psutil
from support.openai_server import OpenAIServer

from divcon import Run, load_pipeline


def test_a_closed_run_leaves_no_connection_open(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: "1. What is said?\n2. What follows?", stream="refuses") as server:
        endpoint = f"{{model: hosted_vllm/m, api_base: '{server.url}'}}"
        file = tmp_path / "p.yaml"
        file.write_text(
            "task: {name: word-problems, train: 6, test: 2}\n"
            f"roles: {{teacher: {endpoint}, solver: {endpoint}}}\nscreen: {{rule: oracle}}\n"
        )
        port = int(server.url.split(":")[2].split("/")[0])
        process = psutil.Process()

        def connections() -> int:
            return sum(bool(one.raddr) and one.raddr.port == port for one in process.net_connections())

        run = Run(load_pipeline(file), tmp_path / "run")
        run.collect()
        run.screen()
        assert connections(), "the client keeps its connections while the run is open"
        run.close()
        assert connections() == 0
