"""A large collection: 100,000 traces at 256 requests at a time from a fast server, with memory and handles over time.

Usage: python benchmarks/perf/load.py [--traces N] [--concurrency N] [--output FILE]

The server is a process of its own on loopback. `divcon collect` asks it; the figures are of that process, seen from
outside.
"""

from __future__ import annotations

import argparse
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import commit, write
from _fast_server import fast_endpoint, write_questions
from _growth import growth, watch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--traces", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--latency", type=float, default=0.01, help="seconds that a reply takes")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    measured = commit()  # before it takes long, and another is checked out
    with fast_endpoint(given.latency) as endpoint, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_questions(folder / "questions.jsonl", given.traces + 1)
        (folder / "p.yaml").write_text(
            f"task: {{name: jsonl, path: questions.jsonl, train: {given.traces}, test: 1, overlap: same}}\n"
            f"roles: {{teacher: {endpoint}, solver: {endpoint}}}\n"
            f"collect: {{concurrency: {given.concurrency}}}\n",
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "divcon.cli", "collect", "p.yaml"]
        began = time.monotonic()
        with (folder / "said.txt").open("w") as said:
            collect = subprocess.Popen(command, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
            samples = watch(collect.pid, lambda: collect.poll() is None)
            status = collect.wait()
        seconds = time.monotonic() - began
        if status:
            raise SystemExit((folder / "said.txt").read_text())
        store = sqlite3.connect(folder / "runs" / "p" / "run.sqlite")
        tables = ("traces", "calls")
        counted = [store.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables]
        size = (folder / "runs" / "p" / "run.sqlite").stat().st_size
    assert counted == [given.traces, given.traces]
    write(
        given.output,
        {
            "commit": measured,
            "traces": given.traces,
            "concurrency": given.concurrency,
            "latency_of_the_server": given.latency,
            "seconds": round(seconds, 1),
            "traces_a_second": round(given.traces / seconds, 1),
            "store_megabytes": round(size / 1e6, 1),
            "growth": growth(samples),
        },
    )


if __name__ == "__main__":
    main()
