"""The arguments of programs, checked before any call is paid for."""

from __future__ import annotations

from typing import Any

import dspy

from divcon.signatures import UnusableArgument


def require_question(question: Any) -> str:
    """The question, as it was given.

    Raises:
        UnusableArgument: It isn't text, or is blank.
    """
    if not isinstance(question, str):
        raise UnusableArgument(f"The question is a {type(question).__name__}, not text.", "Give it as a str.")
    if not question.strip():
        raise UnusableArgument("The question is empty.", "Write one.")
    return question


def require_context(context: Any) -> str | None:
    """The passage; None where it is blank.

    Raises:
        UnusableArgument: It is neither text nor None.
    """
    if context is not None and not isinstance(context, str):
        raise UnusableArgument(
            f"The context is a {type(context).__name__}, not text.", "Give one str; join passages with blank lines."
        )
    return context if context and context.strip() else None


def require_whole_number(name: str, value: Any, *, least: int, most: int | None = None) -> None:
    """Refuse what is no whole number within limits.

    Raises:
        UnusableArgument: It isn't.
    """
    if isinstance(value, int) and not isinstance(value, bool) and least <= value and (most is None or value <= most):
        return
    limits = f"{least} or more" if most is None else f"from {least} to {most}"
    raise UnusableArgument(f"{name} is {value!r}.", f"Give a whole number, {limits}.")


def require_instance(name: str, value: Any, kind: type | tuple[type, ...], wanted: str) -> None:
    """Refuse a value of another class.

    Args:
        name: The argument's name.
        value: What was given.
        kind: The class that it has to be of, or several.
        wanted: What to give instead, in words or code.

    Raises:
        UnusableArgument: It is of another class.
    """
    if not isinstance(value, kind):
        raise UnusableArgument(f"{name} is a {type(value).__name__}.", f"Give {wanted}.")


def require_callable(name: str, value: Any, example: str) -> None:
    """Refuse what can't be called.

    Args:
        name: The argument's name.
        value: What was given.
        example: A function that could be given, as code.

    Raises:
        UnusableArgument: It can't be called.
    """
    if not callable(value):
        raise UnusableArgument(f"{name} is a {type(value).__name__}.", f"Give a function: {example}.")


def require_program(program: Any) -> None:
    """Refuse what is no DSPy program.

    Raises:
        UnusableArgument: It isn't one.
    """
    require_instance("The program", program, dspy.Module, "a dspy.Module, such as DivideAndConquer(planner, solver)")
