"""Anybody's questions: the rows of a file as items, and which columns to take where the data names them otherwise."""

from __future__ import annotations

import ast
import json
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from divcon.benchmarks._graders import KINDS
from divcon.benchmarks.tasks._files import written_value
from divcon.benchmarks.tasks._json import Form, Row
from divcon.benchmarks.tasks._problems import Problems, TaskError, listed, shown
from divcon.benchmarks.tasks._rows import rows_of
from divcon.benchmarks.tasks._task import Fields
from divcon.programs import Item
from divcon.signatures import Subquestions, SubquestionsError

_LOOKED_AT = 200  # rows from which the columns are known
_NEEDED = ("question", "answer")
# What people call them, the likeliest first.
_NAMES = {
    "question": ["question", "input", "prompt", "problem", "query", "questiontext", "instruction", "text"],
    "answer": ["answer", "output", "target", "label", "gold", "goldanswer", "finalanswer", "expected", "solution",
               "answers", "response", "completion", "result"],
    "subquestions": ["subquestions", "steps", "decomposition", "questiondecomposition", "subqs"],
    "context": ["context", "passage", "paragraph", "document", "background"],
    "id": ["id", "uid", "qid", "questionid", "key"],
}  # fmt: skip
_COUNTS_ROWS = re.compile(r"id|.*[._ -]id|[uq]id|idx|.*index|nr|no|number|row|unnamed.*", re.IGNORECASE)


def file_items(
    path: Path, fields: Fields | None = None, form: Form | None = None, wanted: Callable[[str], bool] | None = None
) -> Iterator[Item]:
    """Anybody's questions. The rows are read as they are asked for, so that most files may be larger than memory.

    Args:
        path: A file or a folder; see `rows_of`.
        fields: The columns; by default those with the names of `Fields`.
        form: How the files are written; by default as their endings say.
        wanted: Which splits of a folder, by name; all of them by default.

    Raises:
        TaskError: A file or a row can't be used. All problems are said, those of rows by kind with the first places,
            once all rows are read.
    """
    form, names = form or Form(), (fields or Fields()).model_dump()
    problems = Problems(path, "line" if ".jsonl" in path.suffixes else "row")
    head = _head(path, form, wanted)
    lacking = _lacking(head, names)
    missing = _missing(path, head, names, lacking) if lacking else None
    del head
    seen: dict[str, str] = {}
    empty = True
    try:
        for row in rows_of(path, problems, form, wanted):
            empty = False
            values = {ours: _at(row.values, theirs) for ours, theirs in names.items() if theirs is not None}
            # pandas writes NaN where a cell is empty.
            values |= {ours: None for ours, value in values.items() if _is_nan(value) and ours not in _NEEDED}
            identity = row.id if values.get("id") is None else written_value(values["id"])
            wrong = _wrong(values, names, identity, seen, lacking)
            if wrong is not None:
                problems.add(row.place, *wrong)
                continue
            assert identity is not None
            seen[identity] = row.place
            if not lacking:
                yield _item(identity, values)
    except TaskError as error:
        problems.add_of_all(error.problem, error.remedy)
    if missing:
        problems.add_of_all(*missing)
    if empty and not problems:
        problems.add_of_all(f"{path} is empty: it has 0 questions.", "Check task.path.")
    problems.require_none()


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _item(identity: str, values: Mapping[str, Any]) -> Item:
    return Item(
        id=identity,
        question=written_value(values["question"]) or "",
        answer=written_value(values["answer"]) or "",
        context=(values.get("context") or "").strip() or None,
        aliases=_texts(values.get("aliases")) or (),
        subquestions=_subquestions(values.get("subquestions")) or (),
        family=written_value(values.get("family")) or "",
        grader=values.get("grader") or "",
    )


def _wrong(
    values: Mapping[str, Any],
    names: Mapping[str, str],
    identity: str | None,
    seen: Mapping[str, str],
    lacking: Sequence[str],
) -> tuple[str, str] | None:
    """The problem of a row and its remedy; None for a row that is as it should be.

    Args:
        values: Of the row, by our names.
        names: The columns, by our names.
        identity: The row's id; None where it is empty.
        seen: The places of earlier rows by id.
        lacking: Columns that no row has, which is said elsewhere.
    """
    for field in _NEEDED:
        value = values.get(field)
        if written_value(value) is None and field not in lacking:
            name = shown(names[field])
            if value in (None, "") or (isinstance(value, str) and not value.strip()):
                needed = " and ".join(f"'{shown(names[one])}'" for one in _NEEDED)
                return f" has no '{name}'", f"Every row needs {needed}."
            return f": '{name}' is neither text nor a number", "Write true and false as yes and no, and lists as text."
    for field in ("id", "family"):
        if not isinstance(values.get(field), (str, type(None))) and written_value(values[field]) is None:
            return f": '{shown(names[field])}' is neither text nor a number", "Write it as text."
    if identity is None:
        return f" has an empty '{shown(names['id'])}'", "Give every row its own id."
    if identity in seen:
        return f" has the id '{shown(identity)}' of {seen[identity]}", "Give every row its own id."
    if _texts(values.get("aliases")) is None:
        problem = f": '{shown(names['aliases'])}' is not a list of text, or holds an empty one"
        return problem, "Write a JSON list of strings."
    if _subquestions(values.get("subquestions")) is None:
        problem = f": '{shown(names['subquestions'])}' is not a list of text that reads as subquestions"
        if not isinstance(values["subquestions"], str):
            problem = f": '{shown(names['subquestions'])}' is not a list of text, or holds an empty one"
        return problem, "Write a JSON list of strings."
    if not isinstance(values.get("context", ""), (str, type(None))):
        return f": '{shown(names['context'])}' is not text", "Join the passages with blank lines."
    grader = values.get("grader")
    if grader not in (None, "", *KINDS):
        named = shown(grader) if isinstance(grader, str) else type(grader).__name__
        return f" names the grader '{named}', which there isn't", f"Take one of {', '.join(KINDS)}."
    return None


def _texts(value: Any) -> tuple[str, ...] | None:
    """A list of text, which may be written as JSON or Python in one cell; None where it is anything else."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _written_list(value)
    if value is None:
        return ()
    is_list = isinstance(value, list) and all(isinstance(one, str) and one.strip() for one in value)
    return tuple(value) if is_list else None


def _written_list(text: str) -> Any:
    """The value of a list in JSON or, as pandas writes it, in Python; the text itself where it is neither."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    # NumPy writes no commas, and Python would join texts without a comma between them into one.
    if re.search(r"""['"]\s+['"]""", text):
        return text
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text


def _subquestions(value: Any) -> tuple[str, ...] | None:
    """Reference subquestions: a list of text, or text that is read as a reply is; None where they can't be read."""
    if (listed := _texts(value)) is not None or not isinstance(value, str):
        return listed
    try:
        return tuple(Subquestions.read(value)) if value.strip() else ()
    except SubquestionsError:
        return None


# ---- columns

_ABSENT = object()


def _at(row: Mapping[str, Any], path: str, absent: Any = None) -> Any:
    """The value of a column, or of a dotted path into nested values."""
    if path in row:
        value: Any = row[path]
    else:
        value = row
        for part in path.split("."):
            if isinstance(value, Mapping) and part in value:
                value = value[part]
            elif isinstance(value, list) and re.fullmatch(r"[0-9]{1,6}", part) and int(part) < len(value):
                value = value[int(part)]
            else:
                return absent
    return value


def _head(path: Path, form: Form, wanted: Callable[[str], bool] | None) -> list[Row]:
    """The first rows; what is wrong with them is said when all are read."""
    try:
        return list(islice(rows_of(path, Problems(path, "row"), form, wanted), _LOOKED_AT))
    except TaskError:
        return []


def _lacking(head: Sequence[Row], names: Mapping[str, str | None]) -> list[str]:
    """Our names of the columns that are needed, or named in `task.fields`, and that no row has."""
    wanted = {ours: theirs for ours, theirs in names.items() if theirs and (ours in _NEEDED or theirs != ours)}
    return [
        ours
        for ours, theirs in wanted.items()
        if head and all(_at(row.values, theirs, _ABSENT) is _ABSENT for row in head)
    ]


def _missing(path: Path, head: Sequence[Row], names: Mapping[str, str], lacking: Sequence[str]) -> tuple[str, str]:
    """Which columns no row has, with those that are there, and the settings that would work. They are guessed from the
    columns' names, and where no name tells, from their values."""
    columns: dict[str, list[Any]] = {}
    for row in head:
        for name, value in _flat(row.values):
            columns.setdefault(name, []).append(value)
    guessed = _guessed(columns, names, lacking, len(head))
    where = f"The first {_LOOKED_AT} rows of {path} have" if len(head) == _LOOKED_AT else f"{path} has"
    wanted = " and ".join(f"no field '{shown(names[ours])}'" for ours in lacking)
    problem = f"{where} {wanted}; its fields are {listed(list(columns)) or 'none'}."
    sets = " ".join(f"--set {_setting(ours, guessed.get(ours))}" for ours in lacking)
    return problem, f"Add {sets}{' (guessed; look at the data)' if guessed else ''}."


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The columns and their values; nested ones by their dotted paths."""
    for name, value in values.items():
        if isinstance(value, Mapping) and before.count(".") < 3:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _guessed(
    columns: Mapping[str, Sequence[Any]], names: Mapping[str, str], lacking: Sequence[str], rows: int
) -> dict[str, str]:
    """The likely column of each that is lacking, by our names."""
    taken = {theirs for ours, theirs in names.items() if ours not in lacking}
    texts = {
        name: [text for one in values if (text := written_value(one)) is not None] for name, values in columns.items()
    }
    found: dict[str, str] = {}
    for ours in lacking:
        known = _NAMES.get(ours, [ours])
        plain = {name: re.sub(r"[\W_]", "", name.rpartition(".")[2].casefold()) for name in columns}
        rank = {name: known.index(one) if one in known else len(known) for name, one in plain.items()}
        usable = [name for name in columns if ours not in _NEEDED or 2 * len(texts[name]) > rows]
        fits = [name for name in usable if plain[name] in known or plain[name].endswith(ours)]
        if free := [name for name in fits if name not in taken and name not in found.values()]:
            found[ours] = min(free, key=lambda name: (rank[name], name.count(".")))
    for ours in _NEEDED:
        if ours not in lacking or ours in found:
            continue
        gone = {*taken, *found.values()}
        whole = {name: texts[name] for name in columns if len(texts[name]) == rows and name not in gone}
        whole = {name: said for name, said in whole.items() if not _COUNTS_ROWS.fullmatch(name)}
        if whole:
            found[ours] = (_likely_question if ours == "question" else _likely_answer)(whole)
    return found


def _likely_question(columns: Mapping[str, Sequence[str]]) -> str:
    """The column with the most question marks at the end, or else with the longest text."""
    asked = {name: sum(text.endswith("?") for text in texts) for name, texts in columns.items()}
    return max(columns, key=lambda name: (asked[name], _mean(columns[name])))


def _likely_answer(columns: Mapping[str, Sequence[str]]) -> str:
    """The last column of short text, where the shortest is."""
    return min(reversed(list(columns)), key=lambda name: _mean(columns[name]))


def _mean(texts: Sequence[str]) -> float:
    return sum(map(len, texts)) / len(texts)


def _setting(ours: str, column: str | None) -> str:
    """`task.fields.NAME=COLUMN`, as a shell and YAML take it."""
    if column is None:
        return f"task.fields.{ours}=COLUMN"
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", column) and not re.fullmatch(
        r"yes|no|y|n|on|off|true|false|null", column, re.IGNORECASE
    )
    return shlex.quote(f"task.fields.{ours}={column if plain else json.dumps(column)}")
