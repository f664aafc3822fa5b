"""Tasks: where the questions come from, how they are split, and what belongs to an answer."""

from divcon.benchmarks.tasks._files import TaskError, gsm8k_items, json_lines_items
from divcon.benchmarks.tasks._load import LONGEST_QUESTION, LoadedTask, load_task
from divcon.benchmarks.tasks._offline import FAMILIES, Split, offline_items, split_of, template_instance

__all__ = [
    "FAMILIES",
    "LONGEST_QUESTION",
    "LoadedTask",
    "Split",
    "TaskError",
    "gsm8k_items",
    "json_lines_items",
    "load_task",
    "offline_items",
    "split_of",
    "template_instance",
]
