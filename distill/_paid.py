"""What was paid: the sums of a run store's calls, and the calls that no server counted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from divcon.programs import Meter, PriceOf, Usage

Ask = Callable[..., list[Any]]  # asks the store: a query, and its values
Where = tuple[str, Sequence[str]]  # the condition of a query, and its values


def calls_of(station: str | None, cell: str | None, *more: str) -> Where:
    """The condition of a query for the calls of a station and of an experiment's cell, and its values."""
    where, values = [*more], []
    if station is not None:
        where.append("(station = ? OR station LIKE ? || '@%')")
        values += [station, station]
    if cell is not None:
        where.append("substr(station, instr(station, '@') + 1) = ? AND instr(station, '@') > 0")
        values.append(cell)
    return ("WHERE " + " AND ".join(where) if where else ""), values


def paid_by_role(ask: Ask, where: Where, price_of: PriceOf | None) -> dict[str, dict[str, Any]]:
    """See `RunStore.paid`."""
    condition, values = where
    rows = ask(
        "SELECT role, model, COUNT(*), SUM(input_tokens), SUM(output_tokens), SUM(cached_tokens), SUM(seconds), "
        "SUM(cost), SUM(cost IS NULL), SUM(input_tokens IS NULL OR output_tokens IS NULL) "
        f"FROM calls {condition} GROUP BY role, model",
        *values,
    )
    totals: dict[str, Usage] = {}
    for role, model, calls, read, written, cached, seconds, cost, unpriced, unknown in rows:
        used = Usage(calls, 0, read or 0, cached or 0, written or 0, seconds, cost or 0.0, unpriced, unknown)
        price = price_of(role, model) if price_of is not None else None
        totals.setdefault(role, Usage()).add(Meter(price).repriced(used))
    found = {}
    for role, total in totals.items():
        spent = total.as_dict()
        del spent["cached_calls"], spent["cached_tokens"], spent["cut_off_calls"]
        found[role] = spent
    return found


def uncounted_calls(ask: Ask, station: str | None) -> list[Any]:
    """See `RunStore.uncounted`."""
    condition, values = calls_of(station, None, "(input_tokens IS NULL OR output_tokens IS NULL)")
    return ask(
        "SELECT role, model, LENGTH(CAST(request AS BLOB)), json_extract(request, '$.config.max_tokens'), "
        f"COALESCE(input_tokens, 0), COALESCE(output_tokens, 0) FROM calls {condition}",
        *values,
    )
