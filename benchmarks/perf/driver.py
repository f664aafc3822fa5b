"""What one driver takes: replies a second into a store of a million, from its own threads and from Ray workers.

The rate is compared with plain SQLite at the same durability, in the same run: one row a transaction, synced.

Usage: python benchmarks/perf/driver.py [--rows 1000000] [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from _common import write

from divcon.distill import Job, RunStore, Trace, overlapped
from divcon.distill.executors import EXECUTORS, Execution, Recipe
from divcon.programs import Item

REPLIES = 2_000  # a round
ROUNDS = 5
WORKERS = 2
CONCURRENCY = 64
REQUEST = {"messages": [{"role": "user", "content": "Split the question into subquestions. " * 12}]}
RESPONSE = {
    "message": {"role": "assistant", "content": "1. What is it at first?\n2. What is added?\n3. What is left?"},
    "usage": {"input_tokens": 120, "output_tokens": 24, "cache_read_tokens": None},
}


def fill(store: RunStore, rows: int) -> None:
    """So many replies, in few transactions."""
    asked, answered = json.dumps(REQUEST), json.dumps(RESPONSE)
    for start in range(0, rows, 50_000):
        store.write_rows(
            "calls",
            [
                (f"{n * 2654435761 % 2**64:016x}", "teacher", "collect", "m", asked, 0, answered, 120, 24, None,
                 1.0, None, 0.0)
                for n in range(start, min(start + 50_000, rows))
            ],
        )  # fmt: skip


def keep(store: RunStore, key: str) -> None:
    """One reply, kept as an engine does."""
    store.keep_reply(
        key,
        role="teacher",
        station="collect",
        model="m",
        request=REQUEST,
        rollout=0,
        response=RESPONSE,
        seconds=1.0,
        cost=None,
    )


def make(arguments: dict[str, Any], store: RunStore) -> Callable[[Job], Trace]:
    """What does a job in a worker: a reply that came at once, so that the driver is all there is to wait for."""

    def do(job: Job) -> Trace:
        assert store.reply(f"{job.item.id}-{arguments['round']}") is None
        keep(store, f"{job.item.id}-{arguments['round']}")
        return Trace(job.item.id, job.sample, ("What is it at first?",))

    return do


def alone(store: RunStore, number: int) -> float:
    """Replies a second from this process' threads."""
    started = time.perf_counter()
    for _ in overlapped(lambda n: keep(store, f"alone-{number}-{n}"), range(REPLIES), CONCURRENCY):
        pass
    return REPLIES / (time.perf_counter() - started)


def plain(folder: Path, number: int) -> float:
    """Rows a second into plain SQLite, in one thread, at the same durability."""
    db = sqlite3.connect(folder / "run.sqlite", isolation_level=None)
    db.execute("PRAGMA synchronous=FULL")
    asked, answered = json.dumps(REQUEST), json.dumps(RESPONSE)
    started = time.perf_counter()
    for n in range(REPLIES):
        row = (f"plain-{number}-{n}", "t", "c", "m", asked, 0, answered, 120, 24, None, 1.0, None, 0.0)
        db.execute("INSERT INTO calls VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)", row)
    rate = REPLIES / (time.perf_counter() - started)
    db.close()
    return rate


def from_workers(store: RunStore, number: int, execution: Execution) -> float:
    """Replies a second from the workers of a cluster, each with a look-up before it and a result after it."""
    executor = EXECUTORS[execution.executor](execution)
    place = executor.place(lambda: Recipe("driver:make", {"round": number}), store)
    do = place(lambda job: None)
    jobs = [Job("collect", Item(f"item-{n}", "Q?", "1")) for n in range(REPLIES)]
    for _ in overlapped(do, [Job("collect", Item(f"first-{n}", "Q?", "1")) for n in range(CONCURRENCY)], CONCURRENCY):
        pass  # the workers are there now
    started = time.perf_counter()
    failed = [error for _, _, error in overlapped(do, jobs, CONCURRENCY) if error is not None]
    rate = REPLIES / (time.perf_counter() - started)
    executor.close()
    assert not failed, failed[0]
    return rate


def main() -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = RunStore(folder)
        fill(store, given.rows)
        size = (folder / "run.sqlite").stat().st_size
        rates: dict[str, list[float]] = {"threads": [], "plain_sqlite": [], "workers": []}
        for number in range(ROUNDS):
            rates["threads"].append(alone(store, number))
            rates["plain_sqlite"].append(plain(folder, number))
            rates["workers"].append(from_workers(store, number, Execution(executor="ray", workers=WORKERS)))
        started = time.perf_counter()
        paid = store.paid()
        summed = time.perf_counter() - started
        assert paid["teacher"]["calls"] >= given.rows
        store.close()
    middle = {name: median(found) for name, found in rates.items()}
    found = {
        "rows": given.rows,
        "gigabytes": round(size / 1e9, 2),
        "workers": WORKERS,
        "replies_a_second": {name: round(rate) for name, rate in middle.items()},
        "lowest_and_highest": {name: [round(min(one)), round(max(one))] for name, one in rates.items()},
        "threads_over_plain_sqlite": round(middle["threads"] / middle["plain_sqlite"], 2),
        "workers_over_threads": round(middle["workers"] / middle["threads"], 2),
        "seconds_to_sum_what_was_paid": round(summed, 2),
    }
    write(given.output, found)


if __name__ == "__main__":
    main()
