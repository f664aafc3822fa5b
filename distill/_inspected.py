"""What a run folder holds on one question: plans with their verdicts, answers by program, and the calls made for it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divcon.distill._database import DATABASE, FAILURES, connect_readonly, explained, no_run_folder, upgrade, whole
from divcon.distill._stored import Exchange, Trace


@dataclass(frozen=True)
class Judged:
    """A verdict of a screening.

    Attributes:
        screening: The digest of the screening's key.
        kept: Whether the plan was kept.
        reason: Why, in a word.
        detail: Why, in words; None where there is nothing to add.
    """

    screening: str
    kept: bool
    reason: str
    detail: str | None


@dataclass(frozen=True)
class Booked:
    """A call, and what it was booked under.

    Attributes:
        key: The key of its reply.
        station: The station, with the cell of an experiment behind `@`.
        exchange: What was asked, and the reply.
    """

    key: str
    station: str
    exchange: Exchange


@dataclass(frozen=True)
class Inspected:
    """What a run folder holds on one question.

    Attributes:
        plans: The collected plans, with their verdicts.
        outcomes: The latest outcome of each program, by the program's name.
        calls: The calls whose prompts hold the question, and those that outcomes name, in the order of time.
    """

    plans: tuple[tuple[Trace, tuple[Judged, ...]], ...]
    outcomes: Mapping[str, dict[str, Any]]
    calls: tuple[Booked, ...]


def inspect_question(folder: Path, item: str, text: str) -> Inspected:
    """What a run folder holds on one question. Nothing is written, so another process may work on the folder.

    The store of an earlier version is upgraded first.

    Args:
        folder: The run folder.
        item: The question's id; empty where it isn't known.
        text: The question; empty where it isn't known.

    Raises:
        StoreError: The folder has no store, or it can't be read.
    """
    with _reading(folder) as read:
        verdicts = read("verdicts", "item = ?", item)
        plans = []
        for trace in map(Trace.of_row, read("traces", "item = ? ORDER BY sample", item)):
            plans.append((trace, tuple(Judged(v[0], bool(v[3]), v[4], v[5]) for v in verdicts if v[2] == trace.sample)))
        outcomes: dict[str, dict[str, Any]] = {}
        for arm, _, _, _, record in read("outcomes", "item = ?", item):
            found = json.loads(record)
            if arm not in outcomes or found.get("started", 0.0) >= outcomes[arm].get("started", 0.0):
                outcomes[arm] = found
        named = [key for record in outcomes.values() for key in record.get("calls", ())]
        rows = read("calls", "instr(request, ?) > 0", json.dumps(text)[1:-1]) if text else []
        known = {row[0] for row in rows}
        for key in dict.fromkeys(named):
            rows += [] if key in known else read("calls", "key = ?", key)
    rows.sort(key=lambda row: row[-1])
    return Inspected(tuple(plans), outcomes, tuple(map(_booked, rows)))


def prompt_of(exchange: Exchange) -> Iterator[tuple[str, str]]:
    """The messages of a call: who speaks, and the text."""
    if system := exchange.request.get("system"):
        yield "system", system if isinstance(system, str) else _text(system)
    for message in exchange.request.get("messages") or ():
        yield message.get("role", ""), _text(message.get("parts"))


def reply_of(exchange: Exchange) -> str:
    """The reply of a call as the model wrote it."""
    return _text((exchange.response.get("message") or {}).get("parts"))


def _text(parts: Any) -> str:
    """The text of a message, with thoughts and other parts named."""
    if isinstance(parts, str):
        return parts
    found = [part for part in parts or () if isinstance(part, Mapping)]
    return "\n".join(part.get("text") or f"[{part.get('type', 'part')}]" for part in found)


def items_of(folder: Path) -> list[str]:
    """The ids of the questions that a run folder knows.

    Raises:
        StoreError: See `inspect_question`.
    """
    with _reading(folder) as read:
        return [row[0] for row in read("items", "1 ORDER BY id")]


def _booked(row: Sequence[Any]) -> Booked:
    key, _, station, *_ = row
    return Booked(key, station, Exchange.of_row(row))


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[Any]:
    """A function that reads whole rows of a table, in one consistent state of the store."""
    if not (folder / DATABASE).is_file():
        raise no_run_folder(folder)
    try:
        upgrade(folder)
        with contextlib.closing(connect_readonly(folder)) as db:
            db.execute("BEGIN")

            def read(table: str, where: str, *values: Any) -> list[tuple[Any, ...]]:
                return [whole(folder, table, row) for row in _rows(db, table, where, values)]

            yield read
    except FAILURES as error:
        raise explained(folder, error, "read") from error


def _rows(db: sqlite3.Connection, table: str, where: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    return db.execute(f"SELECT * FROM {table} WHERE {where}", values).fetchall()
