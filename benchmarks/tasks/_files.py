"""Tasks that come from files or a hub: GSM8K with its human subquestions, and anybody's JSON Lines."""

from __future__ import annotations

import gzip
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

from divcon.benchmarks._graders import KINDS
from divcon.benchmarks.tasks._problems import Problems, TaskError, shown, unwritable
from divcon.programs import Item


@contextmanager
def readable(file: Path, key: str = "task.path") -> Iterator[None]:
    """Inside, what a broken file raises becomes an error that names it.

    Args:
        file: The file.
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
    except UnicodeDecodeError as error:
        raise TaskError(f"The data file {file} is not UTF-8: {error}.", "Save it as UTF-8.") from error


def strict_json(text: str) -> Any:
    """The value of a JSON document.

    Raises:
        ValueError: It is no JSON. So are NaN, a number over what a float can be, a key that stands twice, and half of a
            character, with all of which Python would go on.
    """
    try:
        value = json.loads(text, parse_constant=_no_value, parse_float=_finite, object_pairs_hook=_without_twins)
    except RecursionError as error:
        raise ValueError("its brackets are nested too deeply") from error
    # Half of a character can only come from an escape, since the file itself is UTF-8.
    if "\\ud" in text.lower() and unwritable(json.dumps(value, ensure_ascii=False)):
        raise ValueError("it holds half of a character (a lone surrogate)")
    return value


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


def read_json_lines(file: Path, problems: Problems | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that isn't blank.

    Args:
        file: JSON Lines; `.gz` is unpacked.
        problems: Gets the lines that are no JSON objects; by default they are an error once all lines are read.

    Raises:
        TaskError: The file can't be read, or a line is no JSON object; the first lines are named.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    found = Problems(file, "line") if problems is None else problems
    with readable(file), opened(file, "rt", encoding="utf-8-sig", newline="\n") as stream:
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


def written_value(value: Any) -> str | None:
    """Text, or a number in digits, without spaces around it; None for everything else and for empty text.

    Examples:
        >>> written_value(1e-7), written_value(12), written_value(True)
        ('0.0000001', '12', None)
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    text = format(Decimal(repr(value)), "f") if isinstance(value, float) else str(value)
    return text.strip() or None


def read_pairs(file: Path) -> list[tuple[int, list[str], str, str]]:
    """(line number, gold answers, reply, question) of every line of a file, for `divcon grade`.

    Raises:
        TaskError: A line is broken or lacks `gold` or `reply`; the first ones are named.
    """
    pairs, problems = [], Problems(file, "line")
    for number, row in read_json_lines(file, problems):
        given, reply, question = row.get("gold"), row.get("reply"), row.get("question")
        golds = [written_value(one) for one in (given if isinstance(given, list) else [given]) if one not in (None, "")]
        said = reply if isinstance(reply, str) else written_value(reply)
        if not golds or None in golds or said is None:
            problem = " has no 'gold' or no 'reply' that is text or a number"
            problems.add(f"line {number}", problem, "Every line needs both.")
        elif not isinstance(question or "", str):
            problems.add(f"line {number}", ": 'question' is not text", "Give the question as text, or leave it out.")
        else:
            pairs.append((number, [gold for gold in golds if gold], said, question or ""))
    problems.require_none()
    return pairs


def gsm8k_items(path: Path | None, hub: str | None, splits: Callable[[str], bool] | None = None) -> list[Item]:
    """GSM8K (MIT), with reference subquestions where the rows are of the Socratic form (`subquestion ** step`).

    Args:
        path: A JSON Lines file with `question` and `answer`.
        hub: A data set's hub name, such as `openai/gsm8k`; its `socratic` configuration is read.
        splits: Of the hub; all of them by default.

    Raises:
        TaskError: The data can't be had, or a row has no `#### answer`.
    """
    rows: Iterable[tuple[int, dict[str, Any]]]
    rows = read_json_lines(path) if path is not None else enumerate(hub_rows(str(hub), "socratic", splits), 1)
    return list(as_published("GSM8K", rows, _gsm8k))


def _gsm8k(rows: Iterable[tuple[int, Mapping[str, Any]]]) -> Iterator[Item]:
    for number, row in rows:
        body, marker, answer = row["answer"].rpartition("####")
        question = row["question"].strip()
        if not question:
            raise TaskError(f"Row {number} of GSM8K has an empty question.", "Give the published files.")
        if not marker or not answer.strip():
            raise TaskError(f"Row {number} of GSM8K has no '#### answer'.", "Give the published files.")
        steps = [line.split(" ** ", 1) for line in body.strip().split("\n") if " ** " in line]
        yield Item(
            id=f"gsm8k-{number}",
            question=question,
            answer=answer.strip(),
            subquestions=_distinct(ask.strip() for ask, _ in steps),
            sub_answers=tuple(re.sub(r"<<.*?>>", "", step).strip() for _, step in steps),
            family="gsm8k",
            grader="number",
            licence="MIT",
        )


def as_published(
    name: str,
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    read: Callable[[Iterable[tuple[int, Mapping[str, Any]]]], Iterator[Item]],
) -> Iterator[Item]:
    """Items of rows whose form is known.

    Raises:
        TaskError: A row isn't of that form; it is named.
    """
    reached = 0

    def counted() -> Iterator[tuple[int, Mapping[str, Any]]]:
        nonlocal reached
        for number, row in rows:
            reached = number
            yield number, row

    try:
        yield from read(counted())
    except KeyError as error:
        raise TaskError(f"Row {reached} of {name} has no {error}.", "Give the published files.") from error
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise TaskError(
            f"Row {reached} of {name} isn't as it was published: {error}.", "Give the published files."
        ) from error


def _distinct(asked: Iterable[str]) -> tuple[str, ...]:
    return tuple({" ".join(ask.split()): None for ask in asked if ask})


def hub_rows(
    name: str, configuration: str | None, wanted: Callable[[str], bool] | None = None
) -> Iterator[dict[str, Any]]:
    """The rows of a data set, streamed.

    Args:
        name: On the hub.
        configuration: Of the data set.
        wanted: Which splits, by name; all of them by default.

    Raises:
        TaskError: The hub gives no such data set or split, or the package datasets is missing.
    """
    try:
        from datasets import get_dataset_split_names, load_dataset
    except ImportError as error:
        raise TaskError("Reading from a hub needs the package datasets.", "pip install 'divcon[train]'") from error
    try:
        splits = get_dataset_split_names(name, configuration)
        chosen = [split for split in splits if wanted is None or wanted(split)]
        if not chosen:
            raise TaskError(f"'{name}' has the splits {', '.join(splits)}.", "Check task.test_split.")
        for split in chosen:
            yield from load_dataset(name, configuration, split=split, streaming=True)
    except (OSError, ValueError) as error:
        raise TaskError(f"The hub gives no data set '{name}': {error}.", "Check task.hub, or give task.path.") from (
            error
        )


def json_lines_items(path: Path) -> Iterator[Item]:
    """Anybody's questions: `question` and `answer`, and as the data has them `context`, `id`, `aliases` (a list),
    `subquestions` (a list), `grader` (one of `KINDS`; by the form of the answer without it) and `family`. They are read
    as they are asked for, so that a file may be larger than memory.

    Raises:
        TaskError: A line is broken, lacks a field, has an empty one or one of another type, or an id stands twice. The
            first such lines are named, once all are read.
    """
    seen: dict[str, int] = {}
    problems = Problems(path, "line")
    for number, row in read_json_lines(path, problems):
        identity = f"line-{number}" if row.get("id") is None else written_value(row["id"])
        if (wrong := _wrong(row, identity, seen)) is not None:
            problems.add(f"line {number}", *wrong)
            continue
        assert identity is not None
        seen[identity] = number
        yield Item(
            id=identity,
            question=written_value(row["question"]) or "",
            answer=written_value(row["answer"]) or "",
            context=(row.get("context") or "").strip() or None,
            aliases=tuple(row.get("aliases") or ()),
            subquestions=tuple(row.get("subquestions") or ()),
            family=written_value(row.get("family")) or "",
            grader=row.get("grader") or "",
        )
    problems.require_none()


def _wrong(row: Mapping[str, Any], identity: str | None, seen: Mapping[str, int]) -> tuple[str, str] | None:
    """The problem of a row of JSON Lines and its remedy; None for a row that is as it should be."""
    for field in ("question", "answer"):
        value = row.get(field)
        if written_value(value) is None:
            if value in (None, "") or (isinstance(value, str) and not value.strip()):
                return f" has no '{field}'", "Every line needs 'question' and 'answer'."
            return f": '{field}' is neither text nor a number", "Write true and false as yes and no, and lists as text."
    for field in ("id", "family"):
        if not isinstance(row.get(field), (str, type(None))) and written_value(row[field]) is None:
            return f": '{field}' is neither text nor a number", "Write it as text."
    if identity is None:
        return " has an empty 'id'", "Give every line its own id."
    if identity in seen:
        return f" has the id '{shown(identity)}' of line {seen[identity]}", "Give every line its own id."
    for field in ("aliases", "subquestions"):
        listed = row.get(field)
        is_list = isinstance(listed, list) and all(isinstance(value, str) and value.strip() for value in listed)
        if listed is not None and not is_list:
            return f": '{field}' is not a list of text, or holds an empty one", "Write a JSON list of strings."
    if not isinstance(row.get("context", ""), (str, type(None))):
        return ": 'context' is not text", "Join the passages with blank lines."
    grader = row.get("grader")
    if grader not in (None, "", *KINDS):
        named = shown(grader) if isinstance(grader, str) else type(grader).__name__
        return f" names the grader '{named}', which there isn't", f"Take one of {', '.join(KINDS)}."
    return None
