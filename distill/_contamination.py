"""Contamination: training questions that are in the test set, or share a long run of words with a test question."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from divcon.programs import Item
from divcon.signatures import DivconError

_NGRAM = 13  # words; the usual length for contamination checks


class OverlapError(DivconError):
    """Training questions overlap with the test set."""


# Words, and what tells questions of brackets and of arithmetic apart: signs with blanks around them, "[ { (" and
# "2 * 3", and a minus before a number.
_WORD_OR_SIGN = re.compile(r"\w+|(?<!\S)[^\w\s.,;:!?\"'“”‘’«»…–—]+(?!\S)|(?<![^\s(])-(?=\d)")


def normalized(text: str) -> str:
    """The text without case, punctuation and extra spaces; brackets and operators between blanks are kept."""
    return " ".join(_WORD_OR_SIGN.findall(text.casefold()))


def overlapping(
    train: Sequence[Item], test: Sequence[Item], common: int | None = None
) -> tuple[list[tuple[Item, Item, str]], int]:
    """Training items that overlap with the test set, and how many differ from a test item in their numbers alone.

    An item overlaps when its question equals a test question after normalization, or shares a run of 13 words with it.

    Args:
        train: The training items.
        test: The test items.
        common: A run of words in more questions than this is the task's own wording, and is ignored. 0 compares whole
            questions only. By default every run counts.

    Returns:
        The pairs (train item, test item, `same` or `13-gram`), and the number of training items that differ from a
        test item in their numbers alone.
    """
    whole = {normalized(item.question): item for item in test}
    grams: dict[tuple[str, ...], Item] = {}
    masked = set()
    for item in test:
        grams.update(dict.fromkeys(_runs(normalized(item.question)), item))
        masked.add(re.sub(r"\d+", "0", normalized(item.question)))
    if common is not None:
        counts = Counter(
            run for item in (*train, *test) for run in set(_runs(normalized(item.question))) if run in grams
        )
        grams = {run: item for run, item in grams.items() if counts[run] <= common}
    pairs: list[tuple[Item, Item, str]] = []
    twins = 0
    for item in train:
        text = normalized(item.question)
        if text in whole:
            pairs.append((item, whole[text], "same"))
            continue
        shared = (grams.get(run) for run in _runs(text))
        if (hit := next((other for other in shared if other), None)) is not None:
            pairs.append((item, hit, f"{_NGRAM}-gram"))
        elif re.sub(r"\d+", "0", text) in masked:
            twins += 1
    return pairs, twins


def _runs(text: str) -> list[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return [tuple(words[i : i + _NGRAM]) for i in range(len(words) - _NGRAM + 1)]


def refuse_overlap(train: Sequence[Item], test: Sequence[Item], common: int | None = None) -> int:
    """Raise an error where a training item overlaps with the test set.

    Args:
        train: The training items.
        test: The test items.
        common: See `overlapping`.

    Returns:
        How many training items differ from a test item in their numbers alone; callers warn about them.

    Raises:
        OverlapError: There is an overlap; the message shows the first matches.
    """
    pairs, twins = overlapping(train, test, common)
    if pairs:
        shown = "; ".join(f"{a.id} ~ {b.id} ({why}): {a.question[:70]}" for a, b, why in pairs[:3])
        raise OverlapError(
            f"{len(pairs)} training questions overlap with the test set: {shown}.",
            "Remove them from one of the sets (in a pipeline file: task.overlap: drop), or pass common=0 "
            "(task.overlap: same) where the questions are made from one template.",
        )
    return twins
