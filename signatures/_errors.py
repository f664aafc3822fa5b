"""The root of every error this project raises.

It lives in the lowest room because every room above raises its own kinds.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError


class DivconError(Exception):
    """One sentence on what is wrong and one on the remedy.

    Args:
        problem: What is wrong and where.
        remedy: What the reader can do about it.
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{problem} {remedy}".strip())


def refusal(error: ValidationError) -> str:
    """The first thing that pydantic refuses, as `key: why`, or the reason alone where it is no single key's."""
    first = error.errors()[0]
    return ": ".join(part for part in (".".join(map(str, first["loc"])), first["msg"]) if part)


class SubquestionsError(DivconError, ValueError):
    """A reply that can't be read as a list of subquestions.

    It is a `ValueError` so that pydantic and DSPy's adapters treat it as a failed parse.

    Args:
        reason: `empty`, `cut_off`, `duplicate` or `unreadable`; the name under which screening counts it.
        items: The subquestions that stand whole in a list that repeats itself or is cut off, each once. A program
            may go on with them; a training row is never made of them.
    """

    def __init__(self, reason: str, problem: str, items: Sequence[str] = ()) -> None:
        self.reason = reason
        self.items = tuple(items)
        super().__init__(problem, "Ask again, or send the question to the solver whole.")
