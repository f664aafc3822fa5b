"""Model cards of a run: what its adapters learnt from, and how the programs with them did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from divcon.benchmarks.tasks import PUBLIC, TASKS
from divcon.distill import CARD, Evaluated, Manifest, is_trained, model_card, read_manifest, write_whole
from divcon.pipeline._context import Context

# What a student is compared with, where it was measured.
_BESIDE = ("direct", "cot", "untuned", "teacher")


def data_source(context: Context) -> dict[str, str]:
    """Where a run's questions come from: `task`, its `hub` name and its `licence`, as far as they are known."""
    task = context.pipeline.task
    public = PUBLIC.get(task.name)
    hub = task.hub or (public.hub[0] if public is not None and public.hub is not None else None)
    known = (("task", task.name), ("hub", hub), ("licence", TASKS[task.name].licence))
    return {key: value for key, value in known if value}


def card_of(manifest: Manifest, student: str, results: Mapping[str, Any] | None) -> str:
    """The model card of a student of a run.

    Args:
        manifest: Its adapter's.
        student: Its name.
        results: The run's results; None where there are none. Results of an adapter trained otherwise are left out.
    """
    if results is None or results["training"].get(student) != {"rows": manifest.rows, **manifest.result}:
        return model_card(manifest)
    names = {student, *_BESIDE}
    return model_card(
        manifest,
        [
            Evaluated(
                label=line["label"],
                right=line["right"],
                wrong=line["wrong"],
                failed=line["failed"],
                accuracy=line["accuracy"],
                ci95=None if line["ci95"] is None else (line["ci95"][0], line["ci95"][1]),
                own=line["name"] == student,
            )
            for line in results["arms"]
            if line["name"] in names
        ],
    )


def write_cards(folder: Path, results: Mapping[str, Any]) -> None:
    """Write the results of a run into the cards of its adapters.

    Args:
        folder: The run folder.
        results: As `run_results` returns them.
    """
    for student in results["training"]:
        adapter = folder / "adapters" / student
        if is_trained(adapter):
            write_whole(adapter / CARD, card_of(read_manifest(adapter), student, results))


def results_of(folder: Path) -> dict[str, Any] | None:
    """The results in a run folder; None where nothing was evaluated."""
    file = folder / "results.json"
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found
