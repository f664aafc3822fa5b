"""`divcon store`: check, export and repair the store of a run folder."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from divcon._arguments import AsJSON, Wait, path_of
from divcon._terminal import console_of, echo_json, err, guarded, out

app = typer.Typer(no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(metavar="FOLDER", parser=path_of, help="A run folder.")]
_NAMES = {"calls": "replies", "items": "questions"}
_SHOWN = 10  # keys of damaged rows that are named


@app.callback()
def store() -> None:
    """Check, export or repair the store of a run folder, which holds its replies and results."""


@app.command()
def check(folder: Folder, as_json: AsJSON = False) -> None:
    """Count what is whole, and name the damaged rows by their keys. The status is 1 if anything is damaged or lost.

    Example: divcon store check runs/pipeline
    """
    from divcon.distill import check_store

    state = guarded(lambda: None, lambda: check_store(folder))
    if as_json:
        echo_json({**asdict(state), "sound": state.sound})
    else:
        _print(state)
    if not state.sound:
        console_of(as_json).print(f"Run 'divcon store repair {folder}' to save what is whole.", soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def export(
    folder: Folder,
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", parser=path_of, help="The file to write; standard output by default."),
    ] = None,
) -> None:
    """Write everything that can be read as JSON Lines: a copy of all replies and results in one file.

    Example: divcon store export runs/pipeline copy.jsonl
    """

    def work() -> Any:
        from divcon.distill import export_store

        with contextlib.ExitStack() as stack:
            stream = sys.stdout if file is None else stack.enter_context(file.open("w", encoding="utf-8"))
            return export_store(folder, lambda line: stream.write(f"{line}\n"))

    state = guarded(lambda: None, work)
    if not state.sound:
        err.print(f"The store is damaged; 'divcon store check {folder}' says where.", soft_wrap=True)
        raise typer.Exit(1)


@app.command()
def repair(
    folder: Folder,
    wait: Wait = False,
    as_json: AsJSON = False,
) -> None:
    """Save what is whole into a new store and keep the damaged file. The next run asks only for what was lost.

    End 'divcon serve' and 'divcon mcp' on the folder first.

    Example: divcon store repair runs/pipeline
    """
    from divcon.distill import repair_store

    report = lambda who: console_of(as_json).print(f"waiting for {who}", soft_wrap=True)  # noqa: E731
    repaired = guarded(lambda: None, lambda: repair_store(folder, report if wait else None))
    if as_json:
        echo_json({**asdict(repaired.state), "sound": repaired.state.sound, "kept": list(map(str, repaired.kept))})
        return
    _print(repaired.state)
    for kept in repaired.kept:
        out.print(f"kept {kept}", soft_wrap=True)


def _print(state: Any) -> None:
    """Print a line a table, and what is wrong."""
    for table, count in state.whole.items():
        damaged = state.damaged[table]
        text = f"{_NAMES.get(table, table):10} {count:,} whole, {len(damaged):,} damaged"
        named = ", ".join(damaged[:_SHOWN]) + (", ..." if len(damaged) > _SHOWN else "")
        out.print(text + (f": {named}" if named else ""), soft_wrap=True)
    if state.lost:
        out.print(f"{state.lost:,} replies were stored and are lost.")
    for problem in state.problems:
        out.print(f"SQLite: {problem}", soft_wrap=True)
