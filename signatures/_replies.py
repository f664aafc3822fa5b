"""From a model's reply, or from data that stood in one, to the subquestions in it.

A reply is stripped of what stands around its list. Then it says that no split helps, or it is a list in a notation for
data, or a list in lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from divcon.signatures._errors import SubquestionsError
from divcon.signatures._framing import list_alone
from divcon.signatures._items import checked
from divcon.signatures._lists import read_lines
from divcon.signatures._markers import NUMBERED, marker_of
from divcon.signatures._notations import Value, read_notation
from divcon.signatures._questions import ASKS, is_asked
from divcon.signatures._turns import HALF_CHARACTER, own_words

_NONE = r"""(?:
    no\ (?:further\ )?(?:decomposition|sub-?questions?|split(?:ting)?|breakdown)
    (?:\ (?:is|are|helps))?(?:\ (?:needed|necessary|required|possible|helpful))?
  | no\ need\ to\ (?:decompose|split)(?:\ (?:it|this|the\ question))?
  | (?:the|this)\ question\ (?:cannot|can't|need\ not|needn't|does\ not\ need\ to|doesn't\ need\ to)
    \ be\ (?:decomposed|split|broken\ down)(?:\ further)?
  | none(?:\ needed)?
  | n/a
)"""
_NONE_ALONE = re.compile(rf"^\W*{_NONE}[^\w?]*$", re.VERBOSE | re.IGNORECASE)  # "No decomposition."
# "No decomposition, since it is one step."
_NONE_BECAUSE = re.compile(rf"^\W*{_NONE}(?:[.,:;!)*\n-]|\ (?:because|since|as|[-–—])\ )", re.VERBOSE | re.IGNORECASE)
# "3 + 4 = 7\nNo decomposition.": the model has solved the question before it says so.
_NONE_AT_END = re.compile(r"\W*no decomposition\W*", re.IGNORECASE)

_BLANK_LINES = re.compile(r"\n{3,}")  # a model that loops and writes nothing but line ends
# A longer list is a looping model's, and is read so far only. Lists of 300 subquestions are shorter.
_LONGEST = 16_384  # characters
_MOST_LINES = 1_000

_LIST_KEYS = ("subquestions", "sub_questions", "questions", "items", "steps", "decomposition")
_ITEM_KEYS = ("question", "subquestion", "sub_question", "text")
_KEY_GAP = re.compile(r"[\s-]")  # "Sub-questions" is the key "sub_questions"
_KEY_WORDS = re.compile(r"^(?:\D*_)?[a-z]*")  # what stands before the number of "q1" and "sub_question_1"


def read_subquestions(reply: str) -> tuple[str, ...]:
    """The subquestions in `reply`, in order; none where it says that no split helps.

    Raises:
        SubquestionsError: See `Subquestions.read`.
    """
    words = _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in own_words(reply).split("\n")))
    read = "".join(words.splitlines(keepends=True)[:_MOST_LINES])[:_LONGEST]
    found = _subquestions(read)
    if len(read) < len(words):
        raise SubquestionsError("cut_off", f"The list has no end within {len(read):,} characters.", found[:-1])
    return found


def _subquestions(words: str) -> tuple[str, ...]:
    text = list_alone(words)
    if not text:
        raise SubquestionsError("empty", "The reply is empty.")
    if _says_none(text):
        return ()
    value = read_notation(text)
    return read_lines(text) if value is None else subquestions_in(value)


def _says_none(text: str) -> bool:
    """Whether the text says that no split helps: in a sentence alone, with a reason behind it, or at its end."""
    if any(ask in text for ask in ASKS):
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    markers = [marker for marker in map(marker_of, lines) if marker]
    if len(markers) == 1 and len(lines) == 1:
        text = markers[0].text
    elif markers:
        return False
    return bool(_NONE_ALONE.match(text) or _NONE_BECAUSE.match(text) or _NONE_AT_END.fullmatch(lines[-1]))


def subquestions_in(value: Value) -> tuple[str, ...]:
    """The subquestions in a list, or in an object that holds one.

    Raises:
        SubquestionsError: An object holds no list, or an item is no subquestion: for instance a shard that a repair of
            JSON has left.
    """
    items = _list_in(value) if isinstance(value, dict) else value
    if not items:
        return ()
    texts = [_text_of(item) for item in items]
    if len(texts) == 1 and ("\n" in texts[0].strip() or _NONE_ALONE.match(texts[0])):
        return read_subquestions(texts[0])
    texts = _without_numbers(texts)
    for text in map(str.strip, texts):
        is_shard = len(text.split()) < 2 and not is_asked(text)  # "Tom", of "What is Tom's age?"
        if not text or is_shard or text[-1] in "'\"" or text[0] in ",]":
            raise SubquestionsError("unreadable", f"'{text}' is not a subquestion.")
    return checked(texts)


def _list_in(value: Mapping[str, Any]) -> list[Any]:
    """The list that an object holds: under one of the known names, or as values under numbered names."""
    by_name = {_KEY_GAP.sub("_", str(key).strip().casefold()): item for key, item in value.items()}
    for key in _LIST_KEYS:
        if isinstance(by_name.get(key), dict):
            by_name = by_name[key]
            break
        if isinstance(by_name.get(key), (list, tuple)):
            return list(by_name[key])
        if isinstance(by_name.get(key), str):
            return list(read_subquestions(by_name[key]))
    numbers = [_KEY_WORDS.sub("", str(key)) for key in by_name]
    if numbers and numbers == [str(i) for i in range(1, len(numbers) + 1)]:  # {"q1": "How many?", "q2": "And then?"}
        return list(by_name.values())
    raise SubquestionsError("unreadable", f"The object has none of the keys {', '.join(_LIST_KEYS)}.")


def _text_of(item: Any) -> str:
    """The text of a list's item, which may be an object that holds it."""
    text = next((item[key] for key in _ITEM_KEYS if key in item), None) if isinstance(item, dict) else item
    if not isinstance(text, str):
        raise SubquestionsError("unreadable", "The list holds something that is not text.")
    return HALF_CHARACTER.sub("\ufffd", text)  # JSON may write one out: \ud83d


def _without_numbers(items: list[str]) -> list[str]:
    """The items without their numbers, where each has one of the same kind."""
    markers = [marker for marker in map(marker_of, items) if marker]
    kinds = {marker.kind for marker in markers}
    is_numbered = len(markers) == len(items) and len(kinds) == 1 and kinds <= set(NUMBERED)
    return [marker.text for marker in markers] if is_numbered else items
