"""How it holds at scale: 100,000 traces in the store, 10,000 answers graded, 10,000 questions in a report.

The store is compared with plain SQLite, the report's opening with an empty page's in the same browser.

Usage: python benchmarks/perf/scale.py [--output FILE]
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sqlite3
import tempfile
import time
import tracemalloc
from pathlib import Path
from statistics import median

import dspy
from _common import write

from divcon.benchmarks import Arm, grade, summarize_arm, write_report
from divcon.benchmarks.arms import read_arm
from divcon.distill import Key, RunStore, Trace
from divcon.programs import Item

TRACES = 100_000
ANSWERS = 10_000
QUESTIONS = 10_000


def filled(folder: Path) -> RunStore:
    store = RunStore(folder)
    rows = [
        ("c", f"item-{n}", 0, n, json.dumps([f"What is step {k} of question {n}?" for k in range(3)]), None, None,
         "1. What is it?\n2. What follows?" * 4)
        for n in range(TRACES)
    ]  # fmt: skip
    store.write_rows("traces", rows)
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
        "traces": TRACES,
        "seconds": round(streamed, 3),
        "seconds_to_first": round(to_first, 4),
        "over_plain_sqlite": round(streamed / bare, 2),
        "peak_mb": round(peak / 1e6, 2),
        "peak_mb_as_a_list": round(whole / 1e6, 1),
    }


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


def _measured(name: str) -> Arm:
    """An arm of a table, without a program."""
    kind = read_arm(name)[0]
    student = kind.student.name if kind.student else None
    return Arm(name, dspy.Module(), Key({}), name.upper(), splits=kind.splits, student=student)


def measure_report(folder: Path) -> dict[str, float] | None:
    """Seconds until a report of 10,000 questions and three arms shows its first ones; None without Chromium."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        return None
    from playwright.sync_api import sync_playwright

    words = "More words. " * 12
    items = [Item(id=str(n), question=f"What is {n} plus zero? {words}", answer=str(n)) for n in range(QUESTIONS)]
    said = {
        "status": "decomposed",
        "rule": "only_number",
        "sub_answers": "1. 3 + 4 = 7\n2. 7 + 0 = 7",
        "subquestions": ["What is it at first?", "What is it in the end?"],
    }
    records = {
        name: {
            item.id: {"outcome": "right" if n % every else "wrong", "answer": item.answer, **said}
            for n, item in enumerate(items)
        }
        for name, every in (("cot", 2), ("teacher", 5), ("sd-r", 6))
    }
    lines = [summarize_arm(_measured(name), [found], 200) for name, found in records.items()]
    results = {
        "task": {"name": "t"},
        "questions": QUESTIONS,
        "teacher": {"model": "m", "kind": "model"},
        "solver": "s",
        "student_base": "b",
        "arms": lines,
        "differences": [],
        "screening": {"by_student": {}},
        "training": {},
    }
    file, empty = folder / "report.html", folder / "empty.html"
    write_report(results, records, items, file)
    empty.write_text("<!doctype html><details></details>")
    quiet = ["--no-sandbox", "--disable-quic", "--disable-background-networking", "--disable-component-update"]
    seconds: dict[str, list[float]] = {"report": [], "empty": []}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        for _ in range(5):
            for name, page_file in (("report", file), ("empty", empty)):
                page = browser.new_page()
                started = time.perf_counter()
                page.goto(page_file.as_uri())
                page.wait_for_selector("details, #table .open", state="attached")
                seconds[name].append(time.perf_counter() - started)
                page.close()
        browser.close()
    return {
        "questions": QUESTIONS,
        "megabytes": round(file.stat().st_size / 1e6, 1),
        "seconds": round(median(seconds["report"]), 2),
        "seconds_of_an_empty_page": round(median(seconds["empty"]), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "store": measure_store(Path(folder)),
            "drop_grading": measure_grading(),
            "report": measure_report(Path(folder)),
        }
    write(options.output, found)


if __name__ == "__main__":
    main()
