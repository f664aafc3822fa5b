"""The section `task` of a pipeline file, and the table of sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

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
        grader: The grader of its answers; if empty, the form of the gold answer decides.
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
        "jsonl": f"{_SOURCES}:JSONL",
    },
    needs=("read", "draw", "parts", "needs_data", "grader"),
)


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


class Task(BaseModel):
    """The source and number of the questions.

    Attributes:
        name: The task: `word-problems`, `passage-hops`, `schedules`, `unit-conversion` or `deduction`, which are
            generated; `offline`, which is the first two of them; `reasoning-gym`, which its package generates;
            `gsm8k`, `drop`, `bamboogle`, `musique`, `hotpotqa`, `strategyqa`, `svamp`, `multiarith` or `bbh`; or
            `jsonl` for your own data.
        path: A file; for `bbh` also a folder of files. Training and test questions are drawn from it.
        test_path: A separate file of test questions; `path` then holds training questions only.
        hub: The hub name of a data set, instead of a path. Training and test questions are drawn from all its splits.
        test_split: The split of `hub` with the test questions; the other splits then hold training questions only.
        subtask: For `bbh`, one file of the folder, or all without it; for `reasoning-gym`, the name of the data set.
        train: The number of training questions; 0 where recorded arms alone are measured.
        test: The number of held-out test questions.
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
    train: int = Field(ge=0)
    test: int = Field(ge=1)
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
        if self.test_split and not self.hub:
            raise ValueError("task.test_split needs task.hub (a data set's name)")
        return self

    def allows(self, train: str, test: str) -> str | None:
        """The reason for which an overlap of a training and a test question is let through; None where it isn't."""
        return next((one.reason for one in self.allow if one.holds(train, test)), None)

    @property
    def training_seed(self) -> int:
        """The seed of the draw of training questions."""
        return self.seed if self.train_seed is None else self.train_seed
