"""Contamination: training questions that equal a test question, share a long run of words with one, or nearly do."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from divcon.programs import Item
from divcon.signatures import DivconError

_NGRAM = 13  # words; the usual length for contamination checks
_SHINGLE = 3  # words; a question of 20 words that differs in one still shares 15 of 21 runs of three with the other
_PERMUTATIONS = 128  # of the hashes that find candidates; the verdict itself is exact

# Returns why an overlap of (training id, test id) is let through, or None where it isn't.
Allowing = Callable[[str, str], str | None]


class OverlapError(DivconError):
    """Training questions overlap with the test set."""


# Words, and what tells questions of brackets and of arithmetic apart: signs with blanks around them, "[ { (" and
# "2 * 3", and a minus before a number.
_WORD_OR_SIGN = re.compile(r"\w+|(?<!\S)[^\w\s.,;:!?\"'“”‘’«»…–—]+(?!\S)|(?<![^\s(])-(?=\d)")


class AllowedOverlap(NamedTuple):
    """An overlap that was let through.

    Attributes:
        train: The training question's id.
        test: The test question's id.
        how: `same`, `13-gram` or `near` with the similarity.
        reason: Why it is let through.
    """

    train: str
    test: str
    how: str
    reason: str


class Overlaps(NamedTuple):
    """What a training set and a test set have in common.

    Attributes:
        pairs: (train item, test item, `same`, `13-gram` or `near` with the similarity), one a train item.
        twins: The number of training items that differ from a test item in their numbers alone.
        allowed: What was let through.
    """

    pairs: list[tuple[Item, Item, str]]
    twins: int
    allowed: list[AllowedOverlap]


def normalized(text: str) -> str:
    """The text without case, punctuation and extra spaces; brackets and operators between blanks are kept."""
    return " ".join(_WORD_OR_SIGN.findall(text.casefold()))


def overlapping(
    train: Sequence[Item],
    test: Sequence[Item],
    common: int | None = None,
    near: float | None = None,
    allowing: Allowing | None = None,
) -> Overlaps:
    """Training items that overlap with the test set, and how many differ from a test item in their numbers alone.

    An item overlaps when its question equals a test question after normalization, shares a run of 13 words with it, or
    nearly equals it.

    Args:
        train: The training items.
        test: The test items.
        common: A run of words in more questions than this is the task's own wording, and is ignored. 0 compares whole
            questions only. By default every run counts.
        near: The share of their runs of three words (Jaccard's index) from which two questions nearly equal each other.
            By default, and where `common` is 0, it isn't looked at.
        allowing: Returns the reason for which an overlap is let through; by default none is.
    """
    texts = {id(item): normalized(item.question) for item in (*train, *test)}
    masked = {id(item): re.sub(r"\d+", "0", texts[id(item)]) for item in (*train, *test)}
    alike = _near(train, test, texts, common, near) if near is not None and common != 0 else {}
    whole, grams = defaultdict(list), defaultdict(list)
    for item in test:
        whole[texts[id(item)]].append(item)
        for run in dict.fromkeys(_runs(texts[id(item)], _NGRAM)):
            grams[run].append(item)
    if common is not None:
        counts = Counter(run for item in (*train, *test) for run in set(_runs(texts[id(item)], _NGRAM)) if run in grams)
        grams = defaultdict(list, {run: items for run, items in grams.items() if counts[run] <= common})
    masks = {masked[id(item)] for item in test}

    def hits(item: Item) -> Iterator[tuple[Item, str]]:
        yield from ((other, "same") for other in whole.get(texts[id(item)], ()))
        for run in _runs(texts[id(item)], _NGRAM):
            yield from ((other, f"{_NGRAM}-gram") for other in grams.get(run, ()))
        # Questions that differ in their numbers alone are counted instead, as twins.
        close = ((one, share) for one, share in alike.get(id(item), ()) if masked[id(one)] != masked[id(item)])
        yield from ((one, f"near, {share:.2f}") for one, share in close)

    pairs: list[tuple[Item, Item, str]] = []
    allowed: dict[tuple[str, str], AllowedOverlap] = {}
    twins = 0
    for item in train:
        refused = None
        for other, how in hits(item):
            reason = allowing(item.id, other.id) if allowing else None
            if reason is None:
                refused = (item, other, how)
                break
            allowed.setdefault((item.id, other.id), AllowedOverlap(item.id, other.id, how, reason))
        if refused is not None:
            pairs.append(refused)
        elif masked[id(item)] in masks and texts[id(item)] not in whole:
            twins += 1
    return Overlaps(pairs, twins, list(allowed.values()))


def _runs(text: str, length: int) -> list[tuple[str, ...]]:
    words = re.findall(r"\w+", text)
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]


def _near(
    train: Sequence[Item], test: Sequence[Item], texts: dict[int, str], common: int | None, threshold: float
) -> dict[int, list[tuple[Item, float]]]:
    """The test items that nearly equal each training item, most similar first, by `id()` of the training item.

    MinHash finds candidates. The verdict is Jaccard's index over all runs of three words, and over those that aren't
    the task's own wording, whichever is lower: questions made from one template share most of their words, and
    differ in what is asked.
    """
    from datasketch import MinHash, MinHashLSH

    shingles = {key: set(map(" ".join, _runs(text, _SHINGLE))) or {text} for key, text in texts.items()}
    counts = Counter(run for held in shingles.values() for run in held)
    ceiling = len(shingles) if common is None else common
    own = {key: {run for run in held if counts[run] <= ceiling} for key, held in shingles.items()}

    def hashed(item: Item) -> MinHash:
        made = MinHash(num_perm=_PERMUTATIONS)
        made.update_batch([run.encode("utf-8", "surrogatepass") for run in shingles[id(item)]])
        return made

    # More candidates are wanted rather than fewer, since each is looked at again. Over 0.95 there are no bands to make.
    index = MinHashLSH(threshold=min(threshold, 0.95), num_perm=_PERMUTATIONS, weights=(0.1, 0.9))
    for number, item in enumerate(test):
        index.insert(number, hashed(item))
    found: dict[int, list[tuple[Item, float]]] = {}
    for item in train:
        candidates = [test[number] for number in sorted(index.query(hashed(item)))]
        shares = [
            (other, min(_jaccard(every[id(item)], every[id(other)]) for every in (shingles, own)))
            for other in candidates
        ]
        if close := [(other, share) for other, share in shares if share >= threshold]:
            found[id(item)] = sorted(close, key=lambda one: -one[1])
    return found


def _jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other) if one and other else 0.0


def refuse_overlap(
    train: Sequence[Item],
    test: Sequence[Item],
    common: int | None = None,
    near: float | None = None,
    allowing: Allowing | None = None,
) -> Overlaps:
    """Raise an error where a training item overlaps with the test set.

    Args:
        train: The training items.
        test: The test items.
        common: See `overlapping`, as for the arguments that follow.
        near: The share from which two questions nearly equal each other.
        allowing: Returns the reason for which an overlap is let through.

    Returns:
        What the sets have in common all the same. Callers warn about twins, and record what was let through.

    Raises:
        OverlapError: There is an overlap; the message shows the first matches.
    """
    found = overlapping(train, test, common, near, allowing)
    if found.pairs:
        shown = "; ".join(f"{a.id} ~ {b.id} ({how}): {a.question[:70]}" for a, b, how in found.pairs[:3])
        remedy = "Remove them from one of the sets (in a pipeline file: task.overlap: drop)"
        if all(how == "same" for *_, how in found.pairs):
            remedy += ", or name those that are no overlap in task.allow."
        else:
            remedy += (
                ", name those that are no overlap in task.allow, or compare whole questions alone (task.overlap: same; "
                "in Python common=0) where the questions are made from one template."
            )
        raise OverlapError(f"{len(found.pairs)} training questions overlap with the test set: {shown}.", remedy)
    return found
