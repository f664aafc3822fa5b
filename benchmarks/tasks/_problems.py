"""The problems of a file or a task, said together rather than one a run."""

from __future__ import annotations

from pathlib import Path

from divcon.signatures import DivconError

_SHOWN = 5


class TaskError(DivconError):
    """A task whose data is missing, broken or too small."""


class Problems:
    """Collects the problems of a file or a task.

    Args:
        where: The file; empty for a task.
        unit: What a problem is about, such as `line` or `question`.
    """

    def __init__(self, where: Path | None, unit: str) -> None:
        self._within, self._unit = f" of {where}" if where else "", unit
        self._first: list[tuple[str, str, str]] = []
        self._count = 0

    def add(self, which: str, problem: str, remedy: str) -> None:
        """Add one.

        Args:
            which: The line, question or row that it is about, such as `line 3`.
            problem: What is wrong, as the rest of a sentence about it: ` has no 'answer'`, or `: 'id' is no text`.
            remedy: What to do.
        """
        self._count += 1
        if len(self._first) < _SHOWN:
            self._first.append((which, problem, remedy))

    def require_none(self) -> None:
        """Raise an error that shows the first problems and says how many there are.

        Raises:
            TaskError: There are problems.
        """
        if not self._count:
            return
        which, problem, remedy = self._first[0]
        if self._count == 1:
            raise TaskError(f"{which[0].upper()}{which[1:]}{self._within}{problem}.", remedy)
        shown = "; ".join(f"{which}{problem}" for which, problem, _ in self._first)
        more = f"; and {self._count - len(self._first)} more" if self._count > len(self._first) else ""
        remedies = " ".join(dict.fromkeys(remedy for _, _, remedy in self._first))
        raise TaskError(f"{self._count} {self._unit}s{self._within} can't be used: {shown}{more}.", remedies)


def shown(text: str, longest: int = 40) -> str:
    """Text of a file for a message: short, and with what no terminal can print written as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:longest])


def unwritable(text: str) -> bool:
    """Whether text holds half of a character (a lone surrogate), which no file and no request can hold."""
    return any("\ud800" <= char <= "\udfff" for char in text)
