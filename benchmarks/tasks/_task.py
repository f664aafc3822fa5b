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
        train: The number of training questions.
        test: The number of held-out test questions.
        seed: Seeds the draw of questions, and their split into training and test questions.
        train_seed: Seeds the draw of training questions only, so that several seeds share a test set; `seed` by
            default.
        percent: Whether answers are shares, so that "12 %" and "0.12" are equal. Otherwise the percent sign is ignored.
        overlap: What to do with training questions that equal a test question or share a run of 13 words with one:
            `refuse` the run, or `drop` them. `same` refuses equal questions only, for data made from one template.
    """

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(TASKS.known), Choices(lambda: TASKS.own)]
    path: WrittenPath | None = None
    test_path: WrittenPath | None = None
    hub: str | None = None
    test_split: str | None = None
    subtask: str | None = None
    train: int = Field(ge=1)
    test: int = Field(ge=1)
    seed: int = 0
    train_seed: int | None = None
    percent: bool = False
    overlap: Literal["refuse", "drop", "same"] = "refuse"

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

    @property
    def training_seed(self) -> int:
        """The seed of the draw of training questions."""
        return self.seed if self.train_seed is None else self.train_seed
