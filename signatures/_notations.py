"""Lists in a notation for data: tags, JSON, JSON Lines, Python, and Python whose quotes no parser takes."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from divcon.signatures._errors import SubquestionsError
from divcon.signatures._markers import marker_of

Value = dict[str, Any] | list[Any] | tuple[Any, ...]

# "<subquestion>How many?</subquestion>", "<li>How many?</li>"
_ITEM_TAG = re.compile(r"^\s*<(sub[-_]?question|question|item|step|q|li)\b", re.MULTILINE | re.IGNORECASE)
_ANY_TAG = re.compile(r"</?\w")  # "<item><b>How many?</b></item>"
# Where a line opens brackets around quotes: '["How many?"', '[{"question": ...', 'subquestions = ["How many?"'
_OPENING = re.compile(r"^[ \t]*(?:\w+[ \t]*[=:][ \t]*)?(?=[\[({]\s*(?:[\[({]\s*)*[\"'])", re.MULTILINE)
_CLOSING = {"[": "]", "{": "}", "(": ")"}
# '["How many?" "And then?"]': a comma is missing, and Python would join the neighbours.
_NO_COMMA = re.compile(r"""['"]\s*['"]""")
_BETWEEN_ITEMS = re.compile(r"['\"]\s*,\s*['\"]")  # "['What is Tom's age?', 'And Ann's?']"
# "['Who asked 'why?' first?']": a quote inside may be an item's end as well.
_QUOTE_OR_END = re.compile(r"""\?['"][\s\]'"]|[\[{]['"]""")


def read_notation(text: str) -> Value | None:
    """The list in `text` as data, perhaps below a preamble; None where it is in no such notation.

    Raises:
        SubquestionsError: The list has no end, or it can't be told where its items end.
    """
    if tag := _ITEM_TAG.search(text):
        return _read_tagged(text, re.escape(tag.group(1)))
    return _read_literal(text)


def _read_tagged(text: str, tag: str) -> list[str]:
    """The items of `<subquestion>How many?</subquestion>`, one tag an item."""
    if len(re.findall(f"</{tag}>", text, re.IGNORECASE)) < len(re.findall(rf"<{tag}\b", text, re.IGNORECASE)):
        raise SubquestionsError("cut_off", "A tag in the reply has no end.")
    items: list[str] = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", text, re.DOTALL | re.IGNORECASE)
    if any(map(_ANY_TAG.search, items)):
        raise SubquestionsError("unreadable", "The tags in the reply hold other tags.")
    return items


def _read_literal(text: str) -> Value | None:
    """JSON or Python; None where the text only looks like it."""
    opening = _OPENING.search(text)
    if opening and not any(map(marker_of, text.splitlines())):
        text = text[opening.end() :]
    elif text[0] not in "[{":
        return None
    lines = [_literal(line) for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and all(isinstance(line, dict) for line in lines):  # JSON Lines
        return lines
    end = text.rfind(_CLOSING[text[0]]) + 1
    value, rest = _literal(text[:end]), text[end:].strip()
    if opening and (rest[:1] == text[0] or (rest and value is None)):
        raise SubquestionsError("cut_off", "The list in the reply has no end.")
    if isinstance(value, (dict, list, tuple)):
        return value
    return _read_quoted(text) if opening else None


def _literal(text: str) -> Any:
    """The value of a JSON or Python literal, None where it is neither."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        pass
    if _NO_COMMA.search(text):
        return None
    try:
        value = ast.literal_eval(text)
        return ast.literal_eval(f"[{text[1:-1]}]") if isinstance(value, set) else value  # a set has lost the order
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):  # all that literal_eval raises
        return None


def _read_quoted(text: str) -> list[str]:
    """The items of `['What is Tom's age?', 'And Ann's?']`, whose quotes neither Python nor JSON takes."""
    body = text[1:-1].strip()
    items = _BETWEEN_ITEMS.split(body[1:-1])
    is_quoted = text[0] == "[" and len(body) > 1 and body[0] in "'\"" and body[-1] in "'\""
    is_mixed = len({item.rstrip().endswith("?") for item in items}) > 1
    if not is_quoted or is_mixed or _QUOTE_OR_END.search(body):
        raise SubquestionsError("unreadable", "The quotes in the list can't be told from those around its items.")
    return items
