"""Lists in lines: each item on a line of its own or behind a marker, with what models write between the items."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from divcon.signatures._errors import SubquestionsError
from divcon.signatures._items import checked, tidy
from divcon.signatures._markers import NUMBERED, Kind, Marker, list_kind, marker_of, number_in, undecorated
from divcon.signatures._questions import ASKS, SENTENCE_END, STOPS, has_word, inline_number, is_asked, is_ended

# ---- lists whose items have markers

_INLINE_PREAMBLE = re.compile(r"\A[^\n?]*?[:.!]\s+(?=\(?1[.)]\s)")  # "Sure! 1. How many bags?"
_ENDS_SENTENCE = re.compile(rf"[{ASKS}{STOPS}…:]\W*$")  # "1. How many bags are\nin the box?" goes on
# "Answer: 7", "A: 7", "7" and "12.5%." below a question
_ANSWER_BELOW = re.compile(r"\W*(?:(?:answer|a|result|solution)\W*:|\d[\d.,/%]*\W*$)", re.IGNORECASE)

# ---- lists whose items have none

_LONE_TAG = re.compile(r"</?\w+>")  # "</questions>" on a line of its own
_NEXT_QUESTION = re.compile(rf"(?<=[{ASKS}])[;,]?\s+|(?<=？)(?=\S)")  # "How many? And then?" on one line
_NO_TEXT = re.compile(rf"[\[{{<|]|.*(?:\||[{ASKS}][,;/])")  # a table's row, brackets, "How many?/How much?"
# "Could you tell me more?", "How can I help you?", "User: ..."
_TO_THE_READER = re.compile(
    r"(?:i'm|i am|i|sorry|please|(?:can|could|would|will|do) you|(?:shall|may|can|should) i|how (?:can|may) i|let me)\b"
    r"|(?:user|human|assistant|ai|system):",
    re.IGNORECASE,
)


class _Line(NamedTuple):
    text: str
    marker: Marker | None

    @property
    def content(self) -> str:
        """What the line says without its marker or decoration."""
        return self.marker.text if self.marker else undecorated(self.text)

    @property
    def is_blank(self) -> bool:
        return not self.text.strip()


def read_lines(text: str) -> tuple[str, ...]:
    """The subquestions of a list in lines.

    Raises:
        SubquestionsError: The list is cut off, repeats itself, or holds something else than subquestions.
    """
    lines = [_Line(line, marker_of(line)) for line in _one_item_a_line(text)]
    kind = list_kind([line.marker for line in lines if line.marker])
    return _read_marked(lines, kind) if kind else _read_unmarked(lines)


def _one_item_a_line(text: str) -> list[str]:
    """The reply's lines, with "1. How many? 2. And then?" broken before each number."""
    if not marker_of(text.splitlines()[0]):
        text = _INLINE_PREAMBLE.sub("", text, count=1)
    lines = text.splitlines()
    numbered = [(at, mark) for at, mark in enumerate(map(marker_of, lines)) if mark and mark.kind == "number"]
    if len(numbered) != 1:
        return lines
    at, marker = numbered[0]
    rest, after = marker.text, ASKS if any(ask in marker.text for ask in ASKS) else "."
    for number in range(number_in(marker.token) + 1, 100):
        rest, found = re.subn(inline_number(str(number), after), "\n", rest, count=1)
        if not found:
            break
    return [*lines[:at], *f"{marker.token}. {rest}".splitlines(), *lines[at + 1 :]]


class _MarkedList:
    """A list with markers, taken in line by line.

    Args:
        kind: The kind of its markers.

    Attributes:
        items: The items so far.
        tokens: Their numbers, letters or bullets.
    """

    def __init__(self, kind: Kind) -> None:
        self.items: list[str] = []
        self.tokens: list[str] = []
        self._kind = kind
        self._indent = 0  # of the list's first item
        self._item_is_open = False  # the next line may belong to the last item
        self._item_is_near = False  # no blank line has come since the last item began
        self._question_came_after = False  # a question without a marker stands below the last item

    def take(self, line: _Line) -> None:
        """Take in the list's next line.

        Raises:
            SubquestionsError: The line makes it unclear which questions are the list's.
        """
        marker = line.marker
        if marker and self._marks_item(marker):
            self._begin(marker)
        elif line.is_blank:
            self._item_is_near = False
            self._item_is_open = self._item_is_open and self._lacks_text()
        elif self._item_is_open and self._lacks_text():
            self.items[-1] = line.content
        elif self._item_is_open and not marker and self._is_broken_before(line.text.strip()):
            self.items[-1] += " " + line.text.strip()
        else:
            self._pass_by(line)

    def _marks_item(self, marker: Marker) -> bool:
        """Whether a marker is of the list's kind; bullets below bullets explain the item above them."""
        is_nested = self._kind == "bullet" and bool(self.items) and marker.indent > self._indent + 1
        return marker.kind == self._kind and not is_nested

    def _begin(self, marker: Marker) -> None:
        if self._question_came_after:
            raise SubquestionsError("unreadable", "A question stands between the items.")
        self._indent = self._indent if self.items else marker.indent
        self.items.append(marker.text)
        self.tokens.append(marker.token)
        self._item_is_open = self._item_is_near = True

    def _lacks_text(self) -> bool:
        """Whether the last item has a marker alone, and its text is to come on a line below."""
        return not self.items[-1].strip()

    def _is_broken_before(self, text: str) -> bool:
        """Whether `text` goes on with the last item: a sentence, in small letters or in a script that has none."""
        goes_on = text[0].isalpha() and not text[0].isupper() and not _ANSWER_BELOW.match(text)
        return goes_on and not _ENDS_SENTENCE.search(self.items[-1])

    def _pass_by(self, line: _Line) -> None:
        """Leave out a line that explains or surrounds the items, unless it asks what may be the list's."""
        self._item_is_open = False
        marker = line.marker
        if not is_asked(tidy(marker.text if marker else line.text)):
            return
        if marker:  # in another notation: fine where it repeats the question, or stands under an item
            is_under_item = bool(self.items) and (self._item_is_near or marker.indent > self._indent)
            is_outside = marker.kind != "question" and not is_under_item
        else:  # fine before the list and after it
            is_outside = self._item_is_near
            self._question_came_after = bool(self.items)
        if is_outside:
            raise SubquestionsError("unreadable", "A question stands outside the list.")


def _read_marked(lines: Sequence[_Line], kind: Kind) -> tuple[str, ...]:
    found = _MarkedList(kind)
    for line in lines:
        found.take(line)
    if not found.items[-1].strip() or _begins_another(lines, found.tokens[-1]):
        whole = checked([item for item in found.items if item.strip()])
        raise SubquestionsError("cut_off", f"The list ends before its next item, after '{whole[-1][-40:]}'.", whole)
    if not all(item.strip() for item in found.items):
        raise SubquestionsError("unreadable", "An item of the list is empty.")
    subquestions = checked(found.items)
    if kind in NUMBERED:
        numbers = [number_in(token) for token in found.tokens]
        if numbers[0] > 1 or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise SubquestionsError("unreadable", f"The items are numbered {', '.join(map(str, numbers))}.")
        if any(line.marker and line.marker.kind in NUMBERED and line.marker.kind != kind for line in lines):
            raise SubquestionsError("unreadable", "The reply holds two numbered lists.")
    return subquestions


def _begins_another(lines: Sequence[_Line], token: str) -> bool:
    """Whether the reply stops inside the marker of the item after `token`'s: `2`, `**2`, `-`."""
    last = next(line for line in reversed(lines) if not line.is_blank)
    if last.marker:
        return False
    if token.isdecimal():
        return last.text.strip(" \t*_#>([") == str(number_in(token) + 1)
    return last.text.strip() == token


def _read_unmarked(lines: Sequence[_Line]) -> tuple[str, ...]:
    """Questions on lines of their own; any other line has to be known for what it is, or the reply is refused."""
    items = list(_unmarked_items(line.text for line in lines))
    if not items:
        raise SubquestionsError("unreadable", "The reply holds no subquestion.")
    if len(items) == 1:
        items = _NEXT_QUESTION.split(tidy(items[0]))
        if len(items) > 1 and (":" in items[0] or any(item[0].islower() for item in items)):
            # "Ask: How many? How much?", "How many? and how much?"
            raise SubquestionsError("unreadable", "The line holds more than one question.")
    for item in dict.fromkeys(items):
        if marker_of(item) or _NO_TEXT.match(item) or SENTENCE_END.search(item) or _TO_THE_READER.match(item):
            raise SubquestionsError("unreadable", f"'{item[:60]}' is not a subquestion.")
    subquestions = checked(items)
    if not is_ended(subquestions[-1]):
        middle = f"The last line ends in the middle: '{subquestions[-1][-40:]}'."
        raise SubquestionsError("cut_off", middle, subquestions[:-1])
    return subquestions


def _unmarked_items(lines: Iterator[str]) -> Iterator[str]:
    """The lines that may be items: no rules or tags, no heading or preamble before the first, no answers below one."""
    has_begun = False
    for line in lines:
        text = undecorated(line).strip()
        if not has_word(text) or _LONE_TAG.fullmatch(text):
            continue
        if has_begun and _ANSWER_BELOW.match(text):
            continue
        is_heading = line.lstrip().startswith("#") and not is_asked(tidy(text))
        if not has_begun and (is_heading or text.rstrip("*_ ").endswith((":", "："))):
            continue
        has_begun = True
        yield text
