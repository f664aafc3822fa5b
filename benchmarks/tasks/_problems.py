"""The problems of a file or a task, said together rather than one a run."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from divcon.signatures import DivconError

_SHOWN = 5


class TaskError(DivconError):
    """A task whose data is missing, broken or too small."""


@dataclass
class _Kind:
    """One problem, its remedy, and the places that have it: the first ones by name."""

    problem: str
    remedy: str
    places: list[str] = field(default_factory=list)
    count: int = 0

    def __str__(self) -> str:
        first, *also = self.places
        if not also:
            return first + self.problem
        units = {place.partition(" ")[0] for place in self.places}
        if units in ({"line"}, {"row"}):  # the unit is said once: `line 3 has no 'answer' (also lines 7, 9)`
            unit = units.pop()
            also = [place.removeprefix(f"{unit} ") for place in also]
            also[0] = f"{unit}{'s' if self.count > 2 else ''} {also[0]}"
        more = f" and {self.count - len(self.places):,} more" if self.count > len(self.places) else ""
        return f"{first}{self.problem} (also {', '.join(also)}{more})"


class Problems:
    """Collects the problems of a file or a task. Equal ones are said once, with their first places.

    Args:
        where: The file or the data set; empty for a task.
        unit: What a problem is about, such as `line` or `question`.
    """

    def __init__(self, where: Path | str | None, unit: str) -> None:
        self._within, self._unit, self._part = f" of {where}" if where else "", unit, ""
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._of_all: dict[str, str] = {}
        self._unshown: Counter[str] = Counter()  # by remedy

    def __bool__(self) -> bool:
        return bool(self._kinds or self._of_all)

    def part(self, name: str) -> Problems:
        """The same problems, where those that are added have the name of a part behind their place."""
        view = copy.copy(self)
        view._part = f" of {name}"
        return view

    def add(self, which: str, problem: str, remedy: str) -> None:
        """Add one.

        Args:
            which: The line, question or row that it is about, such as `line 3`.
            problem: What is wrong, as the rest of a sentence about it: ` has no 'answer'`, or `: 'id' is no text`.
            remedy: What to do.
        """
        key = (problem, remedy)
        if key not in self._kinds:
            if sum(one.remedy == remedy for one in self._kinds.values()) == _SHOWN:
                self._unshown[remedy] += 1
                return
            self._kinds[key] = _Kind(problem, remedy)
        kind = self._kinds[key]
        kind.count += 1
        if len(kind.places) < _SHOWN:
            kind.places.append(which + self._part)

    def add_of_all(self, problem: str, remedy: str) -> None:
        """Add a problem of the whole file.

        Args:
            problem: A sentence that names the file.
            remedy: What to do.
        """
        self._of_all[problem] = remedy

    def require_none(self) -> None:
        """Raise an error that says all of them: those of the whole first, then the others by kind.

        Raises:
            TaskError: There are problems.
        """
        if not self:
            return
        kinds = [*self._kinds.values()]
        sentences = [*self._of_all]
        unshown = self._unshown.total()
        count = sum(kind.count for kind in kinds) + unshown
        if count == 1:
            which = kinds[0].places[0]
            sentences.append(f"{which[0].upper()}{which[1:]}{self._within}{kinds[0].problem}.")
        elif kinds:
            more = f"; and {unshown:,} more" if unshown else ""
            listed = "; ".join(map(str, kinds))
            sentences.append(f"{count:,} {self._unit}s{self._within} can't be used: {listed}{more}.")
        remedies = dict.fromkeys([*self._of_all.values(), *(kind.remedy for kind in kinds)])
        raise TaskError(" ".join(sentences), " ".join(remedies))


def shown(text: str, longest: int = 40) -> str:
    """Text of a file for a message: short, and with what no terminal can print written as an escape."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:longest])


def listed(names: Sequence[str], most: int = 30) -> str:
    """Names of a file for a message, not too many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{shown(name)}'" for name in names[:most]) + more


def unwritable(text: str) -> bool:
    """Whether text holds half of a character (a lone surrogate), which no file and no request can hold."""
    return any("\ud800" <= char <= "\udfff" for char in text)
