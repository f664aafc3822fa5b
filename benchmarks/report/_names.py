"""The names of programs in a report: in words, with the paper's letters beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from divcon.benchmarks._tables import FACTORS
from divcon.benchmarks.arms import ArmKind, letters_of, read_arm
from divcon.distill import UnknownName

_BRACKETS = re.compile(r" \((scripted|recorded)\)")


@dataclass(frozen=True)
class Program:
    """A program as a report names it.

    Attributes:
        words: The name in words.
        letters: The short name: the paper's letters, or the name in `evaluate.arms`.
        meaning: What it does, in a sentence; empty where nobody has written it.
    """

    words: str
    letters: str
    meaning: str = ""

    @property
    def full(self) -> str:
        """The words with the letters in brackets; the words alone where they hold the letters."""
        return self.words if self.letters.casefold() in self.words.casefold() else f"{self.words} ({self.letters})"


def program_of(line: Mapping[str, Any]) -> Program:
    """The program of a line of results.

    Args:
        line: The results of an arm, with its `name` and `label`.
    """
    kind, label = _kind_of(line["name"]), line["label"]
    if kind is None:
        return Program(label, line["name"])
    meaning = _sentence(kind)
    if not label.startswith(kind.label):
        return Program(label, kind.letters, meaning)
    more = label.removeprefix(kind.label).replace(", trained on ", ", of ")
    more = _BRACKETS.sub(r", \1", more)  # the letters are in brackets too
    return Program((kind.words or kind.label) + more, letters_of(line["name"]), meaning)


def legend(lines: Iterable[Mapping[str, Any]]) -> list[Program]:
    """The programs of some lines, each once, with what they do."""
    found: dict[str, Program] = {}
    for line in lines:
        base = line["name"].partition("/")[0]
        kind = _kind_of(base)
        if base not in found and kind is not None:
            found[base] = Program(kind.words or kind.label, kind.letters, _sentence(kind))
    return list(found.values())


def row_label(line: Mapping[str, Any]) -> str:
    """A line's program, with the values that distinguish it from other lines of its task."""
    more = [str(line[name]) for name in FACTORS if name not in ("task", "trained_on") and name in line]
    named = program_of(line).full
    return f"{named}, {', '.join(more)}" if more else named


def _kind_of(name: str) -> ArmKind | None:
    try:
        return read_arm(name.partition("/")[0])[0]
    except UnknownName:
        return None


def _sentence(kind: ArmKind) -> str:
    return kind.meaning or f"An arm of an installed package: {kind.label}."
