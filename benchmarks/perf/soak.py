"""A soak: one process does small runs, one after the other, for 20 minutes; told is how its memory and handles grow.

Usage: python benchmarks/perf/soak.py [--minutes N] [--output FILE]

Each run collects, screens, exports and evaluates in a folder of its own and closes it. The server is a process of its
own on loopback, and the process that does the runs is seen from outside.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from _common import commit, write
from _fast_server import fast_endpoint, write_questions
from _growth import growth, watch

from divcon import Run, load_pipeline

TRAIN, TEST = 24, 8


def soak(file: Path, folder: Path, until: float, done: Synchronized[int]) -> None:
    """Do whole runs until a time of the monotonic clock."""
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory(dir=folder) as name:
            run = Run(load_pipeline(file), Path(name))
            run.collect()
            run.export(run.screen())
            run.evaluate()
            run.close()
        with done.get_lock():
            done.value += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--latency", type=float, default=0.05, help="seconds that a reply takes")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    measured = commit()  # before it takes long, and another is checked out
    spawn = multiprocessing.get_context("spawn")
    with fast_endpoint(given.latency) as endpoint, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_questions(folder / "questions.jsonl", TRAIN + TEST)
        file = folder / "p.yaml"
        file.write_text(
            f"task: {{name: jsonl, path: {folder / 'questions.jsonl'}, train: {TRAIN}, test: {TEST}, overlap: same}}\n"
            f"roles: {{teacher: {endpoint}, solver: {endpoint}}}\n"
            "screen: {rule: [none, oracle]}\nevaluate: {arms: [direct, cot, teacher], resamples: 200}\n",
            encoding="utf-8",
        )
        done = spawn.Value("i", 0)
        runs = spawn.Process(target=soak, args=(file, folder, time.monotonic() + 60 * given.minutes, done))
        runs.start()
        assert runs.pid is not None
        samples = watch(runs.pid, runs.is_alive)
        runs.join()
    if runs.exitcode:
        raise SystemExit(f"the process that did the runs ended with {runs.exitcode}")
    write(
        given.output,
        {"commit": measured, "minutes": given.minutes, "runs": done.value, "growth": growth(samples)},
    )


if __name__ == "__main__":
    main()
