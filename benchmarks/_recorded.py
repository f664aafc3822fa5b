"""Recordings: plans and replies that were written elsewhere, a row each, read from a file.

A recorded teacher serves the plans; a recorded arm replays plan and reply (`RecordedProgram`).
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from divcon.benchmarks._graders import Verdict
from divcon.benchmarks.tasks._columns import value_at
from divcon.benchmarks.tasks._files import written_value
from divcon.benchmarks.tasks._json import readable, strict_json
from divcon.benchmarks.tasks._problems import Problems, TaskError, shown
from divcon.distill import Plan
from divcon.programs import Item, whole_number
from divcon.signatures import Subquestions, read_answer, unnumbered


class RowFields(BaseModel):
    """The names of a recording's fields. A dotted name is a path into nested objects, such as `rewards.correct`.

    Attributes:
        id: The question's id in the task.
        question: The question.
        subquestions: The plan: a list of texts, or a model's whole reply.
        reply: The solver's whole reply. One that is null or empty is a wrong answer.
        right: Whether the reply was right: true or false, or 1 or 0.
        input_tokens: The tokens that the plan's writer read.
        output_tokens: The tokens that the plan's writer wrote.
    """

    model_config = ConfigDict(extra="forbid")

    id: str = "id"
    question: str = "question"
    subquestions: str = "subquestions"
    reply: str = "reply"
    right: str = "right"
    input_tokens: str = "input_tokens"
    output_tokens: str = "output_tokens"


@dataclass(frozen=True)
class Row:
    """A row of a recording.

    Attributes:
        id: The question's id; None where it has none.
        question: The question without spaces, since copies differ in them; None where it has none.
        plan: The plan as a reply's text; None where the row has none.
        input_tokens: The tokens that the plan's writer read; None where unknown.
        output_tokens: The tokens that the plan's writer wrote; None where unknown.
        reply: The solver's reply; None where the row has none. An empty one is a reply.
        right: Whether the recorded outcome is right; None where none is recorded.
    """

    id: str | None
    question: str | None
    plan: str | None
    input_tokens: int | None
    output_tokens: int | None
    reply: str | None
    right: bool | None

    def outcome(self, item: Item, grade: Any) -> bool | None:
        """Whether the plan led to a right answer: as recorded, else by grading the reply; None without either.

        Args:
            item: The question.
            grade: Grades an answer, and returns a `Verdict`.
        """
        if self.right is not None or self.reply is None:
            return self.right
        found = read_answer(self.reply, steps=True)
        verdict: Verdict | None = grade(item, found.text) if found else None
        return verdict is not None and verdict.right


@dataclass(frozen=True)
class Matching:
    """The rows of a recording that belong to questions.

    Attributes:
        rows: The rows of each question, by its id, in the order of the file but those with its exact id first.
        strangers: The number of rows that belong to no question.
        misnamed: The number of rows that have the id of a question and another text.
        ambiguous: The number of rows that may be of several questions: their text is that of questions with different
            passages, or their id is a part of several ids.
    """

    rows: Mapping[str, Sequence[Row]]
    strangers: int
    misnamed: int
    ambiguous: int

    @property
    def first(self) -> dict[str, Row]:
        """The first row of each question."""
        return {name: rows[0] for name, rows in self.rows.items()}

    def coverage(self, name: str, what: str, parts: Mapping[str, Sequence[Item]], taken: int = 1) -> str:
        """How many questions have a row, in a sentence, with what doesn't match.

        Args:
            name: The file's name.
            what: What a row holds: `a plan` or `a reply`.
            parts: The questions by what they are, such as `training`.
            taken: How many rows of a question are taken at most.
        """
        counts = [
            f"{sum(item.id in self.rows for item in items):,} of {len(items):,} {part} questions"
            for part, items in parts.items()
        ]
        said = [f"{name}: {' and '.join(counts)} have {what}"]
        if what == "a plan" and (empty := sum(not row.plan for rows in self.rows.values() for row in rows[:taken])):
            said.append(f"{_counted(empty, 'plan')} without a word")
        if self.strangers:
            said.append(f"{_counted(self.strangers, 'row')} of other questions")
        if self.misnamed:
            said.append(f"{_counted(self.misnamed, 'row')} with the id of a question and another text")
        if self.ambiguous:
            said.append(f"{_counted(self.ambiguous, 'row')} of several questions at once (write the whole id)")
        if more := sum(len(rows) > taken for rows in self.rows.values()):
            many, first = ("one row", "the first is") if taken == 1 else (f"{taken} rows", f"the first {taken} are")
            said.append(f"{_counted(more, 'question')} with more than {many} ({first} taken)")
        return "; ".join(said)


@dataclass(frozen=True)
class Recording:
    """A file of plans or replies that were written elsewhere.

    Attributes:
        file: The file.
        sha256: The hash of its bytes.
        fields: The names of its fields.
        rows: Its rows.
        numbered: Whether a list in it has numbers before its items.
    """

    file: Path
    sha256: str
    fields: RowFields
    rows: Sequence[Row]
    numbered: bool = False

    @property
    def deciding(self) -> list[Any]:
        """What decides the rows, as part of a key. Numbers before the items of lists were once read as their text."""
        return [self.sha256, self.fields.model_dump(), *(["unnumbered"] if self.numbered else [])]

    def match(self, items: Sequence[Item], beside: Sequence[Item] = ()) -> Matching:
        """Match the rows to questions: by `id` where both have one, else by the question.

        A row with a question's id and another text doesn't belong to that question. In an experiment, the name of the
        task stands before an id, with a colon, and `test-` before that of a question from a file of test questions; a
        row may leave them out where that names no other question.

        Args:
            items: The questions.
            beside: Other questions of the task. Their rows belong to none of `items`.
        """
        index, wanted = _Index([*items, *beside]), {item.id for item in items}
        strangers = misnamed = ambiguous = 0
        matched: list[tuple[int, Row, list[Item]]] = []
        for row in self.rows:
            named, loose, found = index.of_id(row)
            if not found:
                found = index.of_text(row)
                if named and len({item.context for item in found}) < 2:
                    misnamed += 1
                else:
                    strangers += not found
            if (loose or not named) and len({(_bare(item.question), item.context) for item in found}) > 1:
                ambiguous, found = ambiguous + 1, []
            matched.append((loose, row, found))
        rows: dict[str, list[Row]] = {}
        for _, row, found in sorted(matched, key=lambda one: one[0]):  # exact ids first, then as in the file
            for item in found:
                if item.id in wanted:
                    rows.setdefault(item.id, []).append(row)
        return Matching(rows, strangers, misnamed, ambiguous)


class _Index:
    """Questions by their ids and by their texts."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._by_id: list[dict[str, list[Item]]] = [{}, {}, {}]  # as it is, without the task, and without `test-`
        self._by_text: dict[str, list[Item]] = {}
        for item in items:
            self._by_text.setdefault(_bare(item.question), []).append(item)
            bare = item.id.partition(":")[2] or item.id
            for names, name in zip(self._by_id, (item.id, bare, bare.removeprefix("test-")), strict=True):
                names.setdefault(name, []).append(item)

    def of_id(self, row: Row) -> tuple[bool, int, list[Item]]:
        """Whether a question has the row's id, how loosely (0 is exactly), and those whose text is the row's, too."""
        named = [names.get(row.id, []) for names in self._by_id] if row.id else []
        for loose, items in enumerate(named):
            if found := [item for item in items if row.question in (None, _bare(item.question))]:
                return True, loose, found
        return any(named), len(self._by_id), []

    def of_text(self, row: Row) -> list[Item]:
        """The questions with the row's text."""
        return self._by_text.get(row.question or "", [])


def read_recording(file: Path, fields: RowFields, needs: str, key: str) -> Recording:
    """Read a recording: JSON Lines or one JSON array, either of which may be packed (`.gz`).

    Args:
        file: The file.
        fields: The names of its fields.
        needs: The field that every row has to have: `subquestions` or `reply`. It may be null.
        key: The recording's section in the pipeline file, for messages.

    Raises:
        TaskError: The file can't be read, or rows are broken or lack a field. The first rows are named.
    """
    with readable(file, key=f"{key}.path"):
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig")
    problems = Problems(file, "row")
    rows, numbered = [], False
    for where, value in _values(text, problems):
        if isinstance(value, dict):
            problem, row = _row(value, fields, needs)
            plan = value_at(value, fields.subquestions)
            numbered |= row is not None and isinstance(plan, list) and list(unnumbered(plan)) != plan
        else:
            problem, row = " is no JSON object", None
        if row is None:
            problems.add(where, problem, _remedy(key, value))
        else:
            rows.append(row)
    problems.require_none()
    if not rows:
        raise TaskError(f"The file {file} holds no row.", f"Give another file as {key}.path.")
    return Recording(file, hashlib.sha256(data).hexdigest(), fields, rows, numbered)


def _values(text: str, problems: Problems) -> Iterator[tuple[str, Any]]:
    """(place, value) of every row: the elements of one JSON array, or the lines that aren't blank."""
    whole = text.lstrip().startswith("[")
    for number, part in enumerate([text] if whole else text.split("\n"), 1):
        if not part.strip():
            continue
        where = "the text" if whole else f"line {number}"
        try:
            value = strict_json(part)
        except ValueError as error:
            problems.add(where, f" is not JSON: {error}", "Correct it: JSON Lines, or one JSON array.")
            continue
        if whole:
            yield from ((f"row {at}", one) for at, one in enumerate(value, 1))
        else:
            yield where, value


_NONE = object()


def _row(row: dict[str, Any], fields: RowFields, needs: str) -> tuple[str, Row | None]:
    """What is wrong with a row, and the row where nothing is."""
    names = fields.model_dump()
    found = {field: value_at(row, path, _NONE) for field, path in names.items()}
    given = {field: None if value is _NONE else value for field, value in found.items()}
    if found[needs] is _NONE:
        return f" has no '{shown(names[needs])}'", None
    identity, asked = written_value(given["id"]), given["question"]
    if not isinstance(asked, str) and identity is None:
        return f" has neither '{shown(names['question'])}' nor '{shown(names['id'])}'", None
    plan, reply, right = given["subquestions"], given["reply"], given["right"]
    listed = isinstance(plan, list) and all(isinstance(step, str) for step in plan)
    if not (plan is None or isinstance(plan, str) or listed):
        return f": '{shown(names['subquestions'])}' is neither text nor a list of texts", None
    if reply is not None and not isinstance(reply, str) and written_value(reply) is None:
        return f": '{shown(names['reply'])}' is no text", None
    if right is not None and not (isinstance(right, (bool, int, float)) and right in (0, 1)):
        return f": '{shown(names['right'])}' is neither true nor false, 1 nor 0", None
    counts = [given[name] for name in ("input_tokens", "output_tokens")]
    tokens = [whole_number(count) for count in counts]  # pandas writes 10.0 for 10
    if any(count is not None and known is None for count, known in zip(counts, tokens, strict=True)):
        return ": its tokens are no whole numbers", None
    if isinstance(plan, list):
        plan = Subquestions.model_construct(items=tuple(map(one_line, unnumbered(plan)))).render()
    return "", Row(
        id=identity,
        question=_bare(asked) or None if isinstance(asked, str) else None,
        plan=None if found["subquestions"] is _NONE else plan or "",
        input_tokens=tokens[0],
        output_tokens=tokens[1],
        reply=None if found["reply"] is _NONE else reply if isinstance(reply, str) else written_value(reply) or "",
        right=None if right is None else bool(right),
    )


def _remedy(key: str, value: Any) -> str:
    names = ", ".join(shown(name) for name in _paths(value)) if isinstance(value, dict) else ""
    return f"Correct it, or name the fields in {key}.fields{f'; a row has {names}' if names else ''}."


def _paths(row: Mapping[str, Any], before: str = "") -> Iterator[str]:
    for name, value in row.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def plans_of(matching: Matching) -> dict[str, list[Plan]]:
    """The plans of a recorded teacher, by the questions' ids."""
    return {
        item: [Plan(row.plan or "", row.input_tokens, row.output_tokens) for row in rows]
        for item, rows in matching.rows.items()
    }


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _bare(text: str) -> str:
    return "".join(text.split())


def one_line(text: str) -> str:
    return " ".join(text.split())
