"""Rows of files as people have them: JSON Lines, JSON arrays, CSV, TSV, Parquet, and folders of Hugging Face's.

CSV and JSON are read by Python's own modules, which change no value and tell where a row stands. Parquet and Arrow are
read by pyarrow and datasets. Nothing that stands in a file is executed.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

from divcon.benchmarks.tasks._json import UTF_16, Form, Format, Row, json_lines_rows, json_rows, opened_text, readable
from divcon.benchmarks.tasks._problems import Problems, TaskError, listed, shown

_NAMES: dict[str, str] = {
    "jsonl": "JSON Lines", "json": "a JSON array", "csv": "CSV", "tsv": "TSV", "parquet": "Parquet",
}  # fmt: skip
_ENDINGS: dict[str, Format] = {**{f".{name}": name for name in get_args(Format)}, ".ndjson": "jsonl", ".tab": "tsv"}
_SEPARATORS = ",;\t|"
_ONCE = 1000  # rows of Parquet and Arrow in memory


# ---- tables


def _table(file: Path, form: Form, problems: Problems, delimiter: str) -> Iterator[Row]:
    """Rows of CSV or TSV (RFC 4180), as text. An empty cell is none."""
    csv.field_size_limit(2**31 - 1)  # Python's limit of 131,072 characters is less than a long passage has
    names: list[str] = []
    number = 0
    with opened_text(file, form, newline="") as stream:
        reader = csv.reader(stream, delimiter=delimiter, skipinitialspace=True, strict=True)
        while True:
            place = f"row {number + 1} (line {reader.line_num + 1})" if names else "the header"
            try:
                cells = next(reader)
            except StopIteration:
                break
            except csv.Error as error:
                problems.add(place, f" is not {_NAMES['csv']}: {error}", "Close its quotes, and double those within.")
                number += bool(names)
                continue
            if not any(cell.strip() for cell in cells):
                continue
            if not names and (said := re.fullmatch(r"sep=(.?)", delimiter.join(cells).strip(" \r\n"))):
                # Excel names the separator in a line of its own above the header.
                if said[1] not in ("", delimiter) and form.delimiter is None:
                    yield from _table(file, replace(form, delimiter=said[1]), problems, said[1])
                    return
                continue
            if not names:
                names = [cell.strip() for cell in cells]
                if (other := _separator(names)) and form.delimiter is None:
                    sets = "task.format=tsv" if other == "\t" else f"\"task.delimiter='{other}'\""
                    told = (
                        f"{file} has one column, '{shown(names[0])}', which seems to be several with {other!r} between."
                    )
                    problems.add_of_all(told, f"Add --set {sets}.")
                    # Whatever else is wrong is said too, as the file is then read.
                    yield from _table(file, replace(form, delimiter=other), problems, other)
                    return
                if twins := [name for name, count in Counter(names).items() if name and count > 1]:
                    told = f"Columns of {file} have one name: {listed(twins)}."
                    problems.add_of_all(told, "Give each a name of its own.")
                continue
            number += 1
            if len(cells) != len(names):
                problem = f" has {len(cells)} cells, and the header has {len(names)}"
                problems.add(place, problem, "Quote cells that hold the separator.")
                continue
            values = {name: cell or None for name, cell in zip(names, cells, strict=True) if name}
            yield Row(place, f"row-{number}", values)
    if names and not number:
        problems.add_of_all(f"{file} has a header and no rows: it has 0 questions.", "Give rows below the header.")


def _separator(names: list[str]) -> str | None:
    """What separates the names of a header that was read as one column; None where it seems to be one."""
    return next((one for one in _SEPARATORS if one in names[0]), None) if len(names) == 1 else None


def _parquet(file: Path, form: Form, problems: Problems) -> Iterator[Row]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise TaskError("Reading Parquet needs the package pyarrow.", "pip install 'divcon[train]'") from error
    with readable(file), _arrow(file), pyarrow.parquet.ParquetFile(file) as table:
        yield from _arrow_rows(table.iter_batches(batch_size=_ONCE))


def _arrow_rows(batches: Iterable[Any]) -> Iterator[Row]:
    """The rows of Arrow tables or batches."""
    number = 0
    for batch in batches:
        short = [field for field in batch.schema if _has_short_floats(field.type)]
        for row in batch.to_pylist():
            number += 1
            row |= {field.name: _as_written(row[field.name], field.type) for field in short}
            yield Row(f"row {number}", f"row-{number}", row)


def _has_short_floats(kind: Any) -> bool:
    """Whether an Arrow type is, or holds, a float of 32 or 16 bits."""
    from pyarrow import types

    inner = [kind.field(at).type for at in range(kind.num_fields)]
    return types.is_float32(kind) or types.is_float16(kind) or any(map(_has_short_floats, inner))


def _as_written(value: Any, kind: Any) -> Any:
    """An Arrow value in Python. A short float as a long one has digits that nobody wrote: 4.1 is 4.099999904632568."""
    import numpy
    from pyarrow import types

    if value is None:
        return None
    if types.is_float32(kind) or types.is_float16(kind):
        return float(str((numpy.float32 if types.is_float32(kind) else numpy.float16)(value)))
    if types.is_struct(kind):
        return {field.name: _as_written(value[field.name], field.type) for field in kind}
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return [_as_written(one, kind.value_type) for one in value]
    return value


@contextmanager
def _arrow(path: Path) -> Iterator[None]:
    """Inside, what pyarrow and datasets raise over a broken file becomes an error that names it."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        said = " ".join(str(error).split())[:200]
        raise TaskError(f"{path} can't be read: {type(error).__name__}: {said}.", "Write it again.") from error


# ---- files and folders

_READERS: dict[str, Callable[[Path, Form, Problems], Iterator[Row]]] = {
    "jsonl": json_lines_rows,
    "json": json_rows,
    "csv": lambda file, form, problems: _table(file, form, problems, form.delimiter or ","),
    "tsv": lambda file, form, problems: _table(file, form, problems, form.delimiter or "\t"),
    "parquet": _parquet,
}


def rows_of(path: Path, problems: Problems, form: Form, wanted: Callable[[str], bool] | None = None) -> Iterator[Row]:
    """The rows of a file, of a folder of files, or of a folder that `save_to_disk` of Hugging Face's datasets wrote.

    Args:
        path: The file or the folder.
        problems: Gets what is wrong with rows, and with single files of a folder.
        form: How the files are written.
        wanted: Which splits, by name; all of them by default. The split of a file is its name up to the first `-`, `_`
            or `.`.

    Raises:
        TaskError: There is nothing to read, or no such split.
    """
    parts = _parts(path)
    chosen = [part for part in parts if wanted is None or wanted(part.split)]
    if not chosen:
        splits = listed(list(dict.fromkeys(part.split for part in parts)))
        raise TaskError(f"{path} has the splits {splits}.", "Check task.test_split.")
    for part in chosen:
        if len(parts) == 1:
            yield from part.read(form, problems)
            continue
        try:
            for row in part.read(form, problems.part(part.name)):
                yield Row(f"{row.place} of {part.name}", f"{part.name}-{row.id}", row.values)
        except TaskError as error:
            problems.add_of_all(error.problem, error.remedy)


def seen_form(path: Path, given: Form | None = None) -> Form:
    """How a file is written where its ending or the usual comma don't say so, by its beginning; a folder's is as usual.

    Args:
        path: The file or the folder.
        given: What is known already; it isn't looked at.

    Raises:
        TaskError: The file can't be read, or is of no known format.
    """
    form = given or Form()
    if path.is_dir():
        return form
    format = form.format or _format_of(path, form, Problems(path, "row"))
    if format in ("csv", "tsv") and form.delimiter is None:
        with opened_text(path, form, newline="") as stream:
            first = next((line for line in stream if line.strip()), "")
        usual = "\t" if format == "tsv" else ","
        other = _separator([first.strip()]) if usual not in first else None
        if other == "\t":
            format = "tsv"
        elif other is not None:
            form = replace(form, delimiter=other)
    return form if format == _by_ending(path) else replace(form, format=cast(Format, format))


class _Part(NamedTuple):
    name: str
    split: str
    read: Callable[[Form, Problems], Iterator[Row]]


def _parts(path: Path) -> list[_Part]:
    if not path.is_dir():
        return [_file(path, path)]
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return _saved(path)
    inside = ((file, file.relative_to(path)) for file in sorted(path.rglob("*")))
    files = [_file(file, name) for file, name in inside if _by_ending(file) and not _is_hidden(name) and file.is_file()]
    if not files:
        raise TaskError(f"The folder {path} holds no file that ends in {listed(list(_ENDINGS))}.", "Check task.path.")
    return files


def _is_hidden(name: Path) -> bool:
    """Whether a file of a folder is no data: hidden, or the description of a data set."""
    return any(part.startswith(".") for part in name.parts) or name.name.startswith("dataset_info")


def _file(file: Path, name: Path) -> _Part:
    def read(form: Form, problems: Problems) -> Iterator[Row]:
        return _READERS[form.format or _format_of(file, form, problems)](file, form, problems)

    return _Part(name.as_posix(), re.split(r"[-_.]", name.name)[0], read)


def _saved(path: Path) -> list[_Part]:
    """The splits of a folder that `save_to_disk` wrote. Their values are read as Arrow has them, undecoded."""
    try:
        from datasets import DatasetDict, load_from_disk
    except ImportError as error:
        raise TaskError("Reading a saved data set needs the package datasets.", "pip install 'divcon[train]'") from (
            error
        )
    with readable(path), _arrow(path):
        found = load_from_disk(str(path))

    def part(name: str, data: Any) -> _Part:
        def read(form: Form, problems: Problems) -> Iterator[Row]:
            with readable(path), _arrow(path):
                yield from _arrow_rows(data.with_format("arrow").iter(_ONCE))

        return _Part(name, name, read)

    splits = found if isinstance(found, DatasetDict) else {str(found.split or path.name): found}
    return [part(name, data) for name, data in splits.items()]


def _by_ending(file: Path) -> Format | None:
    return _ENDINGS.get(Path(file.name.lower().removesuffix(".gz")).suffix)


def _format_of(file: Path, form: Form, problems: Problems) -> str:
    """The format of a file by its beginning where that tells, or by its ending. Where they differ, that is a problem.

    Raises:
        TaskError: It can't be told.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    with readable(file), opened(file, "rb") as stream:
        begins = stream.read(4096)
    said, seems = _by_ending(file), _seems(begins)
    if begins.startswith(b"PK"):
        raise TaskError(f"{file} is an Excel workbook or another zip file.", "Save it as CSV.")
    if said is None and not seems:
        raise TaskError(f"{file} is of no known format.", f"Give one that ends in {listed(list(_ENDINGS))}.")
    if b"\0" in begins and seems != "parquet" and not begins.startswith(UTF_16) and form.encoding is None:
        raise TaskError(
            f"{file} holds null characters, as UTF-16 has and UTF-8 has not.",
            "Save it as UTF-8, or try --set task.encoding=utf-16-le.",
        )
    # A `.json` file may hold JSON Lines, and what separates the cells of a table is looked at when it is read.
    same_kind = {said, seems} <= {"csv", "tsv"} or (said, seems) == ("json", "jsonl")
    if said == "parquet" and begins and not seems:
        raise TaskError(f"{file} is no Parquet.", "Write it again.")
    if seems and seems != said and not same_kind and (said or seems in ("csv", "tsv")):
        ends = f"ends like {_NAMES[said]}" if said else "has an ending that tells no format"
        remedy = f"Rename it, or add --set task.format={seems}."
        problems.add_of_all(f"{file} {ends} and begins like {_NAMES[seems]}.", remedy)
        return seems
    return str(said or seems)


def _seems(begins: bytes) -> str:
    """The format that a file's beginning looks like; empty where it looks like none."""
    if begins.startswith(b"PAR1"):
        return "parquet"
    line = begins.decode("utf-8-sig", "ignore").lstrip().partition("\n")[0]
    if line[:1] in ("{", "["):
        return "jsonl" if line[0] == "{" else "json"
    return "tsv" if "\t" in line else "csv" if re.search(r"[,;|]", line) else ""
