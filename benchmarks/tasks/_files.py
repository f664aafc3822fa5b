"""Data that others published, as files or at a hub: GSM8K with its human subquestions, and what all of them share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from divcon.benchmarks.tasks._json import read_json_lines
from divcon.benchmarks.tasks._problems import Problems, TaskError
from divcon.programs import Item

PUBLISHED = "Give the published files."


def written_value(value: Any) -> str | None:
    """Text without spaces around it, or a number in the digits that it needs; None for everything else and for empty
    text. NaN and infinity are no numbers.

    Examples:
        >>> written_value(1e-7), written_value(18.0), written_value(True)
        ('0.0000001', '18', None)
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float, Decimal)):
        return None
    if isinstance(value, (float, Decimal)):
        if not math.isfinite(value):
            return None
        whole, _, rest = format(Decimal(str(value)), "f").partition(".")
        return f"{whole}.{rest}".rstrip("0").rstrip(".") if rest else whole
    return str(value).strip() or None


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
        TaskError: The data can't be had, or rows have no `#### answer`; the first ones are named.
    """
    problems = Problems(path or hub, "row")
    rows: Iterable[tuple[int, dict[str, Any]]]
    rows = read_json_lines(path, problems) if path is not None else enumerate(hub_rows(str(hub), "socratic", splits), 1)
    items = list(as_published(rows, _gsm8k, problems))
    problems.require_none()
    return items


def _gsm8k(number: int, row: Mapping[str, Any]) -> Iterator[Item]:
    body, marker, answer = row["answer"].rpartition("####")
    question = row["question"].strip()
    if not question:
        raise Malformed(" has an empty question")
    if not marker or not answer.strip():
        raise Malformed(" has no '#### answer'")
    steps = [line.split(" ** ", 1) for line in body.strip().split("\n") if " ** " in line]
    yield Item(
        id=f"gsm8k-{number}",
        question=question,
        answer=answer.strip(),
        subquestions=_distinct(ask.strip() for ask, _ in steps),
        sub_answers=tuple(re.sub(r"<<.*?>>", "", step).strip() for _, step in steps),
        family="gsm8k",
        grader="number",
    )


class Malformed(ValueError):
    """A row that isn't as it was published; the rest of a sentence about it."""


def as_published(
    rows: Iterable[tuple[int, Mapping[str, Any]]],
    read: Callable[[int, Mapping[str, Any]], Iterator[Item]],
    problems: Problems,
) -> Iterator[Item]:
    """Items of rows whose form is known.

    Args:
        rows: With their numbers.
        read: Makes the items of a row.
        problems: Gets the rows that aren't of that form.
    """
    for number, row in rows:
        try:
            yield from list(read(number, row))
        except Malformed as error:
            problems.add(f"row {number}", str(error), PUBLISHED)
        except KeyError as error:
            problems.add(f"row {number}", f" has no {error}", PUBLISHED)
        except (TypeError, ValueError, AttributeError, IndexError) as error:
            problems.add(f"row {number}", f" isn't as it was published: {error}", PUBLISHED)


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
