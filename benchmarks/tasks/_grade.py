"""Grading replies without a run: each against gold answers of a task."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from divcon.benchmarks._graders import GRADERS, Verdict, item_of
from divcon.benchmarks.tasks._load import as_share
from divcon.benchmarks.tasks._task import TASKS
from divcon.signatures import DivconError


class GradingError(DivconError):
    """A grader that isn't there, or a gold answer that it can't grade by."""


def grade_replies(
    task: str,
    pairs: Iterable[tuple[int, list[str], str, str]],
    *,
    grader: str = "strict",
    percent: bool = False,
    file: Path | None = None,
) -> list[Verdict]:
    """The verdicts on replies.

    Args:
        task: The task's name, which decides what its answers are.
        pairs: Line number (0 where there is no file), gold answers, reply and question, as `read_pairs` gives them.
        grader: A name of `GRADERS`.
        percent: Whether numeric answers are shares.
        file: Where the pairs stand, for messages.

    Raises:
        UnknownName: There is no such task.
        GradingError: There is no such grader, or a gold answer is of another form than the task's.
    """
    kind = TASKS[task].grader
    if grader not in GRADERS:
        raise GradingError(f"There is no grader '{grader}'.", f"Write {' or '.join(GRADERS)}.")
    found = []
    for number, golds, said, asked in pairs:
        item = item_of(kind, golds, asked, task)
        try:
            found.append(GRADERS[grader](as_share(item) if percent else item, said))
        except ValueError as error:
            where = f"Line {number} of {file}: " if number else ""
            raise GradingError(f"{where}{error}.", f"Correct the gold answer, or the task {task}.") from error
    if not found:
        raise GradingError("There is nothing to grade.", "Give at least one reply with a gold answer.")
    return found
