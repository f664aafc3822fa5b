"""The SQLite file of a run store: its tables and versions, opened and closed so that nothing is lost without a word.

Every row carries a checksum, because SQLite doesn't notice a flipped byte inside a text. The file `run.commits` lists
the keys of all replies that were committed, so that a store that has lost some is noticed.
"""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from divcon.signatures import FatalError

DATABASE = "run.sqlite"
COMMITS = "run.commits"
VERSION = 2
_SMALL = 32 * 2**20  # bytes; a file up to this size is checked whole when it is opened, in a third of a second
_PATIENCE = 30.0  # seconds to wait for another process's transaction
_CLOSING = 1000  # milliseconds that closing waits for readers of the WAL

_ROOM = "Check that the disk has room and the folder may be written, or choose another with --run."
FAILURES = (sqlite3.Error, OSError, UnicodeDecodeError)
"""What comes of a database that can't be read or written, or that is damaged."""

COLUMNS: dict[str, tuple[str, ...]] = {
    "items": ("id", "content"),
    "calls": (
        "key", "role", "station", "model", "request", "rollout", "response", "input_tokens", "output_tokens",
        "cached_tokens", "seconds", "cost", "made_at",
    ),
    "traces": ("collection", "item", "sample", "position", "subquestions", "lost", "detail", "reply"),
    "verdicts": ("screening", "item", "sample", "kept", "reason", "detail"),
    "outcomes": ("arm", "fingerprint", "item", "position", "record"),
}  # fmt: skip
"""The columns of each table, without the last one, `checksum`. The columns of the key come first."""

JSON_COLUMNS = {"calls": ("request", "response"), "traces": ("subquestions",), "outcomes": ("record",)}
"""The columns that hold JSON."""

_TABLES = (
    "CREATE TABLE items (id TEXT PRIMARY KEY, content TEXT NOT NULL, checksum INTEGER) WITHOUT ROWID",
    """CREATE TABLE calls (
    key TEXT PRIMARY KEY, role TEXT NOT NULL, station TEXT NOT NULL, model TEXT NOT NULL, request TEXT NOT NULL,
    rollout INTEGER NOT NULL, response TEXT NOT NULL, input_tokens INTEGER, output_tokens INTEGER,
    cached_tokens INTEGER, seconds REAL NOT NULL, cost REAL, made_at REAL NOT NULL, checksum INTEGER
) WITHOUT ROWID""",
    """CREATE TABLE traces (
    collection TEXT NOT NULL, item TEXT NOT NULL, sample INTEGER NOT NULL, position INTEGER NOT NULL,
    subquestions TEXT, lost TEXT, detail TEXT, reply TEXT, checksum INTEGER,
    PRIMARY KEY (collection, item, sample)
) WITHOUT ROWID""",
    "CREATE INDEX traces_in_order ON traces (collection, position, sample)",
    """CREATE TABLE verdicts (
    screening TEXT NOT NULL, item TEXT NOT NULL, sample INTEGER NOT NULL,
    kept INTEGER NOT NULL, reason TEXT NOT NULL, detail TEXT, checksum INTEGER,
    PRIMARY KEY (screening, item, sample)
) WITHOUT ROWID""",
    """CREATE TABLE outcomes (
    arm TEXT NOT NULL, fingerprint TEXT NOT NULL, item TEXT NOT NULL, position INTEGER NOT NULL, record TEXT NOT NULL,
    checksum INTEGER,
    PRIMARY KEY (arm, fingerprint, item)
) WITHOUT ROWID""",
)


class StoreError(FatalError):
    """The run folder can't be written or read."""


class StoreDamaged(StoreError):
    """The run store holds something that divcon didn't write: flipped bytes, or a file that was cut."""


class RepliesLost(StoreError):
    """The run store holds fewer replies than were paid for."""


class StoreVersionError(StoreError):
    """The run store was written by a newer divcon."""


def checksum(table: str, row: Sequence[Any]) -> int:
    """CRC-32 of a row, without its checksum column.

    Numbers count as floats, because SQLite keeps a whole number of a REAL column as an integer.
    """
    parts = [value if isinstance(value, str) else _in_words(value) for value in (table, *row)]
    return zlib.crc32("\x1f".join(parts).encode("utf-8", "surrogateescape"))


def _in_words(value: float | bytes | None) -> str:
    if value is None:
        return "\0"
    return f"\1{float(value)!r}" if isinstance(value, (int, float)) else f"\2{value.hex()}"


def key_of(table: str, row: Sequence[Any]) -> str:
    """The key of a row in words, for messages."""
    width = 1 if table in ("items", "calls") else 3
    return " ".join(map(str, row[:width]))


def whole(folder: Path, table: str, row: Sequence[Any]) -> tuple[Any, ...]:
    """A row as it was written, without its checksum.

    Raises:
        StoreDamaged: It isn't the row that was written.
    """
    *values, written = row
    if checksum(table, values) != written:
        raise store_damaged(folder, f"the row {key_of(table, row)} of {table} isn't the one that was written")
    return tuple(values)


def store_damaged(folder: Path, what: str) -> StoreDamaged:
    """The error for a damaged store."""
    return StoreDamaged(
        f"{folder / DATABASE} is damaged: {what}.",
        f"Put a copy of it back, or run 'divcon store repair {folder}': it saves every whole row and keeps the damaged "
        "file, and the next run asks only for what was lost.",
    )


def explained(folder: Path, error: Exception, doing: str) -> StoreError:
    """An error of SQLite's as one of ours.

    Args:
        folder: The run folder.
        error: One of `FAILURES`.
        doing: What couldn't be done: `written` or `read`.
    """
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return store_damaged(folder, str(error))
    # Python's own: a text or a name that isn't UTF-8.
    if isinstance(error, UnicodeDecodeError) or (code is None and isinstance(error, sqlite3.OperationalError)):
        return store_damaged(folder, str(error))
    return StoreError(f"The run store in {folder} can't be {doing}: {error}.", f"What was stored is kept. {_ROOM}")


def unwritable(folder: Path, error: Exception) -> StoreError:
    """The error for a run folder that can't be written."""
    return StoreError(f"The run folder {folder} can't be written: {error}.", _ROOM)


def no_run_folder(folder: Path) -> StoreError:
    """The error for a folder that holds no store."""
    return StoreError(f"{folder} is no run folder: it has no {DATABASE}.", "Give the folder of a run.")


def connect_readonly(folder: Path) -> sqlite3.Connection:
    """A connection that can't write. Closing it leaves the WAL as it is."""
    address = f"{(folder / DATABASE).absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, timeout=_PATIENCE)


def connect(folder: Path) -> sqlite3.Connection:
    """Open the database of a run folder, make it where there is none, and upgrade an older one.

    Nothing is written before the file is known to be whole, since opening a damaged file may change it.

    Raises:
        StoreDamaged: It is no SQLite file, or it is damaged.
        RepliesLost: It holds fewer replies than were committed.
        StoreVersionError: A newer divcon wrote it.
        StoreError: The folder can't be made, or not be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _require_whole(folder)
        db = sqlite3.connect(folder / DATABASE, check_same_thread=False, isolation_level=None, timeout=_PATIENCE)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            if _version(db) != VERSION:
                _make_current(db)
            _list_commits(folder, db)
        except BaseException:
            db.close()
            raise
    except FAILURES as error:
        known = explained(folder, error, "written")
        if type(known) is not StoreError:
            raise known from error
        raise unwritable(folder, error) from error
    return db


def upgrade(folder: Path) -> None:
    """Upgrade the database of a run folder where an earlier version wrote it; else nothing is written.

    Raises:
        StoreError: See `connect`.
    """
    with contextlib.closing(connect_readonly(folder)) as db:
        version = _version(db)
    if version < VERSION:
        disconnect(connect(folder))


def disconnect(db: sqlite3.Connection) -> None:
    """Close a connection so that `run.sqlite` alone holds everything, and can be copied alone."""
    with contextlib.suppress(sqlite3.Error):  # a full disk or a reader: then everything stays in the WAL
        db.execute(f"PRAGMA busy_timeout={_CLOSING}")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _make_current(db: sqlite3.Connection) -> None:
    """Make the tables of a new database, or upgrade those of an older one, in one transaction."""
    db.create_function("checksum_of", -1, lambda table, *row: checksum(table, row), deterministic=True)
    with db:
        db.execute("BEGIN IMMEDIATE")
        version = _version(db)  # another process may have been faster
        if version == 0:
            make_tables(db)
        if version == 1:
            for table, columns in COLUMNS.items():
                db.execute(f"ALTER TABLE {table} ADD COLUMN checksum INTEGER")
                db.execute(f"UPDATE {table} SET checksum = checksum_of('{table}', {', '.join(columns)})")
        db.execute(f"PRAGMA user_version={VERSION}")


def make_tables(db: sqlite3.Connection) -> None:
    """Make the tables of a new database."""
    for statement in _TABLES:
        db.execute(statement)


def _require_whole(folder: Path) -> None:
    """Raise an error where the store lacks committed replies or is damaged; nothing is written."""
    file = folder / DATABASE
    # The commits are counted first: another process may commit meanwhile, and then the store has more.
    committed = count_commits(folder)
    if not file.is_file() or not file.stat().st_size:
        _require_replies(folder, 0, committed)
        return
    with contextlib.closing(connect_readonly(folder)) as db:
        version = _version(db)
        if version > VERSION:
            raise StoreVersionError(
                f"{file} is of version {version}; this divcon writes {VERSION}.",
                "Install the divcon that wrote it, or choose another folder with --run.",
            )
        small = file.stat().st_size <= _SMALL
        if small and (said := db.execute("PRAGMA quick_check(1)").fetchone()[0]) != "ok":
            raise store_damaged(folder, " ".join(said.split()))
        columns = {name for _, name, *_ in db.execute("PRAGMA table_info(calls)")}
        if (bool(columns), "checksum" in columns) != (version > 0, version == VERSION):
            raise store_damaged(folder, f"its tables aren't those of version {version}")
        stored = db.execute("SELECT COUNT(*) FROM calls").fetchone()[0] if version else 0
        _require_replies(folder, stored, committed)
        if small and version == VERSION:
            for table in COLUMNS:
                for row in db.execute(f"SELECT * FROM {table}"):
                    whole(folder, table, row)


# -- the list of commits -----------------------------------------------------------------------------------------------


def count_commits(folder: Path) -> int | None:
    """How many replies were committed in a folder; None where nothing is known about it."""
    file = folder / COMMITS
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        return sum(block.count(b"\n") for block in iter(lambda: stream.read(2**20), b""))


def render_commits(keys: Iterator[str]) -> str:
    """The text of a list of commits."""
    return "".join(f"{key}\n" for key in keys)


def _list_commits(folder: Path, db: sqlite3.Connection) -> None:
    """Begin the list of commits for replies that an earlier divcon stored."""
    file = folder / COMMITS
    if not file.exists() and db.execute("SELECT 1 FROM calls LIMIT 1").fetchone():
        file.write_text(render_commits(key for (key,) in db.execute("SELECT key FROM calls")), encoding="utf-8")


def _require_replies(folder: Path, stored: int, committed: int | None) -> None:
    if committed is not None and stored < committed:
        raise replies_lost(folder, f"{committed:,} replies were stored in {folder}, and {stored:,} of them are left")


def replies_lost(folder: Path, what: str) -> RepliesLost:
    """The error for a store that has lost replies."""
    return RepliesLost(
        f"{what}. {DATABASE} or its WAL was removed, cut or replaced.",
        f"Put a whole copy back. Or run 'divcon store repair {folder}' to go on with what is there: "
        "the rest is asked and paid for again.",
    )
