"""The run store: one SQLite file per run, in WAL mode, that holds every reply and every result.

A reply is committed before it is returned, so a killed process loses at most the calls in flight. The key of a reply is
made of the request, its model and its rollout. A repeated request is answered from the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divcon.distill._budget import Budget
from divcon.programs import Meter, Usage
from divcon.signatures import FatalError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS items (id TEXT PRIMARY KEY, content TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, role TEXT NOT NULL, station TEXT NOT NULL, model TEXT NOT NULL, request TEXT NOT NULL,
    rollout INTEGER NOT NULL, response TEXT NOT NULL, input_tokens INTEGER, output_tokens INTEGER,
    cached_tokens INTEGER, seconds REAL NOT NULL, cost REAL, made_at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS traces (
    collection TEXT NOT NULL, item TEXT NOT NULL, sample INTEGER NOT NULL, position INTEGER NOT NULL,
    subquestions TEXT, lost TEXT, detail TEXT, reply TEXT,
    PRIMARY KEY (collection, item, sample)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS traces_in_order ON traces (collection, position, sample);
CREATE TABLE IF NOT EXISTS verdicts (
    screening TEXT NOT NULL, item TEXT NOT NULL, sample INTEGER NOT NULL,
    kept INTEGER NOT NULL, reason TEXT NOT NULL, detail TEXT,
    PRIMARY KEY (screening, item, sample)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
    arm TEXT NOT NULL, fingerprint TEXT NOT NULL, item TEXT NOT NULL, position INTEGER NOT NULL, record TEXT NOT NULL,
    PRIMARY KEY (arm, fingerprint, item)
) WITHOUT ROWID;
"""
_VERSION = 1
# What happens to a new row whose key is in the table: a reply that is paid for stays, anything else is replaced.
_INSERT = {"items": "IGNORE", "calls": "IGNORE", "traces": "REPLACE", "verdicts": "REPLACE", "outcomes": "REPLACE"}
_KEYS = {"traces": "collection", "verdicts": "screening", "outcomes": "fingerprint"}


class StoreError(FatalError):
    """The run folder can't be written or read."""


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-ready values: equal values have equal fingerprints."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A reply as it was stored."""

    response: dict[str, Any]
    seconds: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class Trace:
    """One collected decomposition.

    Attributes:
        item: The item's id.
        sample: The number of the item's sample, from 0.
        subquestions: The subquestions of the reply, or None where the reply was refused.
        lost: Why it was refused at collection (`cut_off`, `empty`, `duplicate`, `unreadable`, `failed`), else None.
        detail: The error message of the refusal.
        reply: The unchanged reply.
    """

    item: str
    sample: int
    subquestions: tuple[str, ...] | None
    lost: str | None = None
    detail: str | None = None
    reply: str | None = None


class RunStore:
    """All replies and results of a run. Threads of one process may share it.

    Args:
        folder: The run folder; made if it isn't there.

    Attributes:
        budget: What the calls may still use; None for no limit.

    Raises:
        StoreError: The folder can't be made or written, is of another version, or holds pickles.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.budget: Budget | None = None
        pickles = [*folder.glob("**/*.pkl"), *folder.glob("**/adapter_model.bin")] if folder.is_dir() else []
        if pickles:
            raise StoreError(
                f"The run folder holds {pickles[0]}, a pickle, and divcon loads no pickles.",
                "Remove it, or choose another folder with --run.",
            )
        self._lock = threading.RLock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(folder / "run.sqlite", check_same_thread=False, isolation_level=None, timeout=30)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise StoreError(
                    f"{folder / 'run.sqlite'} is of version {version}; this divcon writes {_VERSION}.",
                    "Choose another folder with --run.",
                )
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={_VERSION}")
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"The run folder {folder} can't be written: {error}.",
                "Check that the disk has room and the folder may be written, or choose another with --run.",
            ) from error

    def __deepcopy__(self, memo: dict[int, Any]) -> RunStore:
        return self

    def close(self) -> None:
        with self._lock:
            self._db.close()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except sqlite3.Error as error:
                raise StoreError(
                    f"The run store in {self.folder} can't be written: {error}.",
                    "Make room on the disk and run again; what was stored before is kept.",
                ) from error

    def _all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except sqlite3.Error as error:
                raise StoreError(
                    f"The run store in {self.folder} can't be read: {error}.",
                    "Check the disk, or choose another --run.",
                ) from error

    # -- rows ------------------------------------------------------------------------------------------------------

    def write_row(self, table: str, row: Sequence[Any]) -> None:
        """Commit a row to disk. All tables but `items` are written through this method."""
        with self._writing() as db:
            db.execute(_inserting(table, row), row)

    def write_rows(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows of a table in one transaction."""
        if not rows:
            return
        with self._writing() as db:
            db.execute("BEGIN")
            db.executemany(_inserting(table, rows[0]), rows)
            db.execute("COMMIT")

    def rows(self, table: str, key: str) -> list[tuple[Any, ...]]:
        """The rows of `traces`, `verdicts` or `outcomes` with a key, as they are stored."""
        return self._all(f"SELECT * FROM {table} WHERE {_KEYS[table]} = ?", key)

    def _before_reading(self, table: str, key: str) -> None:
        """A hook for stores that fetch rows from another process before they are read."""

    def know_items(self, contents: dict[str, str]) -> None:
        """Record which content each item's id stands for in this folder.

        Args:
            contents: Fingerprints of the items' contents, by item id.

        Raises:
            StoreError: See `require_same_items`.
        """
        self.require_same_items(contents)
        self.write_rows("items", list(contents.items()))

    def require_same_items(self, contents: dict[str, str]) -> None:
        """Raise where an id stands for another question than when the folder was made; nothing is written.

        Args:
            contents: Fingerprints of the items' contents, by item id.

        Raises:
            StoreError: An id stood for another question before, so results stored under it belong to that question.
        """
        known = dict(self._all("SELECT id, content FROM items"))
        changed = [identity for identity, content in contents.items() if known.get(identity, content) != content]
        if changed:
            raise StoreError(
                f"The id '{changed[0]}' stood for another question when {self.folder} was made"
                f"{f', as did {len(changed) - 1} more' if len(changed) > 1 else ''}.",
                "Give changed questions new ids, or choose another folder with --run.",
            )

    # -- replies ---------------------------------------------------------------------------------------------------

    def reply(self, key: str) -> StoredCall | None:
        """The stored reply to a request, or None."""
        rows = self._all("SELECT response, seconds, cost FROM calls WHERE key = ?", key)
        return StoredCall(json.loads(rows[0][0]), rows[0][1], rows[0][2]) if rows else None

    def keep_reply(
        self,
        key: str,
        *,
        role: str,
        station: str,
        model: str,
        request: dict[str, Any],
        rollout: int,
        response: dict[str, Any],
        seconds: float,
        cost: float | None,
    ) -> None:
        """Commit a reply to disk."""
        usage = response.get("usage") or {}
        tokens = [usage.get(name) for name in ("input_tokens", "output_tokens", "cache_read_tokens")]
        asked, answered = json.dumps(request), json.dumps(response)
        self.write_row(
            "calls", [key, role, station, model, asked, rollout, answered, *tokens, seconds, cost, time.time()]
        )

    def set_aside(self, key: str, aside: str) -> None:
        """Move a reply that is no answer to another key: it stays on the bill, and its request is asked again."""
        with self._writing() as db:
            db.execute("UPDATE OR IGNORE calls SET key = ? WHERE key = ?", (aside, key))

    def paid(
        self,
        station: str | None = None,
        cell: str | None = None,
        prices: Mapping[str, Mapping[str, float] | None] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """The calls that were really made, by role: calls, tokens, seconds, cost (None where no call has a price).

        Args:
            station: Only calls of this station.
            cell: Only calls for this cell of an experiment.
            prices: Current US dollars per million tokens, by role. For a role that isn't in it, the cost is what was
                stored with the calls.
        """
        where, values = [], []
        if station is not None:
            where.append("(station = ? OR station LIKE ? || '@%')")
            values += [station, station]
        if cell is not None:
            where.append("substr(station, instr(station, '@') + 1) = ? AND instr(station, '@') > 0")
            values.append(cell)
        rows = self._all(
            "SELECT role, COUNT(*), SUM(input_tokens), SUM(output_tokens), SUM(cached_tokens), SUM(seconds), "
            "SUM(cost), SUM(cost IS NULL), SUM(input_tokens IS NULL OR output_tokens IS NULL) "
            f"FROM calls {'WHERE ' + ' AND '.join(where) if where else ''} GROUP BY role",
            *values,
        )
        found = {}
        for role, calls, read, written, cached, seconds, cost, unpriced, unknown in rows:
            used = Usage(calls, 0, read or 0, cached or 0, written or 0, seconds, cost or 0.0, unpriced, unknown)
            spent = Meter((prices or {}).get(role)).repriced(used).as_dict()
            del spent["cached_calls"], spent["cached_tokens"]
            found[role] = spent
        return found

    # -- traces and verdicts ---------------------------------------------------------------------------------------

    def keep_trace(self, collection: str, position: int, trace: Trace) -> None:
        asked = None if trace.subquestions is None else json.dumps(trace.subquestions)
        said = [trace.lost, _storable(trace.detail), _storable(trace.reply)]
        self.write_row("traces", [collection, trace.item, trace.sample, position, asked, *said])

    def traces(self, collection: str) -> Iterator[Trace]:
        """The traces of a collection, in the order of items and samples. They are read lazily.

        They are read over a separate connection, so that other threads can write meanwhile.
        """
        self._before_reading("traces", collection)
        query = (
            "SELECT item, sample, subquestions, lost, detail, reply FROM traces WHERE collection = ? "
            "ORDER BY position, sample"
        )
        try:
            reader = sqlite3.connect(
                f"{(self.folder / 'run.sqlite').absolute().as_uri()}?mode=ro", uri=True, timeout=30
            )
            with contextlib.closing(reader):
                for i, s, q, lost, d, r in reader.execute(query, (collection,)):
                    yield Trace(i, s, None if q is None else tuple(json.loads(q)), lost, d, r)
        except sqlite3.Error as error:
            raise StoreError(
                f"The run store in {self.folder} can't be read: {error}.", "Check the disk, or choose another --run."
            ) from error

    def trace_keys(self, collection: str) -> set[tuple[str, int]]:
        """The (item, sample) pairs of the traces of a collection."""
        self._before_reading("traces", collection)
        rows = self._all("SELECT item, sample FROM traces WHERE collection = ?", collection)
        return {(item, sample) for item, sample in rows}

    def keep_verdict(self, screening: str, trace: Trace, kept: bool, reason: str, detail: str | None = None) -> None:
        self.write_row("verdicts", [screening, trace.item, trace.sample, int(kept), reason, detail])

    def verdicts(self, screening: str) -> dict[tuple[str, int], tuple[bool, str]]:
        """(kept, reason) by item and sample."""
        self._before_reading("verdicts", screening)
        rows = self._all("SELECT item, sample, kept, reason FROM verdicts WHERE screening = ?", screening)
        return {(item, sample): (bool(kept), reason) for item, sample, kept, reason in rows}

    # -- outcomes of an evaluation ---------------------------------------------------------------------------------

    def keep_outcome(self, arm: str, key: str, position: int, item: str, record: Mapping[str, Any]) -> None:
        self.write_row("outcomes", [arm, key, item, position, json.dumps(record)])

    def outcomes(self, arm: str, key: str) -> dict[str, dict[str, Any]]:
        """Records by item, in the order of the test set."""
        self._before_reading("outcomes", key)
        rows = self._all(
            "SELECT item, record FROM outcomes WHERE arm = ? AND fingerprint = ? ORDER BY position", arm, key
        )
        return {item: json.loads(record) for item, record in rows}


def _inserting(table: str, row: Sequence[Any]) -> str:
    return f"INSERT OR {_INSERT[table]} INTO {table} VALUES ({','.join('?' * len(row))})"


def _storable(text: str | None) -> str | None:
    """Text without lone surrogates, which can't be encoded."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def render_lines(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as JSON Lines; equal rows give equal bytes."""
    text = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
    return _storable(text) or ""


def write_whole(file: Path, text: str) -> None:
    """Write a file so that a kill leaves the whole old file or the whole new one.

    Raises:
        StoreError: The disk is full or the folder may not be written.
    """
    building = file.with_name(file.name + ".building")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        building.write_text(_storable(text) or "", encoding="utf-8")
        building.replace(file)
    except OSError as error:
        building.unlink(missing_ok=True)
        raise StoreError(f"{file} can't be written: {error}.", "Make room or change the folder, then run again.") from (
            error
        )
