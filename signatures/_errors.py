"""The root of every error this project raises.

It lives in the lowest room because every room above raises its own kinds.
"""

from __future__ import annotations

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
    """

    def __init__(self, reason: str, problem: str) -> None:
        self.reason = reason
        super().__init__(problem, "Ask again, or send the question to the solver whole.")
