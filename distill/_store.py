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
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from divcon.distill._budget import Budget
from divcon.distill._database import (
    COLUMNS,
    COMMITS,
    FAILURES,
    JSON_COLUMNS,
    StoreError,
    checksum,
    connect,
    connect_readonly,
    count_commits,
    disconnect,
    explained,
    replies_lost,
    whole,
)
from divcon.distill._files import storable
from divcon.distill._paid import calls_of, paid_by_role, uncounted_calls
from divcon.distill._paths import expanded_path
from divcon.distill._stored import Exchange, StoredCall, Trace
from divcon.programs import PriceOf
from divcon.signatures import masked, masked_json

# What happens to a new row whose key is in the table: a reply that is paid for stays, anything else is replaced.
_INSERT = {"items": "REPLACE", "calls": "IGNORE", "traces": "REPLACE", "verdicts": "REPLACE", "outcomes": "REPLACE"}
_RESULTS = ("exports", "adapters", "results.json", "cells/*/*/exports")
# The columns with plain text from outside. They are masked of secrets, as those with JSON are.
_TEXT = {"calls": ("model",), "traces": ("detail", "reply"), "verdicts": ("detail",)}
_BATCH = 500  # keys of one query; SQLite takes 999 values at least
_KEYS = {"traces": "collection", "verdicts": "screening", "outcomes": "fingerprint"}


def fingerprint(*parts: Any) -> str:
    """A short hash of JSON-ready values: equal values have equal fingerprints."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


class RunStore:
    """All replies and results of a run. Threads of one process may share it.

    Args:
        folder: The run folder; made if it isn't there.

    Attributes:
        budget: What the calls may still use; None for no limit.

    Raises:
        StoreDamaged: It is no SQLite file, or it is damaged.
        RepliesLost: It holds fewer replies than were stored in it.
        StoreVersionError: A newer divcon wrote it.
        StoreError: The folder can't be made or written, or holds pickles.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder = expanded_path(folder)
        self.budget: Budget | None = None
        pickles = [*folder.glob("**/*.pkl"), *folder.glob("**/adapter_model.bin")] if folder.is_dir() else []
        if pickles:
            raise StoreError(
                f"The run folder holds {pickles[0]}, a pickle, and divcon loads no pickles.",
                "Remove it, or choose another folder with --run.",
            )
        self._lock = threading.RLock()
        self._commits: BinaryIO | None = None
        self._db = connect(folder)

    def __deepcopy__(self, memo: dict[int, Any]) -> RunStore:
        return self

    def close(self) -> None:
        """Move everything into `run.sqlite`, and close it."""
        with self._lock:
            disconnect(self._db)
            if self._commits is not None:
                self._commits.close()

    def require_replies_of_results(self) -> None:
        """Raise an error where the folder holds results, and the store none of the replies that they came from.

        Raises:
            RepliesLost: The store was removed or emptied.
        """
        made = [name for name in _RESULTS if (self.folder / name).is_file() or any(self.folder.glob(f"{name}/*"))]
        if not made or count_commits(self.folder) is not None:
            return
        # Answers that were recorded elsewhere come from no call.
        if not (self._all("SELECT 1 FROM calls LIMIT 1") or self._all("SELECT 1 FROM outcomes LIMIT 1")):
            raise replies_lost(self.folder, f"{self.folder} holds {made[0]}, and no reply that they were made from")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                yield self._db
            except FAILURES as error:
                raise explained(self.folder, error, "written") from error

    def _all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                return self._db.execute(query, values).fetchall()
            except FAILURES as error:
                raise explained(self.folder, error, "read") from error

    def _whole(self, table: str, where: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of a table as they were written.

        Raises:
            StoreDamaged: A row isn't the one that was written.
        """
        return [whole(self.folder, table, row) for row in self._all(f"SELECT * FROM {table} WHERE {where}", *values)]

    # -- rows ------------------------------------------------------------------------------------------------------

    def write_row(self, table: str, row: Sequence[Any]) -> None:
        """Commit a row to disk, masked of secrets. All tables but `items` are written through this method."""
        with self._writing() as db:
            kept = masked_row(table, row)
            added = db.execute(_inserting(table, row), [*kept, checksum(table, kept)]).rowcount
            if table == "calls" and added:
                self._list_commit(row[0])

    def write_rows(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows of a table, masked of secrets, in one transaction."""
        if not rows:
            return
        with self._writing() as db, db:  # the second one rolls back where a row can't be written
            db.execute("BEGIN")
            kept = [masked_row(table, row) for row in rows]
            db.executemany(_inserting(table, rows[0]), [[*row, checksum(table, row)] for row in kept])

    def _list_commit(self, key: str) -> None:
        """List the key of a reply that was just committed."""
        if self._commits is None:
            self._commits = (self.folder / COMMITS).open("ab", buffering=0)
        self._commits.write(f"{key}\n".encode())

    def rows(self, table: str, key: str) -> list[tuple[Any, ...]]:
        """The rows of `traces`, `verdicts` or `outcomes` with a key, as they were written."""
        return self._whole(table, f"{_KEYS[table]} = ?", key)

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
        known = dict(whole(self.folder, "items", row) for row in self._all("SELECT * FROM items"))
        # Earlier versions wrote contents without what follows the colon.
        changed = [
            identity
            for identity, content in contents.items()
            if known.get(identity, content) not in (content, content.partition(":")[0])
        ]
        if changed:
            more = f", as did {len(changed) - 1} more" if len(changed) > 1 else ""
            raise StoreError(
                f"The id '{changed[0]}' stood for another question, or was graded otherwise, when {self.folder} was "
                f"made{more}.",
                "Give changed questions new ids, or choose another folder with --run. Where the file wasn't changed, "
                "this version reads it otherwise than the one that made the folder.",
            )

    # -- replies ---------------------------------------------------------------------------------------------------

    def reply(self, key: str) -> StoredCall | None:
        """The stored reply to a request, or None."""
        rows = self._whole("calls", "key = ?", key)
        if not rows:
            return None
        call = dict(zip(COLUMNS["calls"], rows[0], strict=True))
        return StoredCall(json.loads(call["response"]), call["seconds"], call["cost"])

    def exchanges(self, keys: Iterable[str]) -> dict[str, Exchange]:
        """The stored calls with these keys; a key that isn't in the store is left out."""
        wanted = list(dict.fromkeys(keys))
        found = {}
        for start in range(0, len(wanted), _BATCH):
            batch = wanted[start : start + _BATCH]
            for row in self._whole("calls", f"key IN ({','.join('?' * len(batch))})", *batch):
                found[row[0]] = Exchange.of_row(row)
        return found

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
            for row in self._whole("calls", "key = ?", key):
                moved = checksum("calls", [aside, *row[1:]])
                db.execute("UPDATE OR IGNORE calls SET key = ?, checksum = ? WHERE key = ?", (aside, moved, key))

    def paid(
        self,
        station: str | None = None,
        cell: str | None = None,
        price_of: PriceOf | None = None,
        first: bool = False,
    ) -> dict[str, dict[str, Any]]:
        """The calls that were really made, by role: calls, tokens, seconds, cost (None where no call has a price).

        Args:
            station: Only calls of this station.
            cell: Only calls for this cell of an experiment.
            price_of: Tells current prices. By default the cost is what was stored with the calls.
            first: Only the first reply to a request, where several were asked for.
        """
        return paid_by_role(self._all, calls_of(station, cell, *(["rollout = 0"] if first else [])), price_of)

    def uncounted(self, station: str | None = None) -> list[tuple[str, str, int, int | None, int, int]]:
        """Calls whose tokens the server didn't count, or not all of them.

        Each is role, model, the request's size in bytes, its `max_tokens`, and what was counted of input and output.

        Args:
            station: Only calls of this station.
        """
        return uncounted_calls(self._all, station)

    # -- traces and verdicts ---------------------------------------------------------------------------------------

    def keep_trace(self, collection: str, position: int, trace: Trace) -> None:
        asked = None if trace.subquestions is None else json.dumps(trace.subquestions)
        said = [trace.lost, storable(trace.detail), storable(trace.reply)]
        self.write_row("traces", [collection, trace.item, trace.sample, position, asked, *said])

    def traces(self, collection: str) -> Iterator[Trace]:
        """The traces of a collection, in the order of items and samples. They are read lazily.

        They are read over a separate connection, so that other threads can write meanwhile.
        """
        self._before_reading("traces", collection)
        query = "SELECT * FROM traces WHERE collection = ? ORDER BY position, sample"
        try:
            with contextlib.closing(connect_readonly(self.folder)) as reader:
                for row in reader.execute(query, (collection,)):
                    yield Trace.of_row(whole(self.folder, "traces", row))
        except FAILURES as error:
            raise explained(self.folder, error, "read") from error

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
        rows = self._whole("verdicts", "screening = ?", screening)
        return {(item, sample): (bool(kept), reason) for _, item, sample, kept, reason, _ in rows}

    # -- outcomes of an evaluation ---------------------------------------------------------------------------------

    def keep_outcome(self, arm: str, key: str, position: int, item: str, record: Mapping[str, Any]) -> None:
        self.write_row("outcomes", [arm, key, item, position, json.dumps(record)])

    def keep_outcomes(self, arm: str, key: str, records: Sequence[tuple[int, str, Mapping[str, Any]]]) -> None:
        """Keep (position, item, record) of several answers in one transaction."""
        self.write_rows(
            "outcomes", [[arm, key, item, position, json.dumps(record)] for position, item, record in records]
        )

    def outcomes(self, arm: str, key: str) -> dict[str, dict[str, Any]]:
        """Records by item, in the order of the test set."""
        self._before_reading("outcomes", key)
        rows = self._whole("outcomes", "arm = ? AND fingerprint = ? ORDER BY position", arm, key)
        return {item: json.loads(record) for _, _, item, _, record in rows}


def masked_row(table: str, row: Sequence[Any]) -> list[Any]:
    """A row as it is stored: masked of secrets but for what finds it, the ids and keys."""
    kept = list(row)
    for columns, hide in ((JSON_COLUMNS, masked_json), (_TEXT, masked)):
        for column in columns.get(table, ()):
            at = COLUMNS[table].index(column)
            if kept[at] is not None:
                kept[at] = hide(kept[at])
    return kept


def _inserting(table: str, row: Sequence[Any]) -> str:
    return f"INSERT OR {_INSERT[table]} INTO {table} VALUES ({','.join('?' * (len(row) + 1))})"
