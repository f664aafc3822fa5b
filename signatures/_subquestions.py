"""`Subquestions`: what models really write when asked to decompose, read or refused.

DSPy's own `list[str]` parsing repairs JSON, which turns `1. What is in [a]?` into `['a']` and
`['What is Tom's age?']` into shards, silently. Everything here prefers a refusal to a guess.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

import dspy
from pydantic import ConfigDict, model_validator

from divcon.signatures._errors import SubquestionsError

NO_DECOMPOSITION = "No decomposition."

_FENCE = re.compile(r"^\s*```[\w-]*\s*\n(.*?)(?:\n\s*```\s*$|\Z)", re.DOTALL | re.MULTILINE)
_MARKER = re.compile(
    r"""^\s*(?:\*\*)?\s*(?:
        \(?\d{1,2}\s*[.):]            # 1.  1)  1:  (1)
      | (?:sub-?\s*question|question|step|q)\s*\#?\d{1,2}\s*[.):\-]   # Subquestion 1:  Step 2.
      | [-*•–]                        # bullets
    )(?:\*\*)?\s+""",
    re.VERBOSE | re.IGNORECASE,
)
_NONE_NEEDED = re.compile(
    r"""^\W*(?:
        no\ (?:further\ )?(?:decomposition|sub-?questions?)(?:\ (?:is\ |are\ )?(?:needed|necessary|required))?
      | none(?:\ needed)?
      | n/a
    )\W*$""",
    re.VERBOSE | re.IGNORECASE,
)
_KEYS = ("subquestions", "sub_questions", "questions", "items", "steps")


class Subquestions(dspy.Type):
    """An ordered list of subquestions; empty means that the question goes to the solver whole.

    It renders as numbered lines, the form a small model is trained to write. Items are single lines of text.

    Examples:
        >>> list(Subquestions.read("1. How many bags?\\n2. How many in all?"))
        ['How many bags?', 'How many in all?']
        >>> len(Subquestions.read("No decomposition."))
        0
    """

    model_config = ConfigDict(frozen=True)

    items: tuple[str, ...] = ()

    def __init__(self, items: Sequence[str] = (), **data: Any) -> None:
        super().__init__(items=tuple(items), **data)

    @model_validator(mode="before")
    @classmethod
    def _read_any(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"items": read_subquestions(value)}
        if isinstance(value, dict) and isinstance(value.get("items"), tuple):
            # From Python code; what a JSON repair left comes as a list, and only that may be shards.
            return {"items": _checked(value["items"]) if value["items"] else ()}
        if isinstance(value, dict):
            value = _from_mapping(value)
        if isinstance(value, (list, tuple)):
            return {"items": _from_sequence(value)}
        if isinstance(value, cls):
            return value
        raise SubquestionsError("unreadable", f"A {type(value).__name__} is not a list of subquestions.")

    @classmethod
    def read(cls, reply: str) -> Subquestions:
        """Read a model's reply.

        Raises:
            SubquestionsError: The reply is empty, cut off, repeats itself or holds no subquestion.
        """
        return cls.model_construct(items=read_subquestions(reply))

    def render(self) -> str:
        """Numbered lines, one a subquestion; a fixed sentence when there are none."""
        return "\n".join(f"{i}. {item}" for i, item in enumerate(self.items, 1)) or NO_DECOMPOSITION

    def format(self) -> str:
        """DSPy's hook: how the value stands in a prompt."""
        return self.render()

    @classmethod
    def description(cls) -> str:
        """DSPy's hook: what general adapters tell the model about the type."""
        return f"numbered lines, one subquestion a line, or '{NO_DECOMPOSITION}'"

    def __iter__(self) -> Iterator[str]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> str:
        return self.items[index]

    def __str__(self) -> str:
        return self.render()


def read_subquestions(reply: str) -> tuple[str, ...]:
    """The subquestions in `reply`, in order.

    Raises:
        SubquestionsError: See `Subquestions.read`.
    """
    text = without_thinking(reply)
    fenced = _FENCE.search(text)
    text = (fenced.group(1) if fenced else text).strip()
    if not text:
        raise SubquestionsError("empty", "The reply is empty.")
    if _NONE_NEEDED.match(text):
        return ()
    if text[0] in "[{" and (structured := _read_structured(text)) is not None:
        return structured
    return _read_lines(text)


def without_thinking(reply: str) -> str:
    """The reply after its last think block, whose opening tag may stand in the prompt.

    Raises:
        SubquestionsError: The reply ends inside a think block.
    """
    _, closed, after = reply.rpartition("</think>")
    text = after if closed else reply
    if "<think>" in text:
        raise SubquestionsError("cut_off", "The reply ends inside a think block.")
    return text


def _read_structured(text: str) -> tuple[str, ...] | None:
    """JSON or a Python list; None where the text only looks like one."""
    if text[-1] not in "]}":
        if re.match(r"^\[\s*['\"]|^\{\s*['\"]", text):
            raise SubquestionsError("cut_off", "The list in the reply has no end.")
        return None
    value: Any
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        if re.search(r"""['"]\s+['"]""", text):  # a comma is missing, and Python would join the neighbours
            raise SubquestionsError("unreadable", "The list in the reply lacks a comma.") from None
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            return _read_quoted_list(text)
    if isinstance(value, dict):
        value = _from_mapping(value)
    if isinstance(value, (list, tuple)):
        return _from_sequence(value)
    return None


def _read_quoted_list(text: str) -> tuple[str, ...] | None:
    """`['What is Tom's age?', 'And Ann's?']`: quotes inside that no parser of Python or JSON takes."""
    body = text[1:-1].strip()
    if text[0] != "[" or len(body) < 2 or body[0] not in "'\"" or body[-1] not in "'\"":
        return None
    items = re.split(r"['\"]\s*,\s*['\"]", body[1:-1])
    if len({item.rstrip().endswith("?") for item in items}) > 1:
        raise SubquestionsError("unreadable", "The quotes in the list can't be told from those around its items.")
    return _from_sequence(items)


def _from_mapping(value: dict[str, Any]) -> list[Any]:
    for key in _KEYS:
        if isinstance(value.get(key), (list, tuple)):
            return list(value[key])
        if isinstance(value.get(key), str):
            return list(read_subquestions(value[key]))
    raise SubquestionsError("unreadable", f"The object has none of the keys {', '.join(_KEYS)}.")


def _from_sequence(value: Sequence[Any]) -> tuple[str, ...]:
    if not value:
        return ()
    items: list[Any] = [item.get("question", item.get("text")) if isinstance(item, dict) else item for item in value]
    if not all(isinstance(item, str) for item in items):
        raise SubquestionsError("unreadable", "The list holds something that is not text.")
    for item in items:
        # Shards left by a JSON repair: one word, or half of a quoted string.
        if not re.search(r"\s", item.strip()) or item.strip()[-1] in "'\"" or item.strip()[0] in ",]":
            raise SubquestionsError("unreadable", f"'{item.strip()}' is not a subquestion.")
    return _checked(items)


def _read_lines(text: str) -> tuple[str, ...]:
    lines = text.splitlines()
    marked = [bool(_MARKER.match(line)) for line in lines]
    items: list[str] = []
    if any(marked):
        if sum(bool(re.match(r"\s*\(?1\s*[.):]", line)) for line in lines) > 1:
            raise SubquestionsError("unreadable", "The reply holds two numbered lists.")
        open_item = False
        for line, has_marker in zip(lines, marked, strict=True):
            if has_marker:
                items.append(_MARKER.sub("", line, count=1))
                open_item = True
            elif not line.strip():
                open_item = False
            elif open_item and items[-1].rstrip()[-1:] not in "?.!":
                items[-1] += " " + line.strip()  # a subquestion broken over two lines
    else:
        items = [line for line in lines if line.strip()]
        asked = [line for line in items if _tidy(line).endswith("?")]
        if not asked:
            raise SubquestionsError("unreadable", f"No subquestion could be read in '{text[:60]}'.")
        if _tidy(items[-1])[-1:].isalnum():
            raise SubquestionsError("cut_off", f"The last line ends in the middle: '{items[-1][-40:]}'.")
        if len(items) == 1 and re.search(r"[.!]\s", items[0]):
            raise SubquestionsError("unreadable", f"No subquestion could be read in '{text[:60]}'.")
        items = asked
    if len(items) == 1 and _NONE_NEEDED.match(_tidy(items[0])):
        return ()
    checked = _checked(items)
    if any(item.endswith("?") for item in checked[:-1]) and checked[-1][-1].isalnum():
        raise SubquestionsError("cut_off", f"The last subquestion ends in the middle: '{checked[-1][-40:]}'.")
    return checked


def _tidy(item: str) -> str:
    item = item.encode("utf-8", "replace").decode()  # a lone surrogate could be stored nowhere
    item = " ".join(item.replace("\u2028", " ").replace("\u2029", " ").replace("**", "").split())
    item = re.sub(r"(?<=\?)[\s=:$\d.,/+*()–—-]+$", "", item)  # an answer that a model added to its question
    if len(item) > 1 and item[0] in "\"'`" and item[-1] == item[0]:
        item = item[1:-1].strip()
    return item.rstrip("`").strip()


def _checked(items: Sequence[str]) -> tuple[str, ...]:
    tidy = tuple(_tidy(item) for item in items)
    tidy = tuple(item for item in tidy if item)
    if not tidy:
        raise SubquestionsError("empty", "The reply holds no subquestion.")
    if len({item.casefold() for item in tidy}) < len(tidy):
        raise SubquestionsError("duplicate", "The reply asks the same subquestion twice.")
    return tidy
