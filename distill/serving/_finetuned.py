"""Adapters that `lm.finetune` has trained, found again by the name they are served under."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from divcon.distill._manifest import MANIFEST
from divcon.distill.serving.embedded import cache_folder
from divcon.signatures import DivconError


def finetuned_folder() -> Path:
    """Where `lm.finetune` keeps its adapters, to be found by name in a later process."""
    return cache_folder() / "finetuned"


def find_finetuned(name: str, add: Callable[[Path], str], folder: Path | None = None) -> bool:
    """Look for an adapter that `lm.finetune` trained in an earlier process; an LM from a file has its name alone.

    Args:
        name: The name it is served under.
        add: Makes an adapter known and gives its name.
        folder: Where it is looked for; `finetuned_folder` by default.
    """
    for manifest in sorted((folder or finetuned_folder()).glob(f"*/{MANIFEST}")):
        with contextlib.suppress(DivconError):  # of another base, or damaged: not the one that is wanted
            if add(manifest.parent) == name:
                return True
    return False
