"""The marker that a line of a list begins with: `1.`, `Q1:`, `1.1`, `a)`, `-`, `Question:`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

# Where a reply holds several lists, the first of these kinds is the list, and the others explain it.
Kind = Literal["number", "label", "subnumber", "letter", "bullet", "subquestion", "question"]
NUMBERED: tuple[Kind, ...] = ("number", "label")

_DECORATION = re.compile(r"^\s*(?:>\s*)*(?:#{1,6}\s+)?")  # a quotation, "> 1. How many?", and a heading, "## 1. Bags"
# "- How many?", "•How many?", "\item How many?", and a task list's "- [ ] How many?"; "-5 degrees" has none.
_BULLET = re.compile(r"(?:[-–—+*•‣◦▪●·]\s+|[-–—•‣◦▪●·](?=[^\W\d_])|\\item\s+)(?:\[[ xX]\]\s+)?")
_EMPHASIS = r"[*_]{0,3}"
# What ends a number: "1.", "1)", "**1.**", "1 - How", "1 How"; in "1.5 litres" the point doesn't.
_NUMBER_END = rf"{_EMPHASIS}(?:\s?[.):．、：）\]]{{1,2}}{_EMPHASIS}(?!\d)\s*|\s*[-–—]\s+|[ \t]+(?=[A-Z¿]))"
# A bullet may stand before each; alone it is a marker of its own.
_MARKERS: dict[Kind, re.Pattern[str]] = {
    # "1. How many?", "(1) How many?", "#1 How many?"; a keycap digit; "① How many?"; "一、How many?"
    "number": re.compile(
        rf"{_EMPHASIS}[(\[#]?(\d{{1,3}}){_NUMBER_END}|(\d)\ufe0f?\u20e3\s*|([①-⑳])\s*|([一二三四五六七八九十])、"
    ),
    # "Q1: How many?", "Step 1. How many?", "**Sub-question 1**" with its text on the next line
    "label": re.compile(
        rf"{_EMPHASIS}(?:sub[-_ ]?(?:question|problem)|question|step|part|q)[ _]?#?(\d{{1,3}})"
        rf"(?:{_NUMBER_END}|{_EMPHASIS}\s*$)",
        re.IGNORECASE,
    ),
    # "1.1 How many?", "**1.1.** How many?"
    "subnumber": re.compile(rf"{_EMPHASIS}(\d{{1,2}}(?:\.\d{{1,2}})+){_EMPHASIS}[.):]?{_EMPHASIS}\s+"),
    # "a) How many?", "(ii) How many?"
    "letter": re.compile(rf"{_EMPHASIS}\(?([a-z]|[ivx]{{1,4}})[.)]{_EMPHASIS}\s+", re.IGNORECASE),
    # "Subquestion: How many?"
    "subquestion": re.compile(rf"{_EMPHASIS}sub[-_ ]?question{_EMPHASIS}\s?[:：]{_EMPHASIS}\s*", re.IGNORECASE),
    # "Question: How many?", "Q: How many?"
    "question": re.compile(rf"{_EMPHASIS}(?:question|q){_EMPHASIS}\s?[:：]{_EMPHASIS}\s*", re.IGNORECASE),
}


class Marker(NamedTuple):
    """What a line of a list begins with, and the line's text without it.

    Attributes:
        kind: The notation.
        token: The number, letter or bullet, as written; empty where the notation has none.
        text: What follows the marker.
        indent: The blanks before it, in characters.
    """

    kind: Kind
    token: str
    text: str
    indent: int


def marker_of(line: str) -> Marker | None:
    """The marker that `line` begins with, perhaps behind a decoration or a bullet."""
    indent = len(line) - len(line.lstrip())
    text = undecorated(line)
    bullet = _BULLET.match(text)
    text = text[bullet.end() :] if bullet else text
    for kind, pattern in _MARKERS.items():
        if found := pattern.match(text):
            token = next((group for group in found.groups() if group), "")
            return Marker(kind, token, _text_behind(found, kind), indent)
    return Marker("bullet", bullet.group().strip(), text, indent) if bullet else None


def _text_behind(found: re.Match[str], kind: Kind) -> str:
    """What follows a marker on its line."""
    text = found.string[found.end() :]
    again = found.re.match(text) if kind == "label" else None
    if again and again.group().strip() == found.group().strip():  # "Q1: Q1: How many?"
        text = text[again.end() :]
    if found.group().count("**") % 2:  # "**1. Bags:** How many?" opens before its number
        text = text.replace("**", "", 1)
    return text


def unnumbered(items: Sequence[str]) -> tuple[str, ...]:
    """The items of a list; where each has its own number before it, without the numbers.

    Examples:
        >>> unnumbered(["1. How many bags?", "2. How many in all?"])
        ('How many bags?', 'How many in all?')
        >>> unnumbered(["2. How many?"])
        ('2. How many?',)
    """
    markers = [marker_of(item) for item in items]
    numbers = [marker.token if marker and marker.kind == "number" else None for marker in markers]
    if numbers != [str(number) for number in range(1, len(items) + 1)]:
        return tuple(items)
    return tuple(marker.text for marker in markers if marker)


def undecorated(line: str) -> str:
    """`line` without its indent, and without the signs of a quotation or a heading before its text."""
    return _DECORATION.sub("", line)


def list_kind(markers: Sequence[Marker]) -> Kind | None:
    """The kind of a reply's list by the markers of its lines, None where they mark none."""
    for kind in get_args(Kind):
        tokens = [marker.token for marker in markers if marker.kind == kind]
        if tokens and _marks_list(kind, tokens):
            return kind
    return None


def _marks_list(kind: Kind, tokens: Sequence[str]) -> bool:
    """Whether markers of a kind mark a list, and aren't the beginnings of sentences."""
    if kind == "subnumber":
        return tokens[0].endswith(".1")  # not "1.5 litres are how many?"
    if kind == "letter":
        first = [token.casefold() for token in tokens[:2]]
        return first in (["a", "b"], ["i", "ii"])  # not "A. Lincoln was born where?"
    if kind == "question":
        return len(tokens) > 1  # one alone repeats the question that was asked
    return True


def number_in(token: str) -> int:
    """The number that a token writes: 2 for `2`, `②` and `二`."""
    return int(token) if token.isdecimal() else int(unicodedata.numeric(token))
