"""The generated tasks: seeded families, split so that held-out questions share no template instance with training.

A template instance is a question with its numbers masked. Which split an instance belongs to is decided by its hash,
so the splits stay disjoint whatever their sizes and seeds, and the questions that trained the shipped solver adapter
(the `solver` split) are in neither of the others.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from typing import Literal

from divcon.benchmarks.tasks._deduction import deduction
from divcon.benchmarks.tasks._passage_hops import passage_hops
from divcon.benchmarks.tasks._schedules import schedule
from divcon.benchmarks.tasks._units import unit_conversion
from divcon.benchmarks.tasks._word_problems import word_problem
from divcon.programs import Item

Split = Literal["solver", "train", "test"]
FAMILIES: dict[str, Callable[[random.Random, str], Item]] = {
    "word-problems": word_problem,
    "passage-hops": passage_hops,
    "schedules": schedule,
    "unit-conversion": unit_conversion,
    "deduction": deduction,
}
OFFLINE = ("word-problems", "passage-hops")  # of the task `offline`, on which the shipped solver was trained first


def template_instance(item: Item) -> str:
    """The question (and passage) with its numbers masked and its case folded."""
    return re.sub(r"\d+", "0", f"{item.context or ''}\n{item.question}".casefold())


def split_of(item: Item) -> Split:
    """The split that `item`'s template instance belongs to: half solver, 30 % train, 20 % test."""
    bucket = int.from_bytes(hashlib.sha256(template_instance(item).encode()).digest()[:4], "big") % 10
    return "solver" if bucket < 5 else "train" if bucket < 8 else "test"


def offline_items(family: str, split: Split, count: int, seed: int = 0) -> list[Item]:
    """`count` items of one family, all different, in an order fixed by the seed.

    Args:
        family: One of `FAMILIES`.
        split: Which side of the division to draw from.
        count: How many.
        seed: The same seed gives the same items.

    Raises:
        KeyError: There is no such family.
    """
    items: list[Item] = []
    for item in _stream(family, split, seed):
        if len(items) == count:
            break
        items.append(item)
    return items


def _stream(family: str, split: Split, seed: int) -> Iterator[Item]:
    make = FAMILIES[family]
    rng = random.Random(f"{family}/{seed}")
    seen: set[str] = set()
    number = 0
    while True:
        item = make(rng, f"{family}-{seed}-{number}")
        number += 1
        instance = template_instance(item)
        if instance not in seen and split_of(item) == split:
            seen.add(instance)
            yield item
