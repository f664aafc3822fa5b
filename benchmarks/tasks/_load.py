"""Load a task: training and test questions, disjoint, before anything is paid for."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from divcon.benchmarks._graders import is_number, numbers
from divcon.benchmarks.tasks._files import TaskError, gsm8k_items, json_lines_items
from divcon.benchmarks.tasks._gym import gym_items
from divcon.benchmarks.tasks._offline import FAMILIES, OFFLINE, offline_items
from divcon.benchmarks.tasks._public import public_items
from divcon.distill import overlapping, refuse_overlap
from divcon.programs import Item

# A run of words that more questions than these share is the task's own wording ("There are three guests at the ...").
COMMON = 10
LONGEST_QUESTION = 8_000  # characters; a longer one is a document, and belongs into `context`


@dataclass(frozen=True)
class LoadedTask:
    """A task's questions.

    Attributes:
        train: To collect on.
        test: Held out.
        dropped_overlap: Training questions left out because they stand in the test set.
        numbers_only_twins: Training questions that differ from a test question in their numbers alone.
    """

    train: list[Item]
    test: list[Item]
    dropped_overlap: int = 0
    numbers_only_twins: int = 0


def load_task(
    name: str,
    *,
    train: int,
    test: int,
    path: Path | None = None,
    test_path: Path | None = None,
    hub: str | None = None,
    test_split: str | None = None,
    subtask: str | None = None,
    seed: int = 0,
    train_seed: int | None = None,
    percent: bool = False,
    overlap: str = "refuse",
) -> LoadedTask:
    """Load and split a task.

    Args:
        name: `offline` (the families in `OFFLINE` in equal parts), a family's name, `reasoning-gym`, `gsm8k`, one of
            `PUBLIC`, or `jsonl`.
        train: Training questions.
        test: Test questions.
        path: A file; not for generated tasks.
        test_path: Another file, of test questions; all of them come from it then, and none from `path`.
        hub: A hub name, for public data sets.
        test_split: The split of `hub` that test questions come from, and no others do.
        subtask: Of `bbh`; the data set of `reasoning-gym`.
        seed: Of the generator, or of the shuffle before the split.
        train_seed: Of the training questions alone; the test set stays that of `seed`, and a smaller training set is
            the beginning of a larger one. Without it, both are drawn by `seed`.
        percent: Whether numeric answers are shares.
        overlap: `refuse` or `drop` what has a run of words in common with a test question; or `same`: refuse equal
            questions only.

    Raises:
        TaskError: The data is missing, broken or too small, or a question is too long.
        OverlapError: Training questions stand in the test set, and `overlap` isn't `drop`.
    """
    learning = seed if train_seed is None else train_seed
    if name == "offline" or name in FAMILIES:
        families = list(OFFLINE) if name == "offline" else [name]
        held_out = _interleaved([offline_items(f, "test", -(-test // len(families)), seed) for f in families])[:test]
        each = -(-train // len(families))
        learn = _interleaved([_clear_of(held_out, _drawing(f, learning), each) for f in families])[:train]
    elif name == "reasoning-gym":
        # Its generators know no splits, and question i of seed s is question i-1 of seed s+1: seeds stand far apart.
        held_out = gym_items(str(subtask), test, 1_000_000_000 + 1_000_000 * seed)
        gym = lambda count: gym_items(str(subtask), count, 1_000_000 * (learning + 1))  # noqa: E731
        learn = _clear_of(held_out, gym, train, COMMON)
    elif test_path is not None or test_split is not None:
        read = _reader(name, path, hub, subtask, lambda split: split != test_split)
        read_test = _reader(name, test_path or path, hub, subtask, lambda split: split == test_split)
        learn = _drawn(read, name, train, learning, "task.train")
        held_out = [replace(item, id=f"test-{item.id}") for item in _drawn(read_test, name, test, seed, "task.test")]
    else:
        learn, held_out = _split(_reader(name, path, hub, subtask, None), name, train, test, seed, train_seed)
    if percent:
        learn, held_out = [as_share(item) for item in learn], [as_share(item) for item in held_out]
    _check(learn + held_out)
    # Generated questions were drawn clear of the test set; of few, what all share looks like what two share.
    common = 0 if overlap == "same" or name == "reasoning-gym" else COMMON
    dropped = 0
    if overlap == "drop":
        pairs, twins = overlapping(learn, held_out, common)
        standing = {pair[0].id for pair in pairs}
        learn, dropped = [item for item in learn if item.id not in standing], len(standing)
        if not learn:
            raise TaskError(
                "Every training question stands in the test set.",
                "Give other data, or set task.overlap to same where the questions are made from one template.",
            )
    else:
        twins = refuse_overlap(learn, held_out, common)
    return LoadedTask(learn, held_out, dropped, twins)


def _reader(
    name: str, path: Path | None, hub: str | None, subtask: str | None, splits: Callable[[str], bool] | None
) -> Callable[[], Iterable[Item]]:
    """What reads the questions, each time it is called; only a user's own file is read more than once."""
    if name == "jsonl":
        if path is None:
            raise TaskError("The task jsonl needs a file.", "Set task.path.")
        file = path
        return lambda: json_lines_items(file)
    items = gsm8k_items(path, hub, splits) if name == "gsm8k" else public_items(name, path, hub, subtask, splits)
    return lambda: items


def _drawn(read: Callable[[], Iterable[Item]], name: str, count: int, seed: int, asked: str) -> list[Item]:
    """Questions of a file of their own, drawn by position; fewer are the beginning of more."""
    order = list(range(sum(1 for _ in read())))
    if len(order) < count:
        raise TaskError(f"{asked} asks for {count} questions of {name}, and there are {len(order)}.", f"Lower {asked}.")
    random.Random(seed).shuffle(order)
    return _at(order[:count], read)


def _at(positions: Sequence[int], read: Callable[[], Iterable[Item]]) -> list[Item]:
    wanted = set(positions)
    kept = {position: item for position, item in enumerate(read()) if position in wanted}
    return [kept[position] for position in positions]


def _split(
    read: Callable[[], Iterable[Item]], name: str, train: int, test: int, seed: int, train_seed: int | None
) -> tuple[list[Item], list[Item]]:
    """Training and test questions, drawn by position, so that only those are kept of a file that may be large."""
    order = list(range(sum(1 for _ in read())))
    if len(order) < train + test:
        raise TaskError(
            f"The task {name} has {len(order)} questions, and {train} + {test} are asked for.",
            "Lower task.train or task.test.",
        )
    random.Random(seed).shuffle(order)
    if train_seed is None:
        learn, held_out = order[:train], order[train : train + test]
    else:
        learn, held_out = order[:-test], order[-test:]
        random.Random(train_seed).shuffle(learn)
        learn = learn[:train]
    found = _at([*learn, *held_out], read)
    return found[: len(learn)], found[len(learn) :]


def as_share(item: Item) -> Item:
    """An item whose number is a share, so that "12 %" and "0.12" are the same."""
    return replace(item, grader="percent") if item.grader in ("", "number") and is_number(item.answer) else item


def _drawing(family: str, seed: int) -> Callable[[int], list[Item]]:
    return lambda count: offline_items(family, "train", count, seed)


def _clear_of(
    held_out: Sequence[Item], draw: Callable[[int], list[Item]], count: int, common: int | None = None
) -> list[Item]:
    """Generated training items without a run of words in common with the test set.

    The families' own splits share no template instance; sentences of one wording and equal numbers may still recur.
    """
    more = count
    while True:
        more += count // 4 + 8
        items = draw(more)
        standing = {pair[0].id for pair in overlapping(items, held_out, common)[0]}
        clear = [item for item in items if item.id not in standing]
        if len(clear) >= count:
            return clear[:count]


def _interleaved(lists: Sequence[list[Item]]) -> list[Item]:
    return [item for group in zip(*lists, strict=True) for item in group]


def _check(items: Sequence[Item]) -> None:
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise TaskError(f"The id '{item.id}' stands twice.", "Give every question its own id.")
        seen.add(item.id)
        if item.grader in ("number", "percent") and not numbers(item.answer):
            raise TaskError(
                f"The answer of '{item.id}' is '{item.answer[:40]}', which is no number.", "Correct the data."
            )
        if len(item.question) > LONGEST_QUESTION:
            raise TaskError(
                f"The question of '{item.id}' has {len(item.question):,} characters, over {LONGEST_QUESTION:,}.",
                "Put the passage into 'context' and keep the question short.",
            )
