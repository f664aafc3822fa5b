"""Checkpoints: where a training that was stopped goes on, as long as it is the same training."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from divcon.distill._files import unfinished, write_whole


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
        self._clock = self.folder / "seconds.json"
        self._earlier = 0.0
        if self.folder.exists():
            try:
                same = json.loads(noted.read_text(encoding="utf-8")) == made_from
                if self._clock.is_file():
                    self._earlier = float(json.loads(self._clock.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):  # a note is missing or damaged: what it is about is unknown
                same = False
            if not same:
                shutil.rmtree(self.folder)
                self._earlier = 0.0
        write_whole(noted, json.dumps(made_from))
        self._started = time.perf_counter()

    def last(self) -> str | None:
        """The folder to go on from; None at the beginning. Checkpoints that were cut in writing are removed."""
        from transformers.trainer_utils import get_last_checkpoint

        for checkpoint in self.folder.glob("checkpoint-*"):
            if not _is_whole(checkpoint):
                shutil.rmtree(checkpoint)
        return get_last_checkpoint(str(self.folder))

    def seconds(self) -> float:
        """How long it has been trained, with what was trained before it was stopped."""
        return self._earlier + time.perf_counter() - self._started

    def saved(self) -> None:
        """Note the time beside a checkpoint that was just written."""
        write_whole(self._clock, json.dumps(self.seconds()))

    def begin_pass(self, number: int) -> None:
        """Note torch's random state as a pass over the rows begins, or restore it where the pass has begun before.

        The order of the rows is drawn from it. A new process would draw that of its first pass, and train the second
        half of another order than the one whose first half was trained.

        Args:
            number: The pass, from 0.
        """
        import torch

        noted = self.folder / f"pass-{number}.json"
        if noted.is_file():
            torch.set_rng_state(torch.tensor(list(bytes.fromhex(json.loads(noted.read_text(encoding="utf-8"))))).byte())
        else:
            write_whole(noted, json.dumps(bytes(torch.get_rng_state().tolist()).hex()))

    def remove(self) -> None:
        """For when the adapter is whole. Under the other name, the next process removes what a kill leaves of them."""
        shutil.rmtree(self.folder.rename(unfinished(self.folder)))


def _is_whole(checkpoint: Path) -> bool:
    """Whether a checkpoint was written to its end, which is the trainer's state."""
    from transformers.trainer import TRAINER_STATE_NAME

    try:
        return isinstance(json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False
