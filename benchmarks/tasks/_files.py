"""Tasks that come from files or a hub: GSM8K with its human subquestions, and anybody's JSON Lines."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from divcon.benchmarks._graders import KINDS
from divcon.programs import Item
from divcon.signatures import DivconError


class TaskError(DivconError):
    """A task whose data is missing, broken or too small."""


@contextmanager
def readable(file: Path) -> Iterator[None]:
    """Inside, what a broken file raises becomes an error that names it.

    Raises:
        TaskError: The file is missing, no text, or no whole gzip file.
    """
    try:
        yield
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TaskError(f"The data file {file} is no whole gzip file: {error}.", "Fetch it again.") from error
    except OSError as error:
        raise TaskError(
            f"The data file {file} can't be read: {error.strerror or error}.", "Check task.path."
        ) from error
    except UnicodeDecodeError as error:
        raise TaskError(f"The data file {file} is not UTF-8: {error}.", "Save it as UTF-8.") from error


def read_json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that isn't blank.

    Raises:
        TaskError: The file can't be read, or a line is no JSON object; the line is named.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    with readable(file), opened(file, "rt", encoding="utf-8-sig", newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise TaskError(f"Line {number} of {file} is not JSON: {error}.", "Correct that line.") from error
            if not isinstance(row, dict):
                raise TaskError(f"Line {number} of {file} is no JSON object.", "Write one object a line.")
            yield number, row


def read_pairs(file: Path) -> list[tuple[int, list[str], str, str]]:
    """(line number, gold answers, reply, question) of every line of a file, for `divcon grade`.

    Raises:
        TaskError: A line is broken or lacks `gold` or `reply`; it is named.
    """
    pairs = []
    for number, row in read_json_lines(file):
        gold, reply = row.get("gold"), row.get("reply")
        golds = [
            str(one) for one in (gold if isinstance(gold, list) else [gold]) if one is not None and str(one).strip()
        ]
        reply = str(reply) if isinstance(reply, (int, float)) else reply
        if not golds or not isinstance(reply, str):
            raise TaskError(f"Line {number} of {file} has no 'gold' or no 'reply'.", "Every line needs both.")
        pairs.append((number, golds, reply, str(row.get("question") or "")))
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
        TaskError: A line is broken, lacks a field or has an empty one, or an id stands twice.
    """
    seen: dict[str, int] = {}
    for number, row in read_json_lines(path):
        where = f"Line {number} of {path}"
        for field in ("question", "answer"):
            value = row.get(field)
            if not isinstance(value, (str, int, float)) or not str(value).strip():
                raise TaskError(f"{where} has no '{field}'.", "Every line needs 'question' and 'answer'.")
        identity = str(row.get("id", f"line-{number}"))
        if identity in seen:
            raise TaskError(f"{where} has the id '{identity}' of line {seen[identity]}.", "Give every line its own id.")
        seen[identity] = number
        for field in ("aliases", "subquestions"):
            listed = row.get(field)
            is_list = isinstance(listed, list) and all(isinstance(value, str) and value.strip() for value in listed)
            if listed is not None and not is_list:
                raise TaskError(
                    f"{where}: '{field}' is not a list of text, or holds an empty one.", "Write a JSON list of strings."
                )
        if not isinstance(row.get("context") or "", str):
            raise TaskError(f"{where}: 'context' is not text.", "Join the passages with blank lines.")
        if row.get("grader") not in (None, "", *KINDS):
            raise TaskError(
                f"{where} names the grader '{row['grader']}', which there isn't.", f"Take one of {', '.join(KINDS)}."
            )
        yield Item(
            id=identity,
            question=str(row["question"]).strip(),
            answer=str(row["answer"]).strip(),
            context=str(row.get("context") or "").strip() or None,
            aliases=tuple(row.get("aliases") or ()),
            subquestions=tuple(row.get("subquestions") or ()),
            family=str(row.get("family", "")),
            grader=str(row.get("grader") or ""),
        )
