"""Files of a run folder: JSON Lines, and files that are written whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from divcon.distill._database import StoreError
from divcon.signatures import masked, masked_values


def storable(text: str | None) -> str | None:
    """Text without lone surrogates, which can't be encoded."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def render_lines(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as JSON Lines, masked of secrets; equal rows give equal bytes."""
    kept = masked_values(list(rows))
    text = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in kept)
    return storable(text) or ""


def unfinished(target: Path) -> Path:
    """A name beside `target` to write it under. No other process and no other thread has the same one."""
    return target.with_name(f"{target.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.building")


def remove_unfinished(folder: Path) -> None:
    """Remove what processes of this machine that were killed have left half written in a folder and in those in it."""
    for left in list(folder.rglob("*.building")):
        process = left.name.split(".")[-2].partition("-")[0]
        if process.isdigit() and has_ended(int(process)):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def has_ended(process: int) -> bool:
    """Whether no process of this machine has an id."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def write_whole(file: Path, text: str) -> None:
    """Write a file, masked of secrets, so that a kill leaves the whole old file or the whole new one.

    Raises:
        StoreError: The disk is full or the folder may not be written.
    """
    building = unfinished(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        building.write_text(masked(storable(text) or ""), encoding="utf-8")
        building.replace(file)
    except OSError as error:
        raise StoreError(f"{file} can't be written: {error}.", "Make room or change the folder, then run again.") from (
            error
        )
    finally:
        building.unlink(missing_ok=True)
