"""One training: what is trained on what, for whom, and whether it has been done already."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from divcon.distill._contamination import AllowedOverlap
from divcon.distill._manifest import MANIFEST, Manifest, read_manifest, template_hash
from divcon.distill._paths import expanded_path
from divcon.distill._teacher import Author
from divcon.distill.serving.embedded import LOADING, Base
from divcon.distill.training._rows import read_export, rows_hash
from divcon.distill.training._settings import TrainSettings

_TEMPLATE_FILES = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json")


@dataclass(frozen=True)
class Training:
    """What is trained, and what decides the adapter that comes out.

    Attributes:
        rows: Chat JSON Lines, one `prompt` and `completion` a row.
        base: The base model.
        output: The adapter's folder; made anew.
        settings: See `TrainSettings`.
        start: An adapter to go on from, of the same base; its rank stays. A new one by default.
    """

    rows: Path
    base: Base
    output: Path
    settings: TrainSettings
    start: Path | None = None

    def __post_init__(self) -> None:
        for name in ("rows", "output", "start"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, expanded_path(path))


@dataclass(frozen=True)
class Provenance:
    """What a manifest records beside what decides the adapter.

    Attributes:
        role: What the adapter will do: `decomposer` or `solver`.
        student: The name of the student.
        screening: Counts of the screen behind the rows; those that stand beside exported rows by default.
        teacher: Who wrote the plans in the rows.
        data: Where the questions come from; see `Manifest.data`.
        allowed_overlap: The overlaps of training questions with the test set that were let through.
    """

    role: str = "decomposer"
    student: str = ""
    screening: dict[str, Any] | None = None
    teacher: Author | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    allowed_overlap: Sequence[AllowedOverlap] = ()


def is_trained(folder: Path) -> bool:
    """Whether `folder` holds a whole adapter, whatever it was trained on."""
    return (folder / MANIFEST).is_file()


def already_trained(training: Training) -> Manifest | None:
    """The manifest of the adapter in a training's output, if that training would make it again.

    Rows, settings, base, chat template, prompt and the adapter it started from have to be the same.

    Returns:
        None where there is no adapter, or one that was trained otherwise.

    Raises:
        ManifestError: There is an adapter, and it is damaged.
    """
    if not (is_trained(training.output) and training.rows.is_file()):
        return None
    manifest, base = read_manifest(training.output), training.base
    try:
        settings = TrainSettings.model_validate(manifest.settings)
    except ValidationError:  # of a method that is no longer installed, say; what is wanted now is valid
        return None
    exported = read_export(training.rows)
    # Older adapters record no prompt; their rows are the same, and that has to do.
    prompt = exported.prompt if exported and manifest.prompt else manifest.prompt
    start = read_manifest(training.start).served_name if training.start else None
    same = (
        manifest.data_hash == rows_hash(training.rows)
        and settings.deciding() == training.settings.deciding()
        and (manifest.base["id"], manifest.base["revision"]) == (base.id, base.revision)
        and manifest.prompt == prompt
        and manifest.result.get("started_from") == start
        and manifest.chat_template_hash == _template_hash(base)
    )
    return manifest if same else None


def _template_hash(base: Base) -> str:
    found = (base.path / name for name in _TEMPLATE_FILES)
    return _hash_of_template(base.path, tuple((file.name, file.stat().st_mtime_ns) for file in found if file.is_file()))


# Loading a tokenizer of 49,000 tokens takes a second on a slow core, and a run asks for each student at each station.
@functools.lru_cache(maxsize=16)
def _hash_of_template(folder: Path, written: tuple[tuple[str, int], ...]) -> str:
    with LOADING:
        from transformers import AutoTokenizer

    return template_hash(AutoTokenizer.from_pretrained(folder))
