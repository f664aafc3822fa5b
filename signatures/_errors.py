"""The base class of every error that this project raises, and the error of reading subquestions.

They live in the lowest package because every package above derives its own errors from them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pydantic import ValidationError

from divcon.signatures._secrets import masked


class DivconError(Exception):
    """An error that says in one sentence what is wrong, and in one what to do.

    Both are masked of secrets, and can be written as UTF-8 whatever they quote.

    Args:
        problem: What is wrong and where.
        remedy: What the reader can do about it.

    Attributes:
        code: Names the kind of error for programs: the class's name in lower case with hyphens, without `Error`. It
            stays the same where the words of a message change.

    Examples:
        >>> SubquestionsError("empty", "The reply is empty.").code
        'subquestions'
    """

    code: str = "divcon"

    def __init_subclass__(cls, **more: object) -> None:
        super().__init_subclass__(**more)
        if "code" not in vars(cls):
            words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z]+", cls.__name__.removesuffix("Error"))
            cls.code = "-".join(words).lower()

    def __init__(self, problem: str, remedy: str = "") -> None:
        # Half of a character, such as "\ud800" in a file, can't be printed or logged.
        self.problem, self.remedy = (masked(text).encode("utf-8", "replace").decode() for text in (problem, remedy))
        super().__init__(f"{self.problem} {self.remedy}".strip())


class FatalError(DivconError):
    """An error that ends a run: every further call would fail in the same way, or its reply couldn't be stored."""


class UnusableArgument(DivconError, ValueError):
    """A function was given a value that it can't use: an empty question, a context that isn't text, an unknown name."""


def refusal(error: ValidationError) -> str:
    """The first error of a validation as `key: reason`, or the reason alone where it concerns no single key."""
    first = error.errors()[0]
    return ": ".join(part for part in (".".join(map(str, first["loc"])), first["msg"]) if part)


class SubquestionsError(DivconError, ValueError):
    """A reply that can't be read as a list of subquestions.

    It is a `ValueError` so that pydantic and DSPy's adapters treat it as a failed parse.

    Args:
        reason: `empty`, `cut_off`, `duplicate` or `unreadable`; screening counts by it.
        problem: What is wrong.
        items: The whole subquestions of a list that repeats itself or is cut off, each once. A program may use them; no
            training row is made of them.
    """

    def __init__(self, reason: str, problem: str, items: Sequence[str] = ()) -> None:
        self.reason = reason
        self.items = tuple(items)
        super().__init__(problem, "Ask again, or send the question to the solver whole.")
