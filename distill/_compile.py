"""Compile: optimize the teacher's decomposition prompt with a DSPy teleprompter, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import AdapterParseError, LMError

from divcon.distill._engine import at_station
from divcon.programs import DivideAndConquer, Item
from divcon.signatures import DivconError

_SHORT = {"bootstrap": "BootstrapFewShot"}


class CompileError(DivconError):
    """A teleprompter that isn't there, doesn't take its arguments, or failed."""


def compile_program(
    program: DivideAndConquer,
    optimizer: str,
    items: Sequence[Item],
    grade: Callable[[Item, str], bool],
    arguments: dict[str, Any] | None = None,
) -> DivideAndConquer:
    """Run a teleprompter on a program whose decomposer is the teacher.

    Only `decompose` is changed: the solver is asked the same way before and after, so that whatever a student gains
    or loses later is the decomposer's.

    Args:
        program: The program; both LMs in place. It is not changed.
        optimizer: `bootstrap`, or the class name of a teleprompter in `dspy` or `dspy.teleprompt`.
        items: Training questions.
        grade: Whether an answer to an item is right.
        arguments: For the teleprompter's constructor.

    Returns:
        A compiled copy.

    Raises:
        CompileError: See above.
        dspy.LMError: A call failed, even if the teleprompter went on without it.
    """
    name = _SHORT.get(optimizer, optimizer)
    found = getattr(dspy, name, None) or getattr(dspy.teleprompt, name, None)
    if not inspect.isclass(found):
        raise CompileError(f"DSPy has no teleprompter called '{name}'.", "Write compile.optimizer: bootstrap, or none.")
    teleprompter: Any = found
    by_question = {item.question: item for item in items}

    def metric(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> bool:
        return prediction.status == "decomposed" and grade(by_question[example.question], prediction.answer)

    try:
        optimizing = teleprompter(metric=metric, **(arguments or {}))
    except TypeError as error:
        raise CompileError(f"{name} doesn't take these arguments: {error}.", "Correct compile.arguments.") from error
    student = program.deepcopy()
    watch = _ErrorWatch()
    with at_station("compile"), dspy.context(callbacks=[*dspy.settings.callbacks, watch]):
        try:
            compiled = optimizing.compile(student, trainset=[item.example() for item in items])
        except (ValueError, TypeError, AttributeError, AdapterParseError) as error:
            raise CompileError(f"{name} failed: {error}.", "Try compile.optimizer: bootstrap, or none.") from error
    if watch.error is not None:
        raise watch.error
    result = program.deepcopy()
    result.decompose.signature = compiled.decompose.signature
    demos = [_kept_fields(demo, result.decompose.signature) for demo in compiled.decompose.demos]
    # Teleprompters fill up with labelled examples, which here have a question and nothing to show for it.
    result.decompose.demos = [demo for demo in demos if "subquestions" in demo]
    return result


class _ErrorWatch(BaseCallback):
    """Keeps the first LM error: teleprompters swallow them, and a compilation without its calls is none."""

    def __init__(self) -> None:
        self.error: LMError | None = None

    def on_lm_end(self, call_id: str, outputs: Any, exception: Exception | None = None) -> None:
        if self.error is None and isinstance(exception, LMError):
            self.error = exception


def _kept_fields(demo: Any, signature: Any) -> dict[str, Any]:
    return {name: demo[name] for name in signature.fields if name in demo and demo[name] is not None}
