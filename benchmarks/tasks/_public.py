"""The public data sets: one reader each, from the files their authors publish or from a hub.

Every reader yields items whose fields a prompt can take as they are; none holds more than a row in memory but for the
formats that are one JSON document. A file is read strictly: a row without what it needs is named by its number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from divcon.benchmarks._graders import YES_NO
from divcon.benchmarks.tasks._files import PUBLISHED, Malformed, as_published, hub_rows, written_value
from divcon.benchmarks.tasks._json import opened_text, read_json_lines, strict_json
from divcon.benchmarks.tasks._problems import Problems, TaskError
from divcon.programs import Item

Row = Mapping[str, Any]


@dataclass(frozen=True)
class PublicTask:
    """A public data set.

    Attributes:
        name: As a pipeline file has it.
        read: Makes the items of a row, which has a number from 1.
        hub: Its usual hub name and configuration; the configuration is a subtask where it is None.
    """

    name: str
    read: Callable[[int, Row], Iterator[Item]]
    hub: tuple[str, str | None] | None = None


def public_items(
    name: str,
    path: Path | None,
    hub: str | None,
    subtask: str | None = None,
    splits: Callable[[str], bool] | None = None,
) -> list[Item]:
    """The items of a public data set.

    Args:
        name: One of `PUBLIC`.
        path: A file or, for `bbh`, a folder of them; `.gz` is unpacked.
        hub: A hub name instead.
        subtask: Of `bbh`; every file of the folder without it.
        splits: Of the hub; all of them by default.

    Raises:
        TaskError: The data can't be had, or rows are broken; the first ones are named.
    """
    task, problems = PUBLIC[name], Problems(path or hub, "row")
    items: list[Item] = []
    if path is not None and path.is_dir():
        files = sorted(path.glob(f"{subtask or '*'}.json"))
        if not files:
            raise TaskError(f"{path} holds no {subtask or '*'}.json.", "Check task.path and task.subtask.")
        for file in files:
            of_file = problems.part(file.name)
            items += _named(as_published(_rows_of(file, of_file), task.read, of_file), file.stem)
    elif path is not None:
        rows = as_published(_rows_of(path, problems), task.read, problems)
        items += _named(rows, path.stem if name == "bbh" else "")
    else:
        configuration = task.hub[1] if task.hub else None
        streamed = enumerate(hub_rows(str(hub), subtask or configuration, splits), 1)
        items += as_published(streamed, task.read, problems)
    problems.require_none()
    if not items:
        raise TaskError(f"{path or hub} holds no question.", "Check the data.")
    return items


def _named(items: Iterator[Item], family: str) -> Iterator[Item]:
    for item in items:
        yield replace(item, id=f"{item.family}-{family}-{item.id}" if family else item.id, family=family or item.family)


def _rows_of(file: Path, problems: Problems) -> Iterator[tuple[int, Row]]:
    """(number, row) of a file: JSON Lines, or a JSON document whose rows are a list or the values of a mapping."""
    if ".jsonl" in file.suffixes:
        yield from read_json_lines(file, problems)
        return
    try:
        with opened_text(file) as stream:
            document = strict_json(stream.read())
    except ValueError as error:
        raise TaskError(f"{file} is no JSON document: {error}.", "Give the published file.") from error
    if isinstance(document, dict) and isinstance(document.get("examples"), list):
        document = document["examples"]
    rows = document.values() if isinstance(document, dict) else document
    if not isinstance(document, (dict, list)):
        raise TaskError(f"{file} is neither a list of rows nor a mapping of them.", "Give the published file.")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            problems.add(f"row {number}", " is no JSON object", PUBLISHED)
            continue
        yield number, row


class _Fields:
    """A row whose missing or empty fields are errors."""

    def __init__(self, row: Row) -> None:
        self.row = row

    def text(self, *names: str) -> str:
        for name in names:
            if (value := written_value(self.row.get(name))) is not None:
                return value
        raise Malformed(f" has no '{names[0]}', or an empty one")

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of text that may be missing."""
        value = self.row.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise Malformed(f": '{name}' is not a list of text")
        return tuple(one.strip() for one in value or () if one.strip())

    def listed(self, name: str) -> list[Any]:
        value = self.row.get(name)
        if not isinstance(value, list) or not value:
            raise Malformed(f" has no list '{name}', or an empty one")
        return value


def _whole(value: str) -> str:
    return value.removesuffix(".0")


def _svamp(number: int, row: Row) -> Iterator[Item]:
    fields = _Fields(row)
    body = fields.text("Body")
    body = body if body.endswith((".", "?", "!")) else f"{body}."
    yield Item(
        id=str(row.get("ID") or f"svamp-{number}"),
        question=f"{body} {fields.text('Question')}",
        answer=_whole(fields.text("Answer")),
        family="svamp",
        grader="number",
    )


def _multiarith(number: int, row: Row) -> Iterator[Item]:
    fields = _Fields(row)
    answer = str(fields.listed("lSolutions")[0]) if "lSolutions" in row else fields.text("final_ans")
    yield Item(
        id=f"multiarith-{row.get('iIndex', number)}",
        question=fields.text("sQuestion", "question"),
        answer=_whole(answer),
        family="multiarith",
        grader="number",
    )


def _bamboogle(number: int, row: Row) -> Iterator[Item]:
    fields = _Fields(row)
    steps = [(str(row[f"Q{i}"]).strip(), fields.texts(f"A{i}") or ("",)) for i in range(1, 5) if row.get(f"Q{i}")]
    answer = fields.text("Answer")
    last = steps[-1][1] if steps else ()
    yield Item(
        id=f"bamboogle-{number}",
        question=fields.text("Question"),
        answer=answer,
        aliases=tuple(alias for alias in last if alias and alias != answer),
        subquestions=tuple(ask for ask, _ in steps),
        sub_answers=tuple(said[0] for _, said in steps),
        family="bamboogle",
        grader="text",
    )


def _strategyqa(number: int, row: Row) -> Iterator[Item]:
    fields = _Fields(row)
    if not isinstance(row.get("answer"), bool):
        raise Malformed(" has no 'answer' of true or false")
    yield Item(
        id=f"strategyqa-{row.get('qid', number)}",
        question=fields.text("question"),
        answer="yes" if row["answer"] else "no",
        subquestions=fields.texts("decomposition"),
        family="strategyqa",
        grader="yes_no",
    )


def _musique(number: int, row: Row) -> Iterator[Item]:
    fields = _Fields(row)
    steps = fields.listed("question_decomposition")
    passages = "\n\n".join(f"{p['title']}: {p['paragraph_text']}" for p in fields.listed("paragraphs"))
    yield Item(
        id=fields.text("id"),
        question=fields.text("question"),
        context=passages,
        answer=fields.text("answer"),
        aliases=fields.texts("answer_aliases"),
        subquestions=tuple(_asked(str(step["question"])) for step in steps),
        sub_answers=tuple(str(step["answer"]) for step in steps),
        family="musique",
        grader="text",
    )


def _asked(step: str) -> str:
    """A step of MuSiQue as a question; some are a subject and a relation, `Van Hook Township >> country`, and many
    lack the question mark that a list of subquestions needs to read back."""
    subject, arrow, relation = step.partition(">>")
    return f"What is the {relation.strip()} of {subject.strip()}?" if arrow else f"{step.strip().rstrip(' ?.')}?"


def _instruction(step: str) -> str:
    """A step of QDMR (Wolfson et al. 2020), `return number of  #1`, as a question or an instruction: `Find number of
    #1.`"""
    told = re.sub(r"\s+(?=[,.;:?)'’])", "", " ".join(step.split()))
    told = re.sub(r"^return ", "", told, flags=re.IGNORECASE).rstrip(" .;?")
    if not told:
        return ""
    if re.match(r"(?:which|what|who|whose|where|when|why|how|is|are|was|were|did|do|does)\b", told, re.IGNORECASE):
        return f"{told[0].upper()}{told[1:]}?"
    return f"{'Determine' if re.match(r'(?:if|whether) ', told, re.IGNORECASE) else 'Find'} {told}."


def _hotpotqa(number: int, row: Row) -> Iterator[Item]:
    fields = _Fields(row)
    given = row.get("context")
    if isinstance(given, dict):  # as the hub has it
        given = list(zip(given["title"], given["sentences"], strict=True))
    if not isinstance(given, list):
        raise Malformed(" has no list 'context'")
    passages = "\n\n".join(f"{title}: {''.join(sentences)}" for title, sentences in given)
    answer = fields.text("answer")
    yield Item(
        id=fields.text("_id", "id"),
        question=fields.text("question"),
        context=passages,
        answer=answer,
        family="hotpotqa",
        grader="yes_no" if answer.casefold() in ("yes", "no") else "text",
    )


def _bbh(number: int, row: Row) -> Iterator[Item]:
    fields = _Fields(row)
    target = fields.text("target")
    choice, yes_no = bool(re.fullmatch(r"\([A-Z]\)", target)), target.casefold() in YES_NO
    yield Item(
        id=str(number),
        question=fields.text("input"),
        answer=target,
        family="bbh",
        grader="choice" if choice else "yes_no" if yes_no else "",
    )


def _drop(number: int, row: Row) -> Iterator[Item]:
    fields = _Fields(row)
    if "qa_pairs" in row:
        for pair in fields.listed("qa_pairs"):
            golds = [_drop_answer(a) for a in (pair["answer"], *(pair.get("validated_answers") or ()))]
            yield _drop_item(str(pair["query_id"]), pair["question"], fields.text("passage"), golds)
    elif "answers_spans" in row:
        golds = [tuple(map(str, row["answers_spans"]["spans"]))]
        yield _drop_item(str(row.get("query_id", number)), fields.text("question"), fields.text("passage"), golds)
    elif "answers" in row:
        golds = [tuple(a) if isinstance(a, list) else (str(a),) for a in fields.listed("answers")]
        asked = {told.casefold(): told for step in fields.texts("qdmr") if (told := _instruction(step))}
        item = _drop_item(str(row.get("id", number)), fields.text("question"), fields.text("passage"), golds)
        yield replace(item, subquestions=tuple(asked.values()))
    else:
        told, _, question = fields.text("context").partition("\nQuestion: ")
        golds = [tuple(one.split(" and ")) for one in fields.text("ref_text").split("|")]
        whole = [(one,) for one in fields.text("ref_text").split("|")]
        both = list(dict.fromkeys([*whole, *golds]))
        question = question.removesuffix("\nAnswer:").strip()
        yield _drop_item(f"drop-{number}", question, told.removeprefix("Passage: ").strip(), both)


def _drop_answer(answer: Row) -> tuple[str, ...]:
    """The spans of an answer in DROP's own form: a number, spans, or a date."""
    if str(answer.get("number", "")).strip():
        return (str(answer["number"]).strip(),)
    if spans := answer.get("spans"):
        return tuple(map(str, spans))
    date = answer.get("date") or {}
    return (" ".join(str(date.get(part, "")) for part in ("day", "month", "year")).strip(),)


def _listed(spans: tuple[str, ...]) -> str:
    """Spans as text from which they can be told again."""
    apart = any(re.search(r",|;|\band\b|&", span) for span in spans)
    return ("; " if apart and len(spans) > 1 else ", ").join(spans)


def _drop_item(identity: str, question: str, passage: str, golds: list[tuple[str, ...]]) -> Item:
    given = tuple(dict.fromkeys(gold for gold in golds if any(span.strip() for span in gold)))
    if not given or not question.strip():
        raise Malformed(" has an empty question or answer")
    return Item(
        id=identity,
        question=question.strip(),
        context=passage,
        answer=_listed(given[0]),
        references=given,
        family="drop",
        grader="drop",
    )


PUBLIC: dict[str, PublicTask] = {
    task.name: task
    for task in (
        PublicTask("drop", _drop, ("ucinlp/drop", "default")),
        PublicTask("bamboogle", _bamboogle, ("chiayewken/bamboogle", "default")),
        PublicTask("musique", _musique, ("dgslibisey/MuSiQue", "default")),
        PublicTask("hotpotqa", _hotpotqa, ("hotpotqa/hotpot_qa", "distractor")),
        PublicTask("strategyqa", _strategyqa, ("ChilleD/StrategyQA", "default")),
        PublicTask("svamp", _svamp, ("ChilleD/SVAMP", "default")),
        PublicTask("multiarith", _multiarith, ("ChilleD/MultiArith", "default")),
        PublicTask("bbh", _bbh, ("lukaemon/bbh", None)),
    )
}
