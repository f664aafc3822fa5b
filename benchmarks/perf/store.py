"""How the run store holds 100,000 traces, and how fast DROP's grader is; ratios against plain SQLite and a bare loop.

Usage: python benchmarks/perf/store.py [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import time
import tracemalloc
from pathlib import Path

from divcon.benchmarks import grade
from divcon.distill import RunStore, Trace
from divcon.programs import Item

TRACES = 100_000
ANSWERS = 10_000


def filled(folder: Path) -> RunStore:
    store = RunStore(folder)
    rows = (
        ("c", f"item-{n}", 0, n, json.dumps([f"What is step {k} of question {n}?" for k in range(3)]), None, None,
         "1. What is it?\n2. What follows?" * 4)
        for n in range(TRACES)
    )  # fmt: skip
    with store._writing() as db:
        db.execute("BEGIN")
        db.executemany("INSERT INTO traces VALUES (?,?,?,?,?,?,?,?)", rows)
        db.execute("COMMIT")
    return store


def measure_store(folder: Path) -> dict[str, float]:
    store = filled(folder)
    tracemalloc.start()
    started = time.perf_counter()
    first = next(store.traces("c"))
    to_first = time.perf_counter() - started
    assert isinstance(first, Trace)
    started = time.perf_counter()
    count = sum(1 for _ in store.traces("c"))
    streamed = time.perf_counter() - started
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    everything = list(store.traces("c"))
    whole = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == len(everything) == TRACES
    started = time.perf_counter()
    for _ in store.traces("c"):
        pass
    streamed = time.perf_counter() - started
    plain = sqlite3.connect(folder / "run.sqlite")
    started = time.perf_counter()
    for row in plain.execute("SELECT * FROM traces WHERE collection = 'c' ORDER BY position, sample"):
        json.loads(row[4])
    bare = time.perf_counter() - started
    return {
        "traces": TRACES, "seconds": round(streamed, 3), "seconds_to_first": round(to_first, 4),
        "over_plain_sqlite": round(streamed / bare, 2), "peak_mb": round(peak / 1e6, 2),
        "peak_mb_as_a_list": round(whole / 1e6, 1),
    }  # fmt: skip


def measure_grading() -> dict[str, float]:
    rng = random.Random(0)
    words = ("Smith", "Rivers", "Field", "Goal", "yards", "the first", "half", "Bears", "12", "45", "1,204", "3.5")
    items, replies = [], []
    for n in range(ANSWERS):
        spans = tuple(" ".join(rng.choices(words, k=rng.randint(1, 3))) for _ in range(rng.choice([1, 1, 1, 2, 4])))
        items.append(Item(id=str(n), question="?", answer=", ".join(spans), references=(spans,), grader="drop"))
        said = spans if rng.random() < 0.5 else tuple(rng.choices(words, k=len(spans)))
        replies.append(rng.choice(["", "Answer: "]) + ", ".join(said))
    started = time.process_time()
    right = sum(grade(item, reply).right for item, reply in zip(items, replies, strict=True))
    return {"answers": ANSWERS, "cpu_seconds": round(time.process_time() - started, 3), "right": right}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {"store": measure_store(Path(folder)), "drop_grading": measure_grading()}
    text = json.dumps(found, indent=2) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
