"""Tasks that come from files or a hub: GSM8K with its human subquestions, and anybody's JSON Lines."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from divcon.programs import Item
from divcon.signatures import DivconError


class TaskError(DivconError):
    """A task whose data is missing, broken or too small."""


def read_json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of every line that isn't blank.

    Raises:
        TaskError: The file can't be read, or a line is no JSON object; the line is named.
    """
    try:
        opened = gzip.open if file.suffix == ".gz" else open
        with opened(file, "rt", encoding="utf-8", newline="\n") as stream:
            for number, line in enumerate(stream, 1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise TaskError(f"Line {number} of {file} is not JSON: {error}.", "Correct that line.") from error
                if not isinstance(row, dict):
                    raise TaskError(f"Line {number} of {file} is no JSON object.", "Write one object a line.")
                yield number, row
    except OSError as error:
        raise TaskError(f"The data file {file} can't be read: {error.strerror}.", "Check task.path.") from error
    except UnicodeDecodeError as error:
        raise TaskError(f"The data file {file} is not UTF-8: {error}.", "Save it as UTF-8.") from error


def read_pairs(file: Path) -> list[tuple[list[str], str, str]]:
    """Gold answers, a reply and a question from every line of a file, for `divcon grade`.

    Raises:
        TaskError: A line is broken or lacks `gold` or `reply`; it is named.
    """
    pairs = []
    for number, row in read_json_lines(file):
        gold, reply = row.get("gold"), row.get("reply")
        golds = [
            str(one) for one in (gold if isinstance(gold, list) else [gold]) if one is not None and str(one).strip()
        ]
        if not golds or not isinstance(reply, str):
            raise TaskError(f"Line {number} of {file} has no 'gold' or no 'reply'.", "Every line needs both.")
        pairs.append((golds, reply, str(row.get("question") or "")))
    return pairs


def gsm8k_items(path: Path | None, hub: str | None) -> list[Item]:
    """GSM8K (MIT), with reference subquestions where the rows are of the Socratic form (`subquestion ** step`).

    Args:
        path: A JSON Lines file with `question` and `answer`.
        hub: A data set's hub name, such as `openai/gsm8k`; its `socratic` configuration is read.

    Raises:
        TaskError: The data can't be had, or a row has no `#### answer`.
    """
    rows: Iterable[tuple[int, dict[str, Any]]]
    rows = read_json_lines(path) if path is not None else enumerate(hub_rows(str(hub), "socratic"), 1)
    items = []
    for number, row in rows:
        try:
            body, marker, answer = row["answer"].rpartition("####")
            question = row["question"].strip()
        except (KeyError, AttributeError) as error:
            raise TaskError(f"Row {number} of GSM8K has no {error}.", "Give the published files.") from error
        if not marker or not answer.strip():
            raise TaskError(f"Row {number} of GSM8K has no '#### answer'.", "Give the published files.")
        steps = [line.split(" ** ", 1) for line in body.strip().split("\n") if " ** " in line]
        items.append(
            Item(
                id=f"gsm8k-{number}",
                question=question,
                answer=answer.strip(),
                subquestions=_distinct(ask.strip() for ask, _ in steps),
                sub_answers=tuple(re.sub(r"<<.*?>>", "", step).strip() for _, step in steps),
                family="gsm8k",
            )
        )
    return items


def _distinct(asked: Iterable[str]) -> tuple[str, ...]:
    return tuple({" ".join(ask.split()): None for ask in asked if ask})


def hub_rows(name: str, configuration: str | None) -> Iterator[dict[str, Any]]:
    """The rows of a data set's training and test splits, streamed.

    Raises:
        TaskError: The hub gives no such data set, or the package datasets is missing.
    """
    try:
        from datasets import get_dataset_split_names, load_dataset
    except ImportError as error:
        raise TaskError("Reading from a hub needs the package datasets.", "pip install 'divcon[train]'") from error
    try:
        splits = get_dataset_split_names(name, configuration)
        for split in splits:
            yield from load_dataset(name, configuration, split=split, streaming=True)
    except (OSError, ValueError) as error:
        raise TaskError(f"The hub gives no data set '{name}': {error}.", "Check task.hub, or give task.path.") from (
            error
        )


def json_lines_items(path: Path) -> Iterator[Item]:
    """Anybody's questions: `question` and `answer`, and as the data has them `context`, `id`, `aliases` (a list),
    `subquestions` (a list) and `family`. They are read as they are asked for, so that a file may be larger than memory.

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
            is_list = isinstance(listed, list) and all(isinstance(value, str) for value in listed)
            if listed is not None and not is_list:
                raise TaskError(f"{where}: '{field}' is not a list of text.", "Write a JSON list of strings.")
        yield Item(
            id=identity,
            question=str(row["question"]).strip(),
            answer=str(row["answer"]).strip(),
            context=str(row["context"]).strip() or None if row.get("context") else None,
            aliases=tuple(row.get("aliases") or ()),
            subquestions=tuple(row.get("subquestions") or ()),
            family=str(row.get("family", "")),
        )
