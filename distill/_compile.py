"""Compile: optimize the teacher's decomposition prompt with a DSPy teleprompter, by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback
from dspy.utils.exceptions import AdapterParseError, LMError

from divcon.distill._booking import at_station
from divcon.distill._metric import DecompositionMetric
from divcon.programs import DivideAndConquer, Item, OneRole
from divcon.programs._arguments import require_instance
from divcon.signatures import DivconError, Subquestions

_SHORT = {"bootstrap": "BootstrapFewShot"}
OPTIMIZERS = (
    "LabeledFewShot",
    "BootstrapFewShot",
    "BootstrapFewShotWithRandomSearch",
    "COPRO",
    "MIPROv2",
    "GEPA",
    "SIMBA",
    "InferRules",
)
OPTIMIZER_EXTRAS = {"MIPROv2": "optimize"}  # the extra of divcon that an optimizer needs
# Optimizers that a pipeline file can't name, because their result is not a prompt.
_ELSEWHERE = {
    "KNNFewShot": "it compiles anew for every question; use it in Python",
    "BestOfN": "it works at inference; wrap the program in Python",
    "Refine": "it works at inference; wrap the program in Python",
    "Ensemble": "it combines several programs into one; use it in Python",
    "BootstrapFinetune": "it trains weights, which 'divcon train' does here; use divcon.EmbeddedProvider in Python",
    "BetterTogether": "it trains weights, which 'divcon train' does here; use DistillDecomposer as its step in Python",
    "BootstrapFewShotWithOptuna": "use MIPROv2, which searches over demonstrations and instructions",
    "GRPO": "it trains weights, which 'divcon train' does here",
}


class CompileError(DivconError):
    """The teleprompter is unknown, doesn't take its arguments, or failed."""


def optimizer_name(optimizer: str) -> str:
    """The class name of the teleprompter that a pipeline file names.

    Raises:
        CompileError: There is no such teleprompter, or its result is not a prompt.
    """
    name = _SHORT.get(optimizer, optimizer)
    if name in _ELSEWHERE:
        raise CompileError(f"{name} can't be a pipeline's optimizer: {_ELSEWHERE[name]}.", f"Take {_listed()}.")
    if name not in OPTIMIZERS:
        raise CompileError(f"There is no optimizer '{optimizer}'.", f"Take {_listed()}, or none in a pipeline file.")
    return name


def compile_program(
    program: DivideAndConquer,
    optimizer: str,
    items: Sequence[Item],
    grade: Callable[[Item, str], bool],
    arguments: dict[str, Any] | None = None,
    prompt_lm: dspy.BaseLM | None = None,
) -> DivideAndConquer:
    """Run a teleprompter on a program whose decomposer is the teacher.

    The teleprompter sees `decompose` alone. The solver's prompt stays as it is, so that a later gain or loss of a
    student comes from the decomposer, and no call is spent on optimizing a prompt that would be thrown away.

    Args:
        program: The program, with both LMs set. It is not changed.
        optimizer: `bootstrap`, or a name in `OPTIMIZERS`.
        items: The training questions.
        grade: Says whether an answer to an item is right.
        arguments: Arguments of the teleprompter's constructor and of its `compile`; each takes those it knows.
        prompt_lm: The LM that writes instructions, for teleprompters that need one; the decomposer's LM by default.

    Returns:
        A compiled copy.

    Raises:
        CompileError: The teleprompter is unknown, doesn't take the arguments, or failed.
        UnusableArgument: `program` is no `DivideAndConquer`.
        RoleWithoutEndpoint: One of its roles has no LM.
        dspy.LMError: A call failed, even if the teleprompter went on without it.
    """
    name = optimizer_name(optimizer)
    require_instance("The program", program, DivideAndConquer, "a DivideAndConquer(teacher, solver)")
    for role in (program.decompose, program.solve):
        role.require_endpoint()
    teleprompter: Any = getattr(dspy, name, None) or getattr(dspy.teleprompt, name)
    by_id = {item.id: item for item in items}
    metric = DecompositionMetric(lambda example, answer: grade(by_id[example.id], answer))
    prompt_lm = prompt_lm or program.decompose.lm
    takes, compiles = _parameters(teleprompter.__init__), _parameters(teleprompter.compile)
    given = dict(arguments or {})
    unknown = sorted(set(given) - takes - compiles)
    if unknown and "kwargs" not in takes:
        raise CompileError(
            f"{name} doesn't take {', '.join(unknown)}; it takes {', '.join(sorted((takes | compiles) - _OURS))}.",
            "Correct the arguments (compile.arguments in a pipeline file).",
        )
    constructed = {key: value for key, value in given.items() if key not in compiles}
    if name != "LabeledFewShot":
        constructed["metric"] = metric
    for parameter in ("prompt_model", "reflection_lm"):
        if parameter in takes:
            constructed.setdefault(parameter, prompt_lm)
    student = OneRole(program.deepcopy(), "decompose")
    trainset = [_labelled(item) if name == "LabeledFewShot" else item.example() for item in items]
    watch = _ErrorWatch()
    # Some teleprompters write instructions with the global LM. No role answers with it.
    with at_station("compile"), dspy.context(callbacks=[*dspy.settings.callbacks, watch], lm=prompt_lm):
        try:
            optimizing = teleprompter(**constructed)
            passed = {key: value for key, value in given.items() if key in compiles}
            compiled = optimizing.compile(student, trainset=trainset, **passed)
        except LMError:
            raise
        except (ValueError, TypeError, AttributeError, AssertionError, ImportError, AdapterParseError) as error:
            raise CompileError(
                f"{name} failed: {type(error).__name__}: {error}.",
                "Correct the arguments (compile.arguments in a pipeline file), or take bootstrap.",
            ) from error
    if watch.error is not None:
        raise watch.error
    found = compiled.program.decompose
    result = program.deepcopy()
    result.decompose.signature = found.signature
    demos = [_kept_fields(demo, result.decompose.signature) for demo in found.demos]
    # Teleprompters fill up the demonstrations with labelled examples. Here these have a question and no decomposition.
    result.decompose.demos = [demo for demo in demos if "subquestions" in demo]
    return result


_OURS = {"self", "metric", "student", "trainset", "prompt_model", "reflection_lm", "kwargs"}


def _listed() -> str:
    return ", ".join(("bootstrap", *OPTIMIZERS[:-1])) + f" or {OPTIMIZERS[-1]}"


def _parameters(function: Any) -> set[str]:
    return {name for name in inspect.signature(function).parameters if not name.startswith("_")}


def _labelled(item: Item) -> dspy.Example:
    """An item as an example whose reference subquestions are the decomposition to demonstrate."""
    example = item.example()
    return example.copy(subquestions=Subquestions(item.subquestions)) if item.subquestions else example


class _ErrorWatch(BaseCallback):
    """Keeps the first LM error: teleprompters swallow errors, and a compilation whose calls failed is worthless."""

    def __init__(self) -> None:
        self.error: LMError | None = None

    def on_lm_end(self, call_id: str, outputs: Any, exception: Exception | None = None) -> None:
        if self.error is None and isinstance(exception, LMError):
            self.error = exception


def _kept_fields(demo: Any, signature: Any) -> dict[str, Any]:
    return {name: demo[name] for name in signature.fields if name in demo and demo[name] is not None}
