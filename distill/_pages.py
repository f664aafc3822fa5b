"""Records read straight from the pages of a SQLite file and its WAL, whatever else in them is damaged.

SQLite refuses a file whose first bytes are wrong, and stops at the first page that is. The other pages still hold whole
records, and the checksum that divcon stores in every row tells which they are.
The format is described at https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

Value = str | int | float | bytes | None

_LEAF, _INTERIOR = 0x0A, 0x02  # of index b-trees, which tables WITHOUT ROWID are stored as
_PAGE_SIZES = tuple(2**power for power in range(9, 17))
_USUAL = 4096  # bytes in a page, where the header doesn't tell
_WAL_HEADER, _FRAME_HEADER = 32, 24
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # bytes, by serial type


def records(file: Path, wal: Path) -> Iterator[tuple[Value, ...]]:
    """The records of all tables WITHOUT ROWID and of all indexes.

    A record may come several times, also in an earlier state; the latest state comes last. Texts that aren't UTF-8
    have surrogates in place of their wrong bytes.

    Args:
        file: The database; it may be missing.
        wal: Its WAL; it may be missing.
    """
    size = _page_size(file, wal)
    pages = _Pages(file, size)
    for number in range(1, pages.count + 1):
        yield from _records_of(pages.page(number), pages.page)
    for changed in _transactions(wal, size):
        pages.changed.update(changed)
        for page in changed.values():
            yield from _records_of(page, pages.page)


class _Pages:
    """The pages of a database, with those of its WAL in place of older ones."""

    def __init__(self, file: Path, size: int) -> None:
        self._file = file
        self._size = size
        self.changed: dict[int, bytes] = {}
        self.count = -(-file.stat().st_size // size) if file.is_file() else 0

    def page(self, number: int) -> bytes:
        """A page, from 1. The last page of a file that was cut is filled with zeros."""
        if number in self.changed:
            return self.changed[number]
        if not 1 <= number <= self.count:
            raise IndexError(f"There is no page {number}.")
        with self._file.open("rb") as stream:
            stream.seek((number - 1) * self._size)
            return stream.read(self._size).ljust(self._size, b"\0")


def _page_size(file: Path, wal: Path) -> int:
    """The bytes in a page, from the header of the database or of the WAL."""
    for source, at, form in ((file, 16, ">H"), (wal, 8, ">I")):
        if source.is_file():
            with source.open("rb") as stream:
                stream.seek(at)
                told = stream.read(struct.calcsize(form))
            if len(told) == struct.calcsize(form) and (size := struct.unpack(form, told)[0]) in _PAGE_SIZES:
                return int(size)
    return _USUAL


def _transactions(wal: Path, size: int) -> Iterator[dict[int, bytes]]:
    """The changed pages of each transaction in a WAL. Frames of an earlier use of the WAL come first."""
    if not wal.is_file():
        return
    with wal.open("rb") as stream:
        salts = stream.read(_WAL_HEADER)[16:24]
        for current in (False, True):
            stream.seek(_WAL_HEADER)
            changed: dict[int, bytes] = {}
            while len(frame := stream.read(_FRAME_HEADER + size)) == _FRAME_HEADER + size:
                if (frame[8:16] == salts) is not current:
                    continue
                number, ends = struct.unpack(">II", frame[:8])
                changed[number] = frame[_FRAME_HEADER:]
                if ends:  # the last frame of a transaction says how many pages the database has after it
                    yield changed
                    changed = {}
            yield changed


def _records_of(page: bytes, page_of: Callable[[int], bytes]) -> Iterator[tuple[Value, ...]]:
    """The whole records of a page."""
    if page[0] not in (_LEAF, _INTERIOR):
        return
    leaf = page[0] == _LEAF
    (cells,) = struct.unpack(">H", page[3:5])
    begin = 8 if leaf else 12
    for at in range(begin, min(begin + 2 * cells, len(page) - 1), 2):
        (start,) = struct.unpack(">H", page[at : at + 2])
        try:
            yield _record(_payload(page, start if leaf else start + 4, page_of))
        except (IndexError, struct.error, ValueError):
            continue  # the cell is damaged


def _payload(page: bytes, at: int, page_of: Callable[[int], bytes]) -> bytes:
    """The bytes of a record, also of one that goes on in overflow pages."""
    length, at = _varint(page, at)
    usable = len(page)
    most = (usable - 12) * 64 // 255 - 23
    here = length
    if length > most:
        least = (usable - 12) * 32 // 255 - 23
        here = least + (length - least) % (usable - 4)
        here = here if here <= most else least
    found = bytearray(page[at : at + here])
    (following,) = struct.unpack(">I", page[at + here : at + here + 4]) if here < length else (0,)
    visited = set()
    while len(found) < length:
        if following in visited:
            raise ValueError(f"Page {following} leads back to itself.")
        visited.add(following)
        overflow = page_of(following)
        (following,) = struct.unpack(">I", overflow[:4])
        found += overflow[4 : 4 + length - len(found)]
    return bytes(found)


def _record(payload: bytes) -> tuple[Value, ...]:
    header, at = _varint(payload, 0)
    kinds = []
    while at < header:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    values = []
    for kind in kinds:
        value, at = _value(payload, at, kind)
        values.append(value)
    return tuple(values)


def _value(payload: bytes, at: int, kind: int) -> tuple[Value, int]:
    """A value of a serial type, and where the next one begins."""
    if kind in (0, 8, 9):
        return (None if kind == 0 else kind - 8), at
    if kind in (10, 11):
        raise ValueError(f"There is no serial type {kind}.")
    size = _INTEGERS.get(kind, 8 if kind == 7 else (kind - 12) // 2)
    data = payload[at : at + size]
    if len(data) < size:
        raise IndexError("The record is cut.")
    if kind == 7:
        return struct.unpack(">d", data)[0], at + size
    if kind in _INTEGERS:
        return int.from_bytes(data, "big", signed=True), at + size
    return (data.decode("utf-8", "surrogateescape") if kind % 2 else data), at + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to nine bytes, and where the next one begins."""
    value = 0
    for offset in range(8):
        byte = data[at + offset]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + offset + 1
    return value << 8 | data[at + 8], at + 9
