"""The terminal: progress of a run, and error messages that end a command."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from divcon.signatures import DivconError

out = Console()
err = Console(stderr=True)


class Terminal:
    """Reports a run: with progress bars on a terminal, and with a line every ten seconds elsewhere."""

    # The least seconds between lines where there is no terminal. Progress comes every second, and later on a busy
    # machine, so lines are ten seconds apart at most.
    _EVERY = 8.0

    def __init__(self, console: Console = out) -> None:
        self._console = console
        self._lock = threading.RLock()  # progress comes from another thread than the other lines
        self._bar: Progress | None = None
        self._task: Any = None
        self._name = ""
        self._last = time.monotonic()

    def station(self, name: str, text: str) -> None:
        with self._lock:
            self._close()
            self._last = time.monotonic()
            self._console.print(f"[bold]{name}[/bold]: {text}", highlight=False)

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        with self._lock:
            if not self._console.is_terminal:
                if time.monotonic() - self._last >= self._EVERY:
                    self._last = time.monotonic()
                    said = f"  {name}: {done}/{total} {escape(note)}".rstrip()
                    self._console.print(said, highlight=False, soft_wrap=True)
                return
            if self._bar is None or self._name != name:
                self._close()
                self._name = name
                self._bar = Progress(
                    TextColumn("  {task.description}"),
                    BarColumn(bar_width=20),
                    MofNCompleteColumn(),
                    TextColumn("{task.fields[note]}", markup=False),
                    TimeElapsedColumn(),
                    console=self._console,
                    transient=True,
                )
                self._bar.start()
                self._task = self._bar.add_task(name, total=total, note=note)
            self._bar.update(self._task, completed=done, total=total, note=note)

    def finished(self, name: str, text: str) -> None:
        with self._lock:
            self._close()
            self._console.print(f"  {name}: {text}", highlight=False, soft_wrap=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def guarded(pipeline: Callable[[], Any], work: Callable[[], Any]) -> Any:
    """Do `work`. An error that the user can fix is shown as one message, and the exit status isn't 0.

    Args:
        pipeline: Returns the pipeline, for the message of an LM's error.
        work: Returns the result.
    """
    from dspy.utils.exceptions import AdapterParseError, LMError

    try:
        return work()
    except LMError as error:
        from divcon.pipeline import explain_lm_error

        fail(explain_lm_error(error, pipeline()))
    except AdapterParseError as error:
        said = " ".join(str(error.lm_response).split())[:200]
        fail(DivconError(f"The solver's reply has no answer that can be read: {said}", "Rephrase the question."))
    except DivconError as error:
        fail(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(DivconError(f"{where}{error.strerror or error}.", "Make room or change the folder, then run again."))
    except KeyboardInterrupt:
        err.print("\nStopped. All results are kept; run the same command to go on.")
        sys.stdout.flush()
        os._exit(130)  # without waiting for threads, which may still wait for a server


def fail(error: DivconError) -> NoReturn:
    err.print(f"[red]error:[/red] {escape(error.problem)}", highlight=False, soft_wrap=True)
    if error.remedy:
        err.print(f"  {escape(error.remedy)}", highlight=False, soft_wrap=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
