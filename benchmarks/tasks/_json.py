"""Text and JSON of files: strict, and with the place of whatever is wrong."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TextIO

from divcon.benchmarks.tasks._problems import Problems, TaskError, listed, shown, unwritable

Format = Literal["jsonl", "json", "csv", "tsv", "parquet"]
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # its marks
_AS_OBJECTS = 'Write one object for each row, such as {"question": "...", "answer": "..."}.'
_SPACE = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class Form:
    """How files of rows are written, where it isn't as usual.

    Attributes:
        format: By default the file's ending and its first characters tell.
        encoding: Of text; UTF-8 by default.
        delimiter: What separates the cells of CSV; a comma by default.
    """

    format: Format | None = None
    encoding: str | None = None
    delimiter: str | None = None


class Row(NamedTuple):
    """A row of a file.

    Attributes:
        place: For messages: `line 3`, `row 2 (line 3)` or `row 2 of train.csv`.
        id: Names it where the data has no id.
        values: Its values by the names of their columns.
    """

    place: str
    id: str
    values: Mapping[str, Any]


@contextmanager
def readable(file: Path, form: Form | None = None, key: str = "task.path") -> Iterator[None]:
    """Inside, what a broken file raises becomes an error that names it.

    Args:
        file: The file.
        form: How it is read, where `task.encoding` says so.
        key: Its key in the pipeline file.

    Raises:
        TaskError: The file is missing, no text, or no whole gzip file; the file is named.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TaskError(f"The data file {file} is no whole gzip file: {error}.", "Fetch it again.") from error
    except OSError as error:
        raise TaskError(f"The data file {file} can't be read: {error.strerror or error}.", f"Check {key}.") from error
    except UnicodeError as error:
        given = (form and form.encoding) or "UTF-8"
        remedy = f"Save it as UTF-8{f', or try --set task.encoding={_other_encoding(error, given)}' if form else ''}."
        raise TaskError(f"The data file {file} is not {given}: {error}.", remedy) from error


def _other_encoding(error: UnicodeError, tried: str) -> str:
    """An encoding to try: UTF-16 where the file begins with its mark, else what Windows writes in the West."""
    given = bytes(error.object) if isinstance(error, UnicodeDecodeError) else b""
    if given.startswith(UTF_16):
        return "utf-16"
    return "latin-1" if tried == "cp1252" else "cp1252"


@contextmanager
def opened_text(file: Path, form: Form | None = None, newline: str | None = None) -> Iterator[TextIO]:
    """A file as text; `.gz` is unpacked, and a mark at its beginning is left out.

    Raises:
        TaskError: See `readable`.
    """
    given = (form and form.encoding) or "utf-8-sig"
    encoding = "utf-8-sig" if given.lower().replace("_", "-") in ("utf-8", "utf8") else given
    opened = gzip.open if file.suffix == ".gz" else open
    with readable(file, form), opened(file, "rt", encoding=encoding, newline=newline) as stream:
        yield stream


# ---- JSON


def _no_value(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits[:40]} is too large for a number")
    return value


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        twin = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key '{shown(twin)}' stands twice")
    return row


_STRICT = json.JSONDecoder(parse_constant=_no_value, parse_float=_finite, object_pairs_hook=_without_twins)
_LENIENT = json.JSONDecoder(parse_int=str)  # only finds where a value ends


def strict_json(text: str) -> Any:
    """The value of a JSON document.

    Raises:
        ValueError: It is no JSON. So are NaN, a number over what a float can be, a key that stands twice, and half of a
            character, with all of which Python would go on.
    """
    value, end = _strict_value(text, _after_space(text, 0))
    if _after_space(text, end) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    return value


def _strict_value(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at a place, and where it ends; see `strict_json`."""
    try:
        value, end = _STRICT.raw_decode(text, start)
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error
    # Half of a character can only come from an escape, since the file itself is UTF-8.
    if "\\ud" in text[start:end].lower() and unwritable(json.dumps(value, ensure_ascii=False)):
        raise ValueError("it holds half of a character (a lone surrogate)")
    return value, end


def _after_space(text: str, start: int) -> int:
    found = _SPACE.match(text, start)
    return found.end() if found else start


def read_json_lines(
    file: Path, problems: Problems | None = None, form: Form | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that isn't blank.

    Args:
        file: JSON Lines; `.gz` is unpacked.
        problems: Gets the lines that are no JSON objects; by default they are an error once all lines are read.
        form: Its encoding.

    Raises:
        TaskError: The file can't be read, or a line is no JSON object; the first lines are named.
    """
    found = Problems(file, "line") if problems is None else problems
    with opened_text(file, form, newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = strict_json(line)
            except ValueError as error:
                found.add(f"line {number}", f" is not JSON: {error}", "Correct that line.")
                continue
            if not isinstance(row, dict):
                found.add(f"line {number}", " is no JSON object", "Write one object a line.")
                continue
            yield number, row
    if problems is None:
        found.require_none()


def json_lines_rows(file: Path, form: Form, problems: Problems) -> Iterator[Row]:
    for number, row in read_json_lines(file, problems, form):
        yield Row(f"line {number}", f"line-{number}", row)


def json_rows(file: Path, form: Form, problems: Problems) -> Iterator[Row]:
    """Rows of a `.json` file: an array of objects, an object that holds one, or JSON Lines."""
    with opened_text(file, form) as stream:
        text = stream.read()
    start = _after_space(text, 0)
    if text.startswith("[", start):
        yield from _elements(text, start, problems)
        return
    try:
        first = strict_json(text[start:].partition("\n")[0])
    except ValueError:
        first = None
    try:
        whole = strict_json(text)
    except ValueError as error:
        if isinstance(first, dict):
            yield from json_lines_rows(file, form, problems)
            return
        if start < len(text):
            lines = ", or add --set task.format=jsonl if it is JSON Lines" if "\n{" in text else ""
            raise TaskError(f"{file} is no JSON document: {error}.", f"Correct it{lines}.") from error
        return
    held = [
        value
        for value in (whole.values() if isinstance(whole, dict) else ())
        if value and isinstance(value, list) and all(isinstance(row, dict) for row in value)
    ]
    if len(held) == 1:
        yield from (Row(f"row {number}", f"row-{number}", row) for number, row in enumerate(held[0], 1))
    elif isinstance(first, dict) and not all(isinstance(value, (dict, list)) for value in first.values()):
        yield from json_lines_rows(file, form, problems)
    else:
        found = f"an object with {listed(list(whole))}" if isinstance(whole, dict) else "one value"
        raise TaskError(
            f"{file} holds {found}, and no list of rows.",
            "Write an array of objects, one for each question; pandas does so with orient='records'.",
        )


def _elements(text: str, start: int, problems: Problems) -> Iterator[Row]:
    """The objects of a JSON array. One that is no row doesn't keep those behind it from being read."""
    at, number, line, counted = _after_space(text, start + 1), 0, 1, 0
    if text.startswith("]", at):
        return
    while True:
        number += 1
        line, counted = line + text.count("\n", counted, at), at
        place = f"row {number} (line {line})"
        try:
            row, at = _strict_value(text, at)
            if isinstance(row, dict):
                yield Row(place, f"row-{number}", row)
            else:
                problems.add(place, " is no JSON object", _AS_OBJECTS)
        except ValueError as error:
            problems.add(place, f" is not JSON: {error}", "Correct that row.")
            try:
                _, at = _LENIENT.raw_decode(text, at)
            except (ValueError, RecursionError):
                return  # where the next row begins can't be told
        at = _after_space(text, at)
        if not text.startswith(",", at):
            break
        at = _after_space(text, at + 1)
    if not text.startswith("]", at) or _after_space(text, at + 1) < len(text):
        problems.add(place, " isn't followed by a comma or by the end of the array", "Correct the brackets and commas.")
