"""Export: kept traces as chat JSON Lines that TRL reads, with the counts behind them.

A row's prompt is what the student will be sent at inference, rendered by the predictor that will send it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divcon.distill._manifest import prompt_hash, prompt_parts
from divcon.distill._store import render_lines, write_whole
from divcon.distill.screening import Screened
from divcon.programs import Item, RolePredict
from divcon.signatures import DivconError, Subquestions

_NGRAM = 13  # words; the usual length for contamination checks


class OverlapError(DivconError):
    """Training questions that stand in the test set."""


class NothingToLearn(DivconError):
    """A screen that kept no trace."""


@dataclass(frozen=True)
class Export:
    """An exported training set.

    Attributes:
        file: The rows.
        rows: How many.
        sha256: Of the file's bytes.
    """

    file: Path
    rows: int
    sha256: str


def export(
    decompose: RolePredict, screened: Screened, items: Sequence[Item], file: Path, student: str, stamp: str = ""
) -> Export:
    """Write kept traces as training rows, and a manifest beside them.

    Rows stand in the order of the items. Two samples that gave the same list are one row.

    Args:
        decompose: The predictor the student will answer for; without demos, since the weights replace them.
        screened: What the rule kept.
        items: The items the traces belong to.
        file: Where to; `.manifest.json` is added for the counts.
        student: Its name.
        stamp: What the rows came from; kept in the manifest, so that a later station can tell stale rows.

    Raises:
        NothingToLearn: Nothing was kept.
        StoreError: The file can't be written.
    """
    if not screened.kept:
        lost = ", ".join(f"{count} {reason}" for reason, count in sorted(screened.lost.items())) or "none collected"
        raise NothingToLearn(
            f"Of {screened.collected} traces the screen kept none ({lost}).",
            "Collect more, check the solver on a few items, or take screen.rule none.",
        )
    by_id = {item.id: item for item in items}
    rows: list[dict[str, Any]] = []
    seen: set[tuple[str, tuple[str, ...]]] = set()
    for trace in screened.kept:
        item, asked = by_id[trace.item], trace.subquestions or ()
        if (trace.item, asked) in seen:
            continue
        seen.add((trace.item, asked))
        rows.append(
            decompose.training_row(
                {"question": item.question, "context": item.context}, {"subquestions": Subquestions(asked)}
            )
        )
    return write_rows(rows, decompose, file, student, screened.counts(), stamp)


def write_rows(
    rows: Sequence[dict[str, Any]],
    predictor: RolePredict,
    file: Path,
    student: str,
    screening: dict[str, Any],
    stamp: str = "",
) -> Export:
    """Write training rows, and beside them what they are and which prompt they were rendered with.

    Args:
        rows: As `RolePredict.training_row` makes them.
        predictor: What rendered them.
        file: Where to; `.manifest.json` is added for the rest.
        student: Its name.
        screening: The counts of the screen.
        stamp: See `export`.
    """
    text = render_lines(rows)
    write_whole(file, text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    manifest = {
        "student": student,
        "rows": len(rows),
        "sha256": digest,
        "stamp": stamp,
        "prompt_hash": prompt_hash([row["prompt"] for row in rows]),
        "prompt": prompt_parts(predictor),
        "screening": screening,
    }
    write_whole(file.with_suffix(".manifest.json"), json.dumps(manifest, indent=2) + "\n")
    return Export(file=file, rows=len(rows), sha256=digest)


def normalized(text: str) -> str:
    """Case, punctuation and spacing taken away."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def overlapping(
    train: Sequence[Item], test: Sequence[Item], common: int | None = None
) -> tuple[list[tuple[Item, Item, str]], int]:
    """Training items that stand in the test set, and how many differ from a test item in their numbers alone.

    An item overlaps when its question is equal after normalization, or shares a run of 13 words with a test question.

    Args:
        train: To learn from.
        test: Held out.
        common: A run of words that stands in more questions than this is a task's own wording and says nothing; 0
            leaves equality alone. Every run counts by default.

    Returns:
        The pairs (train item, test item, `same` or `13-gram`), and the count of numbers-only twins.
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
    words = text.split()
    return [tuple(words[i : i + _NGRAM]) for i in range(len(words) - _NGRAM + 1)]


def refuse_overlap(train: Sequence[Item], test: Sequence[Item], common: int | None = None) -> int:
    """Raise where a training item stands in the test set.

    Args:
        train: To learn from.
        test: Held out.
        common: See `overlapping`.

    Returns:
        How many training items differ from a test item in their numbers alone; worth a warning.

    Raises:
        OverlapError: With the first matches.
    """
    pairs, twins = overlapping(train, test, common)
    if pairs:
        shown = "; ".join(f"{a.id} ~ {b.id} ({why}): {a.question[:70]}" for a, b, why in pairs[:3])
        raise OverlapError(
            f"{len(pairs)} training questions stand in the test set: {shown}.",
            "Take them out of one of the sets, or set task.overlap to drop, which takes them out of the training set, "
            "or to same where the questions are made from one template.",
        )
    return twins
