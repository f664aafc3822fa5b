"""The terminal: progress of a run, and error messages that end a command.

What is printed holds texts of others: replies, errors of servers, names of models and folders. All of it goes through
`shown`, and no console here reads markup.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO

import typer
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from divcon.signatures import DivconError, mask_error, masked, masked_values, printable, printable_json


def shown(text: str) -> str:
    """A text as it may be shown: masked of secrets, its control characters made visible."""
    return printable(masked(text))


def echo(text: str) -> None:
    """Print a text without wrapping it; see `shown`."""
    typer.echo(shown(text))


def echo_json(value: Any) -> None:
    """Print a value as one line of JSON, masked of secrets and without control characters."""
    typer.echo(printable_json(masked_values(value)))


def line(*parts: str | tuple[str, str]) -> Text:
    """A line of texts, each alone or with the style it is shown in; see `shown`."""
    return Text.assemble(*((shown(part), "") if isinstance(part, str) else (shown(part[0]), part[1]) for part in parts))


class ShownConsole(Console):
    """A console that shows each text as it is written, in tables and titles too: it reads no markup. See `shown`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """See `Console.render_str`, through which every text is rendered that isn't a `Text` already."""
        return super().render_str(shown(text), **options)


out = ShownConsole()
err = ShownConsole(stderr=True)


def prose(console: Console, text: Text, indent: int = 0) -> None:
    """Print a line. A terminal gets it wrapped between words, and indented; elsewhere it stays one line."""
    if console.is_terminal:
        console.print(Padding(text, (0, 0, 0, indent), expand=False))
    else:
        console.print(Text.assemble(" " * indent, text), soft_wrap=True)


def console_of(as_json: bool) -> ShownConsole:
    """The console for what isn't the result: standard error where the result is JSON on standard output."""
    return err if as_json else out


class _Bar(Progress):
    """A progress bar with a note below it, which wraps where the terminal is narrow."""

    note = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self.note:
            yield Padding(Text(self.note, style="dim"), (0, 0, 0, 4))


class Terminal:
    """Reports a run: with progress bars on a terminal, and with a line every ten seconds elsewhere."""

    # The least seconds between lines where there is no terminal. Progress comes every second, and later on a busy
    # machine, so lines are ten seconds apart at most.
    _EVERY = 8.0

    def __init__(self, console: Console = out) -> None:
        self._console = console
        self._lock = threading.RLock()  # progress comes from another thread than the other lines
        self._bar: _Bar | None = None
        self._task: Any = None
        self._name = ""
        self._last = time.monotonic()

    def station(self, name: str, text: str) -> None:
        with self._lock:
            self._close()
            self._last = time.monotonic()
            prose(self._console, line((name, "bold"), f": {text}"))

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        with self._lock:
            if not self._console.is_terminal:
                if time.monotonic() - self._last >= self._EVERY:
                    self._last = time.monotonic()
                    self._console.print(line(f"  {name}: {done}/{total} {note}".rstrip()), soft_wrap=True)
                return
            name, note = shown(name), shown(note)
            if self._bar is None or self._name != name:
                self._close()
                self._name = name
                self._bar = _Bar(
                    TextColumn("  {task.description}", markup=False),
                    BarColumn(bar_width=30),
                    MofNCompleteColumn(),
                    TaskProgressColumn(),
                    TimeElapsedColumn(),
                    console=self._console,
                    transient=True,
                )
                self._bar.start()
                self._task = self._bar.add_task(name, total=total)
            self._bar.note = note
            self._bar.update(self._task, completed=done, total=total)

    def finished(self, name: str, text: str) -> None:
        with self._lock:
            self._close()
            prose(self._console, line(f"{name}: {text}"), 2)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _ShownRecord(logging.LogRecord):
    """A record that any handler may print. Libraries have handlers of their own."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        if self.exc_info and self.exc_info[1] is not None:
            mask_error(self.exc_info[1])

    def getMessage(self) -> str:
        return shown(super().getMessage())


class _ShownFormatter(logging.Formatter):
    """Formats records of logs, their tracebacks too, as they may be shown."""

    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))


def log_into(folder: Path) -> None:
    """Write the logs of libraries into the run folder, and not to the terminal."""
    handler = logging.FileHandler(folder / "divcon.log", encoding="utf-8", delay=True)
    handler.setFormatter(_ShownFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("dspy", "LiteLLM", "httpx"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False


@contextmanager
def all_shown() -> Iterator[None]:
    """Show, as `shown` does, what Python and libraries would print as it is: logs, warnings, tracebacks."""
    logging.setLogRecordFactory(_ShownRecord)
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_ShownFormatter())
    warnings.showwarning = _show_warning
    threading.excepthook = lambda crash: _show_traceback(crash.exc_value)
    try:
        yield
    except Exception as error:  # noqa: BLE001 - shown, and it still ends the command
        _show_traceback(error)
        raise SystemExit(1) from None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """See `warnings.showwarning`."""
    err.print(warnings.formatwarning(message, category, filename, lineno).rstrip(), soft_wrap=True)


def _show_traceback(error: BaseException | None) -> None:
    err.print("".join(traceback.format_exception(error)).rstrip(), soft_wrap=True)


def guarded(pipeline: Callable[[], Any], work: Callable[[], Any]) -> Any:
    """Do `work`. An error that the user can fix is shown as one message, and the exit status isn't 0.

    Args:
        pipeline: Returns the pipeline, for the message of an LM's error.
        work: Returns the result.
    """
    from dspy.utils.exceptions import AdapterParseError, LMError

    from divcon.distill import stopping_after_steps

    try:
        with stopping_after_steps(_tell_stopping) as stopping:
            return work()
    except LMError as error:
        from divcon.pipeline import explain_lm_error

        fail(explain_lm_error(error, pipeline()))
    except AdapterParseError as error:
        said = " ".join(masked(str(error.lm_response)).split())[:200]
        fail(DivconError(f"The solver's reply has no answer that can be read: {said}", "Rephrase the question."))
    except DivconError as error:
        fail(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        fail(DivconError(f"{where}{error.strerror or error}.", "Make room or change the folder, then run again."))
    except KeyboardInterrupt:
        err.print("\nStopped. All results are kept; run the same command to go on.")
        sys.stdout.flush()
        os._exit(128 + stopping.signal)  # without waiting for threads, which may still wait for a server


def _tell_stopping() -> None:
    err.print("\nStopping after this step: calls under way are finished and kept. Ctrl-C again stops at once.")


def fail(error: DivconError) -> NoReturn:
    prose(err, line(("error:", "red"), f" {error.problem}"))
    if error.remedy:
        err.print(f"  {error.remedy}", soft_wrap=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
