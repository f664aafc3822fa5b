"""divcon's own sources: generated families, reasoning-gym, public data sets, and users' own files."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from divcon.benchmarks.tasks._files import gsm8k_items
from divcon.benchmarks.tasks._gym import gym_items
from divcon.benchmarks.tasks._load import COMMON
from divcon.benchmarks.tasks._offline import OFFLINE, offline_items
from divcon.benchmarks.tasks._own import file_items
from divcon.benchmarks.tasks._problems import TaskError
from divcon.benchmarks.tasks._public import public_items
from divcon.benchmarks.tasks._task import Source, Splits, Task
from divcon.programs import Item


def _draw(task: Task, family: str, split: Literal["train", "test"], count: int, seed: int) -> list[Item]:
    return offline_items(family, split, count, seed)


def _draw_gym(task: Task, part: str, split: Literal["train", "test"], count: int, seed: int) -> list[Item]:
    """Questions of reasoning-gym.

    Its generators have no splits, and question i of seed s equals question i-1 of seed s+1. So training and test sets
    have seeds that are far apart.
    """
    start = 1_000_000_000 + 1_000_000 * seed if split == "test" else 1_000_000 * (seed + 1)
    return gym_items(str(task.subtask), count, start)


def _read_file(task: Task, splits: Splits | None) -> Iterable[Item]:
    if task.path is None:
        raise TaskError(f"The task {task.name} needs a file or a folder.", "Set task.path.")
    wanted = splits if task.test_split else None
    return file_items(task.path, task.fields, task.form, wanted)


def _read_gsm8k(task: Task, splits: Splits | None) -> Iterable[Item]:
    return gsm8k_items(task.path, task.hub, splits)


def _read_public(task: Task, splits: Splits | None) -> Iterable[Item]:
    return public_items(task.name, task.path, task.hub, task.subtask, splits)


def _generated(*families: str, grader: str = "") -> Source:
    return Source(draw=_draw, parts=families, grader=grader)


def _public(licence: str, grader: str = "") -> Source:
    return Source(_read_public, needs_data=True, grader=grader, licence=licence)


OFFLINE_SOURCE = _generated(*OFFLINE)
WORD_PROBLEMS = _generated("word-problems", grader="number")
PASSAGE_HOPS = _generated("passage-hops")
SCHEDULES = _generated("schedules")
UNIT_CONVERSION = _generated("unit-conversion")
DEDUCTION = _generated("deduction")
REASONING_GYM = Source(
    draw=_draw_gym, common=COMMON, template_made=True, needs_subtask=True, extra="gym", licence="Apache-2.0"
)
GSM8K = Source(_read_gsm8k, needs_data=True, grader="number", licence="MIT")
DROP = _public("CC BY-SA 4.0", "drop")
BAMBOOGLE = _public("MIT", "text")
MUSIQUE = _public("CC BY 4.0", "text")
HOTPOTQA = _public("CC BY-SA 4.0")
STRATEGYQA = _public("MIT", "yes_no")
SVAMP = _public("MIT", "number")
MULTIARITH = _public("research use", "number")
BBH = _public("MIT")
FILE = Source(_read_file, needs_data=True, own=True)
