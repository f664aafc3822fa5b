"""Export: kept traces as chat JSON Lines that TRL reads, with the counts behind them.

A row's prompt is what the student will be sent at inference, rendered by the predictor that will send it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divcon.distill._manifest import prompt_hash, prompt_parts
from divcon.distill._screen import Screened
from divcon.distill._store import render_lines, write_whole
from divcon.programs import Item, RolePredict
from divcon.signatures import DivconError, Subquestions


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
