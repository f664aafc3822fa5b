"""Tasks: the sources of questions, and their split into training and test questions."""

from divcon.benchmarks.tasks._columns import guess_fields
from divcon.benchmarks.tasks._files import gsm8k_items, read_pairs
from divcon.benchmarks.tasks._grade import GradingError, grade_replies
from divcon.benchmarks.tasks._json import Form
from divcon.benchmarks.tasks._load import (
    COMMON,
    LONGEST_QUESTION,
    Fold,
    LoadedTask,
    as_share,
    load_task,
    refuse_overlap_across,
)
from divcon.benchmarks.tasks._offline import FAMILIES, OFFLINE, Split, offline_items, split_of, template_instance
from divcon.benchmarks.tasks._own import file_items
from divcon.benchmarks.tasks._problems import TaskError
from divcon.benchmarks.tasks._public import PUBLIC, PublicTask, public_items
from divcon.benchmarks.tasks._rows import seen_form
from divcon.benchmarks.tasks._task import TASKS, Fields, Source, Splits, Task

__all__ = [
    "COMMON",
    "FAMILIES",
    "LONGEST_QUESTION",
    "OFFLINE",
    "PUBLIC",
    "TASKS",
    "Fields",
    "Fold",
    "Form",
    "GradingError",
    "LoadedTask",
    "PublicTask",
    "Source",
    "Split",
    "Splits",
    "Task",
    "TaskError",
    "as_share",
    "file_items",
    "grade_replies",
    "gsm8k_items",
    "guess_fields",
    "load_task",
    "offline_items",
    "public_items",
    "read_pairs",
    "refuse_overlap_across",
    "seen_form",
    "split_of",
    "template_instance",
]
