"""What the longest replies cost: readers and graders on 100,000 characters of a model that repeats itself.

Usage: python benchmarks/perf/readers.py [--pairs N] [--output FILE]

Each piece of text that the fuzzers of `tests/faults` are made of is repeated alone, and pairs of pieces that are drawn
with a fixed seed. A reply is timed three times, and its fastest time counts, since what else the machine does only
adds to it.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

from _common import commit, write

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "faults"))
sys.path.insert(0, str(ROOT / "tests"))

import test_fuzz_readers as fuzzers  # noqa: E402  # its pieces, its questions and its targets


def milliseconds(work: Callable[[str], None], reply: str) -> float:
    """The fastest of three readings of a reply."""

    def once() -> float:
        began = time.perf_counter()
        work(reply)
        return (time.perf_counter() - began) * 1000

    return min(once() for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    measured = commit()
    pieces = [*fuzzers.WORDS, *fuzzers.TURNS, *fuzzers.MARKS]
    rng = random.Random(13)
    drawn = [rng.choice(pieces) + rng.choice(pieces) for _ in range(given.pairs)]
    replies = [(piece * (fuzzers.LENGTH // len(piece) + 1))[: fuzzers.LENGTH] for piece in [*pieces, *drawn]]
    found = {}
    for name, work in single().items():
        took = sorted((milliseconds(work, reply), reply[:40]) for reply in replies)
        found[name] = {
            "median_ms": round(took[len(took) // 2][0], 1),
            "slowest_ms": round(took[-1][0], 1),
            "slowest_piece": took[-1][1],
        }
        print(name, found[name], file=sys.stderr)
    write(
        given.output,
        {"commit": measured, "characters": fuzzers.LENGTH, "replies": len(replies), "readers": found},
    )


def single() -> dict[str, Callable[[str], None]]:
    """One reading or grading each: what one reply costs in one place."""
    from divcon.benchmarks import grade, grade_as_paper
    from divcon.signatures import Subquestions, SubquestionsError, read_answer

    def lists(text: str) -> None:
        with contextlib.suppress(SubquestionsError):
            Subquestions.read(text)

    by_rule = {item.grader or item.id: item for item in fuzzers.ITEMS}
    return {
        "answer": lambda text: _drop(read_answer(text)),
        "answer of one step": lambda text: _drop(read_answer(text, steps=True)),
        "list of subquestions": lists,
        **{f"grade: {name}": lambda text, item=item: _drop(grade(item, text)) for name, item in by_rule.items()},
        **{
            f"grade as the paper: {name}": lambda text, item=item: _drop(grade_as_paper(item, text))
            for name, item in by_rule.items()
        },
    }


def _drop(_: object) -> None:
    """Take a result that only its time is wanted of."""


if __name__ == "__main__":
    main()
