"""What the docstring of a class tells of it, and of its attributes."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Told:
    """What a docstring tells.

    Attributes:
        summary: All that stands before the `Attributes:` section, a paragraph a line.
        attributes: What that section says of each attribute, on one line.
    """

    summary: str
    attributes: dict[str, str]


def told_of(cls: type) -> Told:
    """What a class's docstring tells, and those of the classes it derives from where it says nothing of an attribute.

    Args:
        cls: A class with docstrings in Google style.
    """
    attributes: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        attributes |= _split(base)[1]
    return Told(_split(cls)[0], attributes)


def _split(cls: type) -> tuple[str, dict[str, str]]:
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    before, _, section = text.partition("\nAttributes:\n")
    paragraphs = (" ".join(paragraph.split()) for paragraph in before.split("\n\n"))
    # An entry is indented by four, and what goes on from it by more; the section ends where neither is.
    entries = re.findall(r"^    (\w+): (.+(?:\n {5,}.+)*)", section.partition("\n\n")[0], re.MULTILINE)
    return "\n".join(filter(None, paragraphs)), {name: " ".join(said.split()) for name, said in entries}
