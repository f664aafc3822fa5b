"""How long a fuzzer goes on, and the record of how far it came."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

SECONDS = float(os.environ.get("DIVCON_FUZZ_SECONDS", "0"))  # for each target; 0 for a few examples


class Tries:
    """The examples that a fuzzer has tried, for a target that the running test names.

    `DIVCON_FUZZ_RECORD` names a JSON Lines file to add a line to when the target has ended without a fault.
    """

    def __init__(self) -> None:
        self.examples = 0
        self._began = time.monotonic()

    def __iter__(self) -> Iterator[None]:
        """Once, and again until the time is over."""
        yield
        while time.monotonic() - self._began < SECONDS:
            yield
        if record := os.environ.get("DIVCON_FUZZ_RECORD"):
            target = os.environ["PYTEST_CURRENT_TEST"].rpartition("::")[2].partition(" ")[0]
            seconds = round(time.monotonic() - self._began, 1)
            with Path(record).open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"target": target, "seconds": seconds, "examples": self.examples}) + "\n")
