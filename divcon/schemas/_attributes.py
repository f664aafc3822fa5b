"""Read the docstring of a class: its summary, and the meanings of its attributes."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class ClassDoc:
    """The content of a class's docstring.

    Attributes:
        summary: The text before the `Attributes:` section, one line per paragraph.
        attributes: The text on each attribute in that section, on one line, by the attribute's name.
    """

    summary: str
    attributes: dict[str, str]


def class_doc(cls: type) -> ClassDoc:
    """The content of a class's docstring. Attributes that it doesn't describe are taken from the base classes.

    Args:
        cls: A class with docstrings in Google style.
    """
    attributes: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        attributes |= _split(base)[1]
    return ClassDoc(_split(cls)[0], attributes)


def _split(cls: type) -> tuple[str, dict[str, str]]:
    text = inspect.cleandoc(cls.__dict__.get("__doc__") or "")
    before, _, section = text.partition("\nAttributes:\n")
    paragraphs = (" ".join(paragraph.split()) for paragraph in before.split("\n\n"))
    # An entry is indented by four spaces, its further lines by more. An empty line ends the section.
    entries = re.findall(r"^    (\w+): (.+(?:\n {5,}.+)*)", section.partition("\n\n")[0], re.MULTILINE)
    return "\n".join(filter(None, paragraphs)), {name: " ".join(meaning.split()) for name, meaning in entries}
