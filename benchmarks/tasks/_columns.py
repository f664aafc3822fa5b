"""The columns of anybody's data: those that are there, and which of them is likely the question or the answer."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from divcon.benchmarks._numbers import is_number
from divcon.benchmarks.tasks._files import written_value
from divcon.benchmarks.tasks._json import Form, Row
from divcon.benchmarks.tasks._problems import Problems, TaskError, listed, shown
from divcon.benchmarks.tasks._rows import rows_of
from divcon.benchmarks.tasks._task import Fields

_LOOKED_AT = 200  # rows from which the columns are known
NEEDED = ("question", "answer")
# What people call them, the likeliest first.
_NAMES = {
    "question": ["question", "input", "prompt", "problem", "query", "questiontext", "instruction", "text"],
    "answer": ["answer", "output", "target", "label", "gold", "goldanswer", "finalanswer", "expected", "solution",
               "answers", "response", "completion", "result"],
    "subquestions": ["subquestions", "steps", "decomposition", "questiondecomposition", "subqs"],
    "context": ["context", "passage", "paragraph", "document", "background"],
    "id": ["id", "uid", "qid", "questionid", "key"],
}  # fmt: skip
# Who says it in a chat.
_SAID_BY = {"question": {"user", "human"}, "answer": {"assistant", "model", "gpt"}}
WITHOUT_ANSWERS = (
    "Without gold answers nothing can be measured: write them for some questions (200 tell much) and give these alone, "
    "or distil in Python with a metric of your own, which needs none (divcon.DistillDecomposer, docs/dspy.md)."
)
_COUNTS_ROWS = re.compile(r"id|.*[._ -]id|[uq]id|idx|.*index|nr|no|number|row|unnamed.*", re.IGNORECASE)


_ABSENT = object()


def value_at(row: Mapping[str, Any], path: str, absent: Any = None) -> Any:
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


def first_rows(path: Path, form: Form, wanted: Callable[[str], bool] | None) -> list[Row]:
    """The first rows; what is wrong with them is said when all are read."""
    try:
        return list(islice(rows_of(path, Problems(path, "row"), form, wanted), _LOOKED_AT))
    except TaskError:
        return []


def lacking_columns(head: Sequence[Row], names: Mapping[str, str | None]) -> list[str]:
    """Our names of the columns that are needed, or named in `task.fields`, and that no row has."""
    wanted = {ours: theirs for ours, theirs in names.items() if theirs and (ours in NEEDED or theirs != ours)}
    return [
        ours
        for ours, theirs in wanted.items()
        if head and all(value_at(row.values, theirs, _ABSENT) is _ABSENT for row in head)
    ]


def about_missing(path: Path, head: Sequence[Row], names: Mapping[str, str], lacking: Sequence[str]) -> tuple[str, str]:
    """Which columns no row has, with those that are there, and the settings that would work. They are guessed from the
    columns' names, and where no name tells, from their values."""
    columns = _columns(head)
    guessed = _guessed(columns, names, lacking, len(head), _turns(head))
    where = f"The first {_LOOKED_AT} rows of {path} have" if len(head) == _LOOKED_AT else f"{path} has"
    wanted = " and ".join(f"no field '{shown(names[ours])}'" for ours in lacking)
    problem = f"{where} {wanted}; its fields are {listed(list(columns)) or 'none'}."
    sets = " ".join(f"--set {_setting(ours, guessed.get(ours))}" for ours in lacking)
    sets += " (guessed; look at the data)" if guessed else ""
    if _has_no_header(columns, lacking):
        return problem, f"If its first line is no header, write one above it: question,answer. Or else add {sets}."
    if set(lacking) - set(guessed) == {"answer"}:
        return problem, f"Add {sets}. {WITHOUT_ANSWERS}"
    return problem, f"Add {sets}."


def _has_no_header(columns: Mapping[str, Any], lacking: Sequence[str]) -> bool:
    """Whether what should be the names of columns are rather a question and its answer."""
    return set(NEEDED) <= set(lacking) and any(name.endswith("?") or is_number(name) for name in columns)


def about_empty(path: Path, head: Sequence[Row], names: Mapping[str, str]) -> tuple[str, str] | None:
    """Problem and remedy where the column of answers has nothing in it; None where it has."""
    if not head or any(value_at(row.values, names["answer"]) not in (None, "") for row in head):
        return None
    where = f" in the first {_LOOKED_AT} rows" if len(head) == _LOOKED_AT else ""
    return f"The field '{shown(names['answer'])}' of {path} is empty{where}.", WITHOUT_ANSWERS


def guess_fields(path: Path, form: Form | None = None, given: Fields | None = None) -> Fields:
    """The likeliest columns of a file: those that are given or called as ours, and guesses for the others.

    Args:
        path: A file or a folder.
        form: How the files are written; by default as their endings say.
        given: The columns that are known.

    Raises:
        TaskError: There is no row, or no column that could hold the question or the answer.
    """
    names = (given or Fields()).model_dump()
    head = first_rows(path, form or Form(), None)
    lacking = lacking_columns(head, names)
    columns = _columns(head)
    wanted = [*lacking, *(["context"] if "context" not in columns else [])]
    guessed = _guessed(columns, names, wanted, len(head), _turns(head))
    if any(ours not in guessed for ours in lacking) or _has_no_header(columns, lacking):
        raise TaskError(*about_missing(path, head, names, lacking))
    return Fields.model_validate({**names, **guessed})


def _columns(head: Sequence[Row]) -> dict[str, list[Any]]:
    """The values of the first rows by column."""
    columns: dict[str, list[Any]] = {}
    for row in head:
        for name, value in _flat(row.values):
            columns.setdefault(name, []).append(value)
    return columns


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The columns and their values; nested ones, and the turns of chats, by their dotted paths."""
    for name, value in values.items():
        if isinstance(value, Mapping) and before.count(".") < 3:
            yield from _flat(value, f"{before}{name}.")
        elif isinstance(value, list) and value and all(_is_message(one) for one in value):
            yield from ((f"{before}{name}.{number}.content", one["content"]) for number, one in enumerate(value))
        else:
            yield f"{before}{name}", value
            if _lists_answers(f"{before}{name}") and isinstance(value, list) and value:
                yield f"{before}{name}.0", value[0]


def _lists_answers(name: str) -> bool:
    """Whether a column holds a list of answers, as SQuAD's `answers.text` does."""
    return "answers" in name.casefold().split(".")


def _turns(head: Sequence[Row]) -> dict[str, str]:
    """Our names of the columns with the turns of chats: of the last question that is answered in all rows.

    Other turns have an empty name: they are neither question nor answer, as where a turn has several roles.
    """
    roles: dict[tuple[str, int], set[str]] = {}
    for row in head:
        for name, value in row.values.items():
            if isinstance(value, list) and value and all(_is_message(one) for one in value):
                for number, one in enumerate(value):
                    roles.setdefault((name, number), set()).add(str(one["role"]))
    counts = {name: min(len(row.values.get(name) or ()) for row in head) for name, _ in roles}
    found = {f"{name}.{number}.content": "" for name, number in roles}
    answered = [
        (name, number)
        for (name, number), who in roles.items()
        if who <= _SAID_BY["question"]
        and roles.get((name, number + 1), {""}) <= _SAID_BY["answer"]
        and number + 1 < counts[name]
    ]
    if answered:
        name, number = answered[-1]
        found |= {f"{name}.{number}.content": "question", f"{name}.{number + 1}.content": "answer"}
    return found


def _is_message(value: Any) -> bool:
    """Whether it is a turn of a chat."""
    return isinstance(value, Mapping) and {"role", "content"} <= set(value)


def _guessed(
    columns: Mapping[str, Sequence[Any]],
    names: Mapping[str, str],
    lacking: Sequence[str],
    rows: int,
    turns: Mapping[str, str],
) -> dict[str, str]:
    """The likely column of each that is lacking, by our names.

    Args:
        columns: The values of the first rows.
        names: The columns that are known, by our names.
        lacking: Our names of those that aren't.
        rows: The number of rows.
        turns: See `_turns`.
    """
    taken = {theirs for ours, theirs in names.items() if ours not in lacking}
    texts = {
        name: [text for one in values if (text := written_value(one)) is not None] for name, values in columns.items()
    }
    found: dict[str, str] = {}
    for ours in lacking:
        known = _NAMES.get(ours, [ours])
        plain = {name: re.sub(r"[\W_]", "", name.rpartition(".")[2].casefold()) for name in columns}
        rank = {name: known.index(one) if one in known else len(known) for name, one in plain.items()}
        usable = [name for name in columns if ours not in NEEDED or 2 * len(texts[name]) > rows]
        fits = [name for name in usable if plain[name] in known or plain[name].endswith(ours)]
        if free := [name for name in fits if name not in taken and name not in found.values()]:
            found[ours] = min(free, key=lambda name: (rank[name], name.count(".")))
    first_of_list = [name for name in columns if name.endswith(".0") and _lists_answers(name) and texts[name]]
    if "answer" in lacking and "answer" not in found and first_of_list:
        found["answer"] = first_of_list[0]
    for ours in NEEDED:
        if ours not in lacking or ours in found:
            continue
        gone = {*taken, *found.values()}
        whole = {name: texts[name] for name in columns if len(texts[name]) == rows and name not in gone}
        whole = {name: said for name, said in whole.items() if not _COUNTS_ROWS.fullmatch(name)}
        whole = {name: said for name, said in whole.items() if turns.get(name, ours) == ours}
        if said := [name for name in whole if name in turns]:
            found[ours] = said[0]
        elif whole:
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
