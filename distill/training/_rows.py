"""The file of training rows and the manifest beside it: written by export, read by training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from divcon.distill._files import render_lines, write_whole
from divcon.distill._manifest import prompt_hash, prompt_messages, prompt_parts
from divcon.distill._teacher import Author
from divcon.distill.training._errors import TrainingError
from divcon.programs import RolePredict


@dataclass(frozen=True)
class Destination:
    """Where training rows go, and what is noted beside them.

    Attributes:
        file: The rows; `.manifest.json` is added for the rest.
        student: The name of who will learn from them.
        key: What the rows came from, so that a later station can tell stale rows.
        method: The training method that chooses the rows; see `METHODS`.
        teacher: Who wrote the plans in the rows.
    """

    file: Path
    student: str
    key: str = ""
    method: str = "lora"
    teacher: Author | None = None


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


class ExportManifest(BaseModel):
    """What stands beside exported rows.

    Attributes:
        schema_version: Of this file's form.
        student: The name of who will learn from them.
        rows: How many.
        sha256: Of the file's bytes.
        key: What the rows came from; see `Destination`.
        prompt_hash: Hash of the rows' system messages; see `prompt_hash`.
        prompt: Hashes of what the prompts were made of, by name; see `prompt_parts`.
        messages: The prompt with the names of its inputs in their places; empty in older files.
        screening: Collected, kept and lost by reason.
        teacher: Who wrote the plans in the rows; None in older files.
    """

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal[1]
    student: str
    rows: int
    sha256: str
    key: str
    prompt_hash: str
    prompt: dict[str, str]
    messages: list[dict[str, str]] = Field(default_factory=list)
    screening: dict[str, Any]
    teacher: Author | None = None


def write_rows(
    rows: Sequence[dict[str, Any]], predictor: RolePredict, to: Destination, screening: dict[str, Any]
) -> Export:
    """Write training rows, and beside them what they are and which prompt they were rendered with.

    Args:
        rows: As a method's `rows` gives them.
        predictor: What rendered them.
        to: Where to.
        screening: The counts of the screen.

    Raises:
        StoreError: The files can't be written.
    """
    text = render_lines(rows)
    write_whole(to.file, text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    manifest = ExportManifest(
        schema_version=1,
        student=to.student,
        rows=len(rows),
        sha256=digest,
        key=to.key,
        prompt_hash=prompt_hash([row["prompt"] for row in rows]),
        prompt=prompt_parts(predictor),
        messages=prompt_messages(predictor),
        screening=screening,
        teacher=to.teacher,
    )
    write_whole(_beside(to.file), manifest.model_dump_json(indent=2) + "\n")
    return Export(file=to.file, rows=len(rows), sha256=digest)


def read_export(file: Path) -> ExportManifest | None:
    """What the export says about rows; None where the rows or the manifest are missing, or it is of another form.

    Args:
        file: The rows.
    """
    try:
        return ExportManifest.model_validate_json(_beside(file).read_text(encoding="utf-8")) if file.is_file() else None
    except (FileNotFoundError, UnicodeDecodeError, ValidationError):
        return None


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Exported training rows: `prompt` and `completion`, each a list of chat messages, and what a method has added.

    Raises:
        TrainingError: The file is missing or empty, or a line is broken; the line is named.
    """
    if not file.is_file():
        raise TrainingError(
            f"There are no training rows at {file}.", "Run 'divcon export' first, or give the file that export wrote."
        )
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TrainingError(f"{file} is damaged: it is not UTF-8.", "Export again.") from error
    rows = []
    # split on "\n" only: a row may hold U+2028, which splitlines() would cut at
    for number, line in enumerate(text.split("\n"), 1):
        if not line:
            continue
        try:
            row = json.loads(line)
            row["prompt"][0]["content"], row["completion"][0]["content"]
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise TrainingError(f"Line {number} of {file} is no training row: {error!r}.", "Export again.") from error
        rows.append(row)
    if not rows:
        raise TrainingError(
            f"{file} holds no training row.", "Collect more, or use a screening rule that keeps something."
        )
    return rows


def rows_hash(file: Path) -> str:
    """Hash of the bytes of a file of rows, which an adapter's manifest carries as `data_hash`."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _beside(file: Path) -> Path:
    return file.with_suffix(".manifest.json")
