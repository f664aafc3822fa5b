"""The items of a list: without what models put around each of them, each a whole subquestion, and none twice."""

from __future__ import annotations

import re
from collections.abc import Sequence

from divcon.signatures._errors import SubquestionsError
from divcon.signatures._questions import ASKS, STOPS, is_asked, is_begun, is_ended, is_instruction, is_subquestion
from divcon.signatures._turns import HALF_CHARACTER, INVISIBLE

_BOLD = re.compile(r"(?<![\w*])\*\*(?=\S)([^*]+?)(?<=\S)\*\*(?![\w*])")  # "How many **red bags** are there?"
# "How many? 7", "How many? = 7", "How many? (7)", "How many? **Answer:** 7"
_ANSWER_BESIDE = re.compile(
    rf"(?<=[{ASKS}])\s*(?:[=:>(\[→–—-]+\s*)?(?:\**(?:answer|a)\**\s*:|=|[$€£]?\d)[^{ASKS}]*$", re.IGNORECASE
)
_TRAILING_MARK = re.compile(rf"(?<=[\"'”’»`])\s*[,;]+$|(?<=[{ASKS}])\s*[,;.!]+$")  # '"How many?",', "How many?;"
_CLOSING_EMPHASIS = re.compile(rf"(?<=[{ASKS}.])\s*[*_`]+$")  # "How many?**", opened before the item's number
# What may enclose an item, with the pattern of what must not stand inside then: in '"Who" or "what"' the first quote
# and the last are no pair. An apostrophe within a word is no quote; emphasis may stand inside emphasis.
_PAIRS = ('""', "``", "“”", "‘’", "«»", "„“", "「」", "()")
_NOTHING = re.compile(r"(?!)")
_ENCLOSING = {
    **{pair[0]: (pair[1], re.compile(f"[{re.escape(pair)}]")) for pair in _PAIRS},
    "'": ("'", re.compile(r"(?<!\w)'|'(?!\w)")),
    "*": ("*", _NOTHING),
    "_": ("_", _NOTHING),
}
_MOST_LAYERS = 10
_END_MARKS = re.compile(rf"[\s{ASKS}{STOPS}]+$")  # "How many?" and "how many" ask the same


def checked(items: Sequence[str]) -> tuple[str, ...]:
    """The items, tidied, where each is a whole subquestion and none comes twice.

    Raises:
        SubquestionsError: They aren't. Where the last is cut off or one comes twice, the error has the whole ones.
    """
    tidied = _tidied(items)
    *before, last = tidied
    asked = any(map(is_asked, tidied))
    for item in before:
        half = asked and not is_ended(item) and not is_instruction(item)
        if half or not is_subquestion(item):
            raise SubquestionsError("unreadable", f"'{item[:60]}' is not a subquestion.")
    if not (is_subquestion(last) if is_ended(last) else before or is_begun(last)):
        raise SubquestionsError("unreadable", f"'{last[:60]}' is not a subquestion.")
    found = _distinct(tidied)
    # All lines of a list may lack a mark at their ends; where only the last lacks it, the last is cut off.
    if not is_ended(last) and (not before or any(map(is_ended, before)) or not is_subquestion(last)):
        raise SubquestionsError("cut_off", f"The last subquestion ends in the middle: '{last[-40:]}'.", found[:-1])
    return found


def distinct(items: Sequence[str]) -> tuple[str, ...]:
    """The items, tidied, where none comes twice; case and the marks at their ends make no difference.

    Raises:
        SubquestionsError: There is none, or one comes twice.
    """
    return _distinct(_tidied(items))


def _distinct(tidied: tuple[str, ...]) -> tuple[str, ...]:
    first: dict[str, int] = {}
    for place, item in enumerate(tidied):
        first.setdefault(_END_MARKS.sub("", item.casefold()), place)
    if len(first) < len(tidied):
        last = len(tidied) - 1
        whole = tuple(tidied[place] for place in first.values() if place < last or is_ended(tidied[place]))
        raise SubquestionsError("duplicate", "The reply asks the same subquestion twice.", whole)
    return tidied


def _tidied(items: Sequence[str]) -> tuple[str, ...]:
    once = {item: _unwrapped(item) for item in dict.fromkeys(items)}  # a reply that loops repeats thousands
    tidied = tuple(text for item in items if (text := once[item][0]))
    if not tidied:
        raise SubquestionsError("empty", "The reply holds no subquestion.")
    if not all(is_bare for _, is_bare in once.values()):
        raise SubquestionsError("unreadable", f"An item stands in more than {_MOST_LAYERS} pairs of quotes.")
    return tidied


def tidy(item: str) -> str:
    """The item on one line, without bold, quotes, an answer beside it, and other things that models put around it."""
    return _unwrapped(item)[0]


def _unwrapped(item: str) -> tuple[str, bool]:
    """The item as `tidy` gives it, and whether nothing is left around it."""
    item = HALF_CHARACTER.sub("\ufffd", INVISIBLE.sub("", item))
    item = _BOLD.sub(r"\1", " ".join(item.split()))
    for _ in range(_MOST_LAYERS):
        if (peeled := _peeled(item)) == item:
            return item, True
        item = peeled
    return item, _peeled(item) == item


def _peeled(item: str) -> str:
    """The item without one layer of what models put around it."""
    item = _TRAILING_MARK.sub("", _ANSWER_BESIDE.sub("", item))
    item = _CLOSING_EMPHASIS.sub("", item) if item[:1] not in "*_`" else item
    closing, not_inside = _ENCLOSING.get(item[:1], ("", _NOTHING))
    inner = item[1:-1].strip()
    if len(item) > 2 and item[-1] == closing and not not_inside.search(inner):
        return inner
    return item
