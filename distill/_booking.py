"""The booking of calls: the station that makes them, and the cell of an experiment that they are made for."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

_station: contextvars.ContextVar[str] = contextvars.ContextVar("divcon_station", default="")
_cell: contextvars.ContextVar[str] = contextvars.ContextVar("divcon_cell", default="")


@contextlib.contextmanager
def at_station(name: str) -> Iterator[None]:
    """Record the calls made inside the block under a station."""
    token = _station.set(name)
    try:
        yield
    finally:
        _station.reset(token)


@contextlib.contextmanager
def booked_to(cell: str) -> Iterator[None]:
    """Record the calls made inside the block, at any station, under a cell of an experiment."""
    token = _cell.set(cell)
    try:
        yield
    finally:
        _cell.reset(token)


def booking() -> tuple[str, str]:
    """The station and the cell that calls are recorded under in this context."""
    return _station.get(), _cell.get()


def booked_under() -> str:
    """The station of this context, with the cell where there is one, as the store has it."""
    station, cell = booking()
    return f"{station}@{cell}" if cell else station
