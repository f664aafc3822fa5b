"""Checkpoints: where a training that was stopped goes on, as long as it is the same training."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any


class Checkpoints:
    """The checkpoints of a training, in a folder beside the adapter's.

    Args:
        output: The adapter's folder.
        made_from: What decides the training: rows, settings and base. JSON-ready.

    Attributes:
        folder: Where the trainer saves. Checkpoints of another training are removed from it.
    """

    def __init__(self, output: Path, made_from: dict[str, Any]) -> None:
        self.folder = output.with_name(output.name + ".checkpoints")
        noted = self.folder / "made-from.json"
        if self.folder.exists() and (not noted.is_file() or json.loads(noted.read_text()) != made_from):
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        noted.write_text(json.dumps(made_from))
        self._clock = self.folder / "seconds.json"
        self._earlier: float = json.loads(self._clock.read_text()) if self._clock.is_file() else 0.0
        self._started = time.perf_counter()

    def last(self) -> str | None:
        """The folder to go on from; None at the beginning."""
        from transformers.trainer_utils import get_last_checkpoint

        return get_last_checkpoint(str(self.folder))

    def seconds(self) -> float:
        """How long it has been trained, with what was trained before it was stopped."""
        return self._earlier + time.perf_counter() - self._started

    def saved(self) -> None:
        """Note the time beside a checkpoint that was just written."""
        self._clock.write_text(json.dumps(self.seconds()))

    def remove(self) -> None:
        """For when the adapter is whole."""
        shutil.rmtree(self.folder)
