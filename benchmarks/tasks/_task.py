"""The section `task` of a pipeline file, and the table of sources."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from divcon.benchmarks.tasks._json import Form, Format
from divcon.distill import Choices, Table
from divcon.distill._paths import WrittenPath
from divcon.programs import Item

Splits = Callable[[str], bool]  # whether a split of a hub's data set is wanted


Reader = Callable[["Task", Splits | None], Iterable[Item]]  # gives the same questions each time


@dataclass(frozen=True)
class Source:
    """The source of a task's questions. It either reads existing questions or generates as many as are wanted.

    Attributes:
        read: Takes the task and the wanted splits of a hub's data set (None for all). Returns the questions, the same
            ones each time.
        draw: Takes the task, a part, a split (`train` or `test`), a count and a seed. Returns so many different
            questions.
        parts: The parts that questions are generated from, in equal numbers.
        common: For generated questions; see `divcon.distill.overlapping`.
        template_made: Whether questions are made from templates, so that only equal questions count as contamination.
        needs_data: Whether `path` or `hub` has to be given.
        needs_subtask: Whether `subtask` has to be given.
        extra: The extra of divcon that it needs.
        licence: Of its questions; empty where that isn't known, or they are generated here.
        grader: The grader of its answers; if empty, the form of the gold answer decides.
        own: Whether it reads files of any form: it takes `fields`, `format`, `encoding` and `delimiter`.
    """

    read: Reader | None = None
    draw: Callable[[Task, str, Literal["train", "test"], int, int], list[Item]] | None = None
    parts: tuple[str, ...] = ("",)
    common: int | None = None
    template_made: bool = False
    needs_data: bool = False
    needs_subtask: bool = False
    grader: str = ""
    extra: str = ""
    licence: str = ""
    own: bool = False


_SOURCES = "divcon.benchmarks.tasks._sources"
TASKS: Table[Source] = Table(
    "task",
    "divcon.tasks",
    {
        "offline": f"{_SOURCES}:OFFLINE_SOURCE",
        "word-problems": f"{_SOURCES}:WORD_PROBLEMS",
        "passage-hops": f"{_SOURCES}:PASSAGE_HOPS",
        "schedules": f"{_SOURCES}:SCHEDULES",
        "unit-conversion": f"{_SOURCES}:UNIT_CONVERSION",
        "deduction": f"{_SOURCES}:DEDUCTION",
        "reasoning-gym": f"{_SOURCES}:REASONING_GYM",
        "gsm8k": f"{_SOURCES}:GSM8K",
        "drop": f"{_SOURCES}:DROP",
        "bamboogle": f"{_SOURCES}:BAMBOOGLE",
        "musique": f"{_SOURCES}:MUSIQUE",
        "hotpotqa": f"{_SOURCES}:HOTPOTQA",
        "strategyqa": f"{_SOURCES}:STRATEGYQA",
        "svamp": f"{_SOURCES}:SVAMP",
        "multiarith": f"{_SOURCES}:MULTIARITH",
        "bbh": f"{_SOURCES}:BBH",
        "file": f"{_SOURCES}:FILE",
        "jsonl": f"{_SOURCES}:FILE",  # as it was called when it read JSON Lines alone
    },
    needs=("read", "draw", "parts", "needs_data", "grader"),
)


def _encoding(name: str) -> str:
    try:
        "".encode(name)
    except (LookupError, ValueError) as error:
        raise ValueError(f"there is no encoding of text {name!a}; write one such as cp1252 or utf-16") from error
    return name


class Allowed(BaseModel):
    """Questions that the contamination check lets through.

    Attributes:
        id: The id of a training or a test question, whatever it overlaps with.
        pair: The ids of a training question and a test question, in this order.
        reason: Why it is no contamination; the manifests of students and the report show it.
    """

    model_config = ConfigDict(extra="forbid")

    id: str | None = None
    pair: tuple[str, str] | None = None
    reason: str = Field(min_length=1)

    @model_validator(mode="after")
    def _one_of_them(self) -> Allowed:
        if (self.id is None) == (self.pair is None):
            raise ValueError("write id or pair, and not both")
        return self

    def holds(self, train: str, test: str) -> bool:
        """Whether an overlap of a training and a test question, by their ids, is let through."""
        return self.id in (train, test) or self.pair == (train, test)


class Fields(BaseModel):
    """The columns of one's own data. A dot leads into nested values: `answers.0.text`.

    Attributes:
        question: The question.
        answer: The gold answer.
        context: The passage that the question is about.
        subquestions: The reference subquestions: a list, or text that is read as a model's reply is.
        aliases: Other right answers, a list; in CSV it is written as JSON.
        grader: How the answer is graded.
        id: Names the question.
        family: The group of the question, for figures by group.
    """

    model_config = ConfigDict(extra="forbid")

    question: str = Field("question", min_length=1)
    answer: str = Field("answer", min_length=1)
    context: str | None = "context"
    subquestions: str | None = "subquestions"
    aliases: str | None = "aliases"
    grader: str | None = "grader"
    id: str | None = "id"
    family: str | None = "family"


def _count(value: object, *, least: int = 1) -> object:
    """A number of questions, or the share of them."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and value >= least):
        return value
    if isinstance(value, str) and re.fullmatch(_SHARE, value) and 0 < _percent(value) <= 100:
        return value
    raise ValueError("write an integer from 1, a share such as 70%, or all")


def _percent(share: str) -> Fraction:
    return Fraction(share.removesuffix("%"))


_SHARE = r"\d{1,3}(\.\d{1,6})?%"
_PARTS = {"type": "string", "pattern": f"^({_SHARE}|all)$"}
Count = Annotated[
    int | str, BeforeValidator(_count), WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, _PARTS]})
]
CountOrNone = Annotated[
    int | str,
    BeforeValidator(partial(_count, least=0)),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 0}, _PARTS]}),
]


def counted(count: int | str, total: int, other: int = 0) -> int:
    """The number of questions that `task.train` or `task.test` asks for.

    Args:
        count: A number, a share such as `70%`, or `all`.
        total: The number of questions in the set. Shares are of all of them, rounded down, and at least one question.
        other: The number of those that are drawn for the other part; `all` leaves them out.
    """
    if isinstance(count, int):
        return count
    return max(1, total - other if count == "all" else math.floor(_percent(count) * total / 100))


class Task(BaseModel):
    """The source and number of the questions.

    Attributes:
        name: The task: `word-problems`, `passage-hops`, `schedules`, `unit-conversion` or `deduction`, which are
            generated; `offline`, which is the first two of them; `reasoning-gym`, which its package generates;
            `gsm8k`, `drop`, `bamboogle`, `musique`, `hotpotqa`, `strategyqa`, `svamp`, `multiarith` or `bbh`; or
            `file` for your own data (`jsonl` is its older name).
        path: A file; for `bbh` and `file` also a folder. Training and test questions are drawn from it.
        test_path: A separate file of test questions; `path` then holds training questions only.
        hub: The hub name of a data set, instead of a path. Training and test questions are drawn from all its splits.
        test_split: The split of `hub`, or of a folder of your own, with the test questions; the other splits then hold
            training questions only.
        fields: For `file`, the columns of your data.
        format: For `file`, `jsonl`, `json`, `csv`, `tsv` or `parquet`, where the file's ending doesn't say so.
        encoding: For `file`, the encoding of text; UTF-8 by default.
        delimiter: For `file`, what separates the cells of CSV; a comma by default.
        subtask: For `bbh`, one file of the folder, or all without it; for `reasoning-gym`, the name of the data set.
        train: The number of training questions, their share of the questions that are read (`70%`), or `all` that
            aren't test questions; 0 where recorded arms alone are measured.
        test: The number of held-out test questions, their share, or `all` that aren't training questions.
        seed: Seeds the draw of questions, and their split into training and test questions.
        train_seed: Seeds the draw of training questions only, so that several seeds share a test set; `seed` by
            default.
        percent: Whether answers are shares, so that "12 %" and "0.12" are equal. Otherwise the percent sign is ignored.
        overlap: What to do with training questions that equal a test question, share a run of 13 words with one or
            nearly equal one: `refuse` the run, or `drop` them. `same` refuses equal questions only, for data made from
            one template.
        near_duplicate: The share of their runs of three words from which two questions nearly equal each other.
        allow: Questions that are let through all the same, each with the reason.
    """

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(TASKS.known), Choices(lambda: TASKS.own)]
    path: WrittenPath | None = None
    test_path: WrittenPath | None = None
    hub: str | None = None
    test_split: str | None = None
    subtask: str | None = None
    fields: Fields | None = None
    format: Format | None = None
    encoding: Annotated[str, AfterValidator(_encoding)] | None = None
    delimiter: str | None = Field(None, pattern=r"^[^\s\w\"]$|^\t$")
    train: CountOrNone
    test: Count
    seed: int = 0
    train_seed: int | None = None
    percent: bool = False
    overlap: Literal["refuse", "drop", "same"] = "refuse"
    near_duplicate: float = Field(0.7, ge=0.3, le=1)
    allow: list[Allowed] = Field(default_factory=list)

    @model_validator(mode="after")
    def _has_source(self) -> Task:
        source = TASKS[self.name]
        if source.needs_subtask and not self.subtask:
            raise ValueError(f"the task {self.name} needs subtask (the name of one of its data sets)")
        if source.needs_data and not (self.path or self.hub):
            raise ValueError(f"the task {self.name} needs path (a file) or hub (a data set's name)")
        if self.test_path and not self.path:
            raise ValueError("task.test_path needs task.path (the training questions)")
        if self.test_split and not (self.hub or (source.own and not self.test_path)):
            raise ValueError("task.test_split needs task.hub (a data set's name), or a folder of the task file")
        if (set_here := [key for key in ("fields", "format", "encoding", "delimiter") if getattr(self, key)]) and not (
            source.own
        ):
            raise ValueError(f"the task {self.name} takes no {set_here[0]}; your own data are the task file")
        return self

    @model_validator(mode="after")
    def _shares_fit(self) -> Task:
        shares = [count for count in (self.train, self.test) if isinstance(count, str)]
        if shares and TASKS[self.name].draw is not None:
            raise ValueError(
                f"the task {self.name} makes as many questions as are wanted: write train and test as numbers"
            )
        if len(shares) == 2 and not (self.test_path or self.test_split):
            if shares == ["all", "all"]:
                raise ValueError("train and test can't both be all questions; write one as a number or a share")
            if "all" not in shares and sum(map(_percent, shares)) > 100:
                raise ValueError(f"{self.train} and {self.test} are more than all questions")
        return self

    def allows(self, train: str, test: str) -> str | None:
        """The reason for which an overlap of a training and a test question is let through; None where it isn't."""
        return next((one.reason for one in self.allow if one.holds(train, test)), None)

    @property
    def form(self) -> Form:
        """How the files of one's own data are written."""
        return Form(self.format, self.encoding, self.delimiter)

    @property
    def training_seed(self) -> int:
        """The seed of the draw of training questions."""
        return self.seed if self.train_seed is None else self.train_seed
