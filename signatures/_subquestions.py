"""`Subquestions`: the type of a decomposition, which reads what models really write when asked for one.

DSPy's own `list[str]` parsing repairs JSON, which turns `1. What is in [a]?` into `['a']` and
`['What is Tom's age?']` into shards, silently. Reading here prefers a refusal to a guess: an item that comes out is a
whole question, or an instruction such as "Find the number of bags.", as the model wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import dspy
from pydantic import ConfigDict, model_validator

from divcon.signatures._errors import SubquestionsError
from divcon.signatures._items import distinct
from divcon.signatures._replies import read_subquestions, subquestions_in

NO_DECOMPOSITION = "No decomposition."


class Subquestions(dspy.Type):
    """An ordered list of subquestions; empty means that the question goes to the solver whole.

    It renders as numbered lines, the form that a small model is trained to write. Items are single lines of text.

    A rendered list reads back unchanged under three conditions. Every item has a letter or a digit and ends in a
    question mark. No two items differ only by case and closing marks. No item holds what belongs to a reply's form:
    Markdown bold, a chat model's control tokens or think tags, invisible characters, runs of spaces, or an item's
    number after a question mark ("How? 2. When?").

    A rendered list that is cut off anywhere is refused, or read up to a whole item, if each item is one sentence.

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
            # Python code passes a tuple. A repair of JSON leaves a list, which may hold shards of questions.
            return {"items": distinct(value["items"]) if value["items"] else ()}
        if isinstance(value, (dict, list, tuple)):
            return {"items": subquestions_in(value)}
        if isinstance(value, cls):
            return value
        raise SubquestionsError("unreadable", f"A {type(value).__name__} is not a list of subquestions.")

    @classmethod
    def read(cls, reply: str) -> Subquestions:
        """Read a model's reply.

        Raises:
            SubquestionsError: The reply is empty, is cut off, repeats itself, or holds anything but subquestions.
        """
        return cls.model_construct(items=read_subquestions(reply))

    def render(self) -> str:
        """One numbered line for each subquestion, or `NO_DECOMPOSITION` where there are none."""
        return "\n".join(f"{i}. {item}" for i, item in enumerate(self.items, 1)) or NO_DECOMPOSITION

    def format(self) -> str:
        """DSPy's hook: the value as a prompt shows it."""
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
