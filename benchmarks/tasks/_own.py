"""Anybody's questions: the rows of a file as items, and which columns to take where the data names them otherwise."""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from divcon.benchmarks._graders import KINDS
from divcon.benchmarks.tasks._columns import (
    NEEDED,
    about_empty,
    about_missing,
    first_rows,
    lacking_columns,
    value_at,
)
from divcon.benchmarks.tasks._files import written_value
from divcon.benchmarks.tasks._json import Form
from divcon.benchmarks.tasks._problems import Problems, TaskError, shown
from divcon.benchmarks.tasks._rows import rows_of
from divcon.benchmarks.tasks._task import Fields
from divcon.programs import Item
from divcon.signatures import Subquestions, SubquestionsError, unnumbered


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
    head = first_rows(path, form, wanted)
    lacking = lacking_columns(head, names)
    missing = about_missing(path, head, names, lacking) if lacking else about_empty(path, head, names)
    if missing and not lacking:
        lacking = ["answer"]
    del head
    seen: dict[str, str] = {}
    empty = True
    try:
        for row in rows_of(path, problems, form, wanted):
            empty = False
            values = {ours: value_at(row.values, theirs) for ours, theirs in names.items() if theirs is not None}
            # pandas writes NaN where a cell is empty.
            values |= {ours: None for ours, value in values.items() if _is_nan(value) and ours not in NEEDED}
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
    for field in NEEDED:
        value = values.get(field)
        if written_value(value) is None and field not in lacking:
            name = shown(names[field])
            if value in (None, "") or (isinstance(value, str) and not value.strip()):
                needed = " and ".join(f"'{shown(names[one])}'" for one in NEEDED)
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
        return listed and unnumbered(listed)
    try:
        return tuple(Subquestions.read(value)) if value.strip() else ()
    except SubquestionsError:
        return None
