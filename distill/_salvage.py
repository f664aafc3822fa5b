"""What is whole in a run store, also in a damaged one: it is counted, exported, or saved into a new store."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from divcon.distill._database import (
    COLUMNS,
    COMMITS,
    DATABASE,
    FAILURES,
    JSON_COLUMNS,
    VERSION,
    StoreError,
    StoreVersionError,
    checksum,
    connect_readonly,
    count_commits,
    key_of,
    make_tables,
    no_run_folder,
    render_commits,
)
from divcon.distill._files import unfinished, write_whole
from divcon.distill._hold import Hold
from divcon.distill._pages import records

_WAL = f"{DATABASE}-wal"


@dataclass
class StoreState:
    """What is whole in a store.

    Attributes:
        whole: The number of whole rows, by table: `calls` are the replies.
        damaged: The keys of damaged rows, by table.
        lost: The number of replies that were stored and aren't there any more, damaged ones included.
        problems: What SQLite says of the file.
    """

    whole: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, list[str]] = field(default_factory=dict)
    lost: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged and nothing is lost."""
        return not (self.problems or any(self.damaged.values()) or self.lost)


@dataclass(frozen=True)
class Repair:
    """A repair of a store.

    Attributes:
        state: What is in the store now, and what couldn't be saved.
        kept: The damaged files under their new names; none where the store was left as it was.
    """

    state: StoreState
    kept: list[Path]


def check_store(folder: Path) -> StoreState:
    """What is whole in the store of a run folder. The store isn't changed.

    Raises:
        StoreError: There is no such folder, or it can't be read.
        StoreVersionError: A newer divcon wrote the store.
    """
    state = _looked_at(folder)
    if state.sound:
        return state
    with tempfile.TemporaryDirectory() as place:
        return _saved(folder, Path(place) / DATABASE)


def export_store(folder: Path, write: Callable[[str], object]) -> StoreState:
    """Write every row of a store as a line of JSON. A damaged row has `damaged: true`.

    Args:
        folder: The run folder.
        write: Takes a line.

    Raises:
        StoreError: See `check_store`.
    """
    state = _looked_at(folder)
    if state.sound:
        for table, row in _rows(folder, StoreState()):
            write(_line(table, row))
        return state
    with tempfile.TemporaryDirectory() as place:
        state = _saved(folder, Path(place) / DATABASE)
        for table, row in _rows(Path(place), StoreState()):
            write(_line(table, row))
    for table, row in _rows(folder, StoreState(), whole=False):
        if key_of(table, row) in state.damaged[table]:
            line = {"table": table, **dict(zip(COLUMNS[table], row, strict=False)), "damaged": True}
            write(json.dumps(line, default=repr))  # a flipped byte can make bytes of a text
    return state


def repair_store(folder: Path, waiting: Callable[[str], None] | None = None) -> Repair:
    """Save everything that is whole into a new store, and go on without the rest.

    The damaged files are kept under other names. A sound store is left as it is.

    Args:
        folder: The run folder.
        waiting: See `Hold`.

    Raises:
        FolderBusy: Another process works on the folder.
        StoreError: See `check_store`; or there is no room for the new store.
    """
    _require_folder(folder)
    hold = Hold(folder, waiting)
    try:
        state, kept = _looked_at(folder), []
        if not state.sound:
            building = unfinished(folder / DATABASE)
            try:
                state = _saved(folder, building)
                kept = _kept_aside(folder)
                building.replace(folder / DATABASE)
            finally:
                building.unlink(missing_ok=True)
        with contextlib.closing(connect_readonly(folder)) as db:
            keys = [key for (key,) in db.execute("SELECT key FROM calls")]
        write_whole(folder / COMMITS, render_commits(iter(keys)))
        return Repair(state, kept)
    except FAILURES as error:
        raise StoreError(
            f"The store in {folder} can't be repaired: {error}.", "Make room on the disk; nothing was removed."
        ) from error
    finally:
        hold.release()


def _require_folder(folder: Path) -> None:
    if not any((folder / name).exists() for name in (DATABASE, _WAL, COMMITS, "pipeline.json")):
        raise no_run_folder(folder)


def _looked_at(folder: Path) -> StoreState:
    """What SQLite can read of a store."""
    _require_folder(folder)
    committed = count_commits(folder) or 0
    state = StoreState(dict.fromkeys(COLUMNS, 0), {table: [] for table in COLUMNS})
    for table, _ in _rows(folder, state):
        state.whole[table] += 1
    state.lost = max(0, committed - state.whole["calls"])
    return state


def _rows(folder: Path, state: StoreState, whole: bool = True) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The rows that SQLite can read, without their checksums, as (table, row).

    Args:
        folder: The folder of the store.
        state: Gets the keys of damaged rows, and SQLite's errors.
        whole: Yield the whole rows; or else the damaged ones.

    Raises:
        StoreVersionError: A newer divcon wrote the store.
    """
    try:
        with contextlib.closing(connect_readonly(folder)) as db:
            db.isolation_level = None
            db.text_factory = lambda text: text.decode("utf-8", "surrogateescape")
            db.execute("BEGIN")  # all tables in one state, also while a run goes on
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise StoreVersionError(
                    f"{folder / DATABASE} is of version {version}; this divcon reads {VERSION}.",
                    "Take the divcon that wrote it.",
                )
            state.problems += [said for (said,) in db.execute("PRAGMA quick_check(5)") if said != "ok"]
            for table in COLUMNS:
                yield from _rows_of(db, table, version, state, whole)
    except FAILURES as error:
        state.problems.append(str(error))


def _rows_of(
    db: sqlite3.Connection, table: str, version: int, state: StoreState, whole: bool
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    try:
        for row in db.execute(f"SELECT * FROM {table}"):
            good = _is_whole(table, row, version == 1)
            if not good:
                state.damaged.setdefault(table, []).append(key_of(table, row))
            if good is whole:
                yield table, tuple(row[: len(COLUMNS[table])])
    except FAILURES as error:
        state.problems.append(f"{table}: {error}")


def _is_whole(table: str, row: Sequence[Any], unsummed: bool) -> bool:
    """Whether a row is the one that was written.

    Args:
        table: Its table.
        row: The row as it is stored.
        unsummed: Its store is of version 1, whose rows have no checksums; then its JSON has to be readable.
    """
    columns = COLUMNS[table]
    if len(row) == len(columns) + 1:
        return checksum(table, row[:-1]) == row[-1]
    if not unsummed or len(row) != len(columns):
        return False
    named = dict(zip(columns, row, strict=True))
    try:
        for value in row:
            str(value).encode()
        for column in JSON_COLUMNS.get(table, ()):
            json.loads("null" if column == "subquestions" and named[column] is None else named[column])
    except (ValueError, TypeError):
        return False
    return True


def _saved(folder: Path, target: Path) -> StoreState:
    """Save every whole row of a store into a new one.

    Args:
        folder: The folder of the store.
        target: The file to make.

    Returns:
        What is in the new store, and which rows of the old one aren't.
    """
    state, before = StoreState(), StoreState()
    committed = count_commits(folder) or 0
    try:
        with contextlib.closing(sqlite3.connect(target, isolation_level=None)) as db, db:
            db.execute("BEGIN")
            make_tables(db)
            # What SQLite can read comes last: pages that it no longer uses may hold earlier states of a row.
            for rows in (_recovered(folder), _rows(folder, before)):
                for table, row in rows:
                    marks = ",".join("?" * (len(row) + 1))
                    db.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", [*row, checksum(table, row)])
            for table in COLUMNS:
                state.whole[table] = db.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
                damaged = before.damaged.get(table, [])
                there = {key_of(table, row) for row in db.execute(f"SELECT * FROM {table}")} if damaged else set()
                state.damaged[table] = [key for key in damaged if key not in there]
            db.execute(f"PRAGMA user_version={VERSION}")
    except FAILURES as error:
        raise StoreError(
            f"What is whole in {folder} can't be saved: {error}.", "Make room on the disk; nothing was removed."
        ) from error
    state.problems = before.problems
    state.lost = max(0, committed - state.whole["calls"])
    return state


def _recovered(folder: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The whole rows in all pages of a store, also in those that SQLite can't reach."""
    found = False
    for unsummed in (False, True):
        for record in records(folder / DATABASE, folder / _WAL):
            for table, columns in COLUMNS.items():
                if len(record) == len(columns) + (not unsummed) and _is_whole(table, record, unsummed):
                    found = True
                    yield table, record[: len(columns)]
        if found:
            return  # no row has a checksum in version 1, and every row from version 2 on


def _kept_aside(folder: Path) -> list[Path]:
    """Give the files of a store other names. SQLite can open them under these."""
    number = next(n for n in itertools.count(1) if not any(folder.glob(f"*.before-repair-{n}*")))
    kept = []
    # The WAL goes first: SQLite would remove one that stands beside no database.
    for name, ending in ((_WAL, "-wal"), (DATABASE, "")):
        if (folder / name).is_file() and (folder / name).stat().st_size:
            kept.append((folder / name).replace(folder / f"{DATABASE}.before-repair-{number}{ending}"))
    if (folder / COMMITS).is_file():
        kept.append((folder / COMMITS).replace(folder / f"{COMMITS}.before-repair-{number}"))
    for name in (_WAL, f"{DATABASE}-shm"):
        (folder / name).unlink(missing_ok=True)
    return kept


def _line(table: str, row: Sequence[Any]) -> str:
    """A whole row as JSON. What is stored as JSON is part of it as such."""
    named = dict(zip(COLUMNS[table], row, strict=True))
    for column in JSON_COLUMNS.get(table, ()):
        named[column] = None if named[column] is None else json.loads(named[column])
    return json.dumps({"table": table, **named}, ensure_ascii=False)
