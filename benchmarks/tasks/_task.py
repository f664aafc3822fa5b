"""A task: where the questions come from, as a pipeline file says it, and the table of sources."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from divcon.distill import Choices, Table
from divcon.programs import Item

Splits = Callable[[str], bool]  # whether a split of a hub's data set is wanted


@dataclass(frozen=True)
class Source:
    """Where the questions of a task come from. It reads what there is, or draws as many as are wanted.

    Attributes:
        read: Gives the questions of a file or a hub's splits (None for all of them), the same ones each time.
        draw: Generates different questions: part, split (`train` or `test`), how many, seed.
        parts: What questions are drawn from, in equal numbers.
        common: See `divcon.distill.overlapping`; for questions that are drawn.
        template_made: Whether equal wording is the template's: then only equal questions count as contamination.
        needs_data: Whether `path` or `hub` has to be given.
        needs_subtask: Whether `subtask` has to be given.
        extra: The extra of divcon that it needs.
        grader: What its answers are; by the form of the gold answer where it is empty.
    """

    read: Callable[[Task, Splits | None], Iterable[Item]] | None = None
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
)


class Task(BaseModel):
    """Where the questions come from.

    Attributes:
        name: `word-problems`, `passage-hops`, `schedules`, `unit-conversion` or `deduction`, which are generated, or
            `offline`, the first two of them; `reasoning-gym`, which its package generates; `gsm8k`, `drop`,
            `bamboogle`, `musique`, `hotpotqa`, `strategyqa`, `svamp`, `multiarith` or `bbh`; or `jsonl`, your own.
        path: A file; for `bbh` also a folder of files. Training and test questions are drawn from it.
        test_path: A file of test questions, where they have one of their own; `path` holds training questions then.
        hub: A data set's hub name, instead of a path; training and test questions are drawn from all its splits.
        test_split: The hub's split with the test questions; the others hold training questions then.
        subtask: Of `bbh`, all of the folder without it; for `reasoning-gym` the data set's name.
        train: Questions to collect on.
        test: Held-out questions to evaluate on.
        seed: Of what is drawn, and where train and test part.
        train_seed: Of the training questions alone, so that several seeds share a test set; `seed` without it.
        percent: Whether answers are shares: "12 %" and "0.12" are the same then. Otherwise the sign says nothing.
        overlap: What to do with training questions that stand in the test set too, whole or in a run of 13 words:
            `refuse` the run, or `drop` them. `same` refuses equal questions only, for data made from one template.
    """

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, AfterValidator(TASKS.known), Choices(lambda: TASKS.own)]
    path: Path | None = None
    test_path: Path | None = None
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
            raise ValueError("task.test_path goes with task.path (the training questions)")
        if self.test_split and not self.hub:
            raise ValueError("task.test_split goes with task.hub (a data set's name)")
        return self

    @property
    def training_seed(self) -> int:
        """What draws the training questions."""
        return self.seed if self.train_seed is None else self.train_seed
