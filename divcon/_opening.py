"""Runs as commands open and leave them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from divcon._terminal import ShownConsole, Terminal, err, out


def opened(file: Path, run: Path | None, overrides: list[str] | None, console: ShownConsole = out) -> Any:
    """The run of a pipeline file, in the folder that is given or in `runs/`; it reports to a console."""
    from divcon.config import load_pipeline
    from divcon.pipeline import Run

    return Run(load_pipeline(file, overrides or []), run or Path("runs") / file.stem, Terminal(console))


@contextlib.contextmanager
def leaving(made: Any) -> Iterator[Any]:
    """Leave the run folder in the end, also after an error or Ctrl-C, which end the process without any clean-up."""
    try:
        yield made
    finally:
        made.leave()


@contextlib.contextmanager
def looking(file: Path, run: Path | None, overrides: list[str] | None) -> Iterator[Any]:
    """A run that is looked at: nothing is written, and no folder is made."""
    from divcon.config import load_pipeline
    from divcon.distill import RunStore
    from divcon.pipeline import Run

    folder = run or Path("runs") / file.stem
    with tempfile.TemporaryDirectory() as empty:
        there = (folder / "run.sqlite").is_file()
        with contextlib.closing(RunStore(folder if there else Path(empty))) as store:
            made = Run(load_pipeline(file, overrides or []), folder, Terminal(err), store)
            yield made
            made.close()
