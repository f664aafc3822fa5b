"""What a model is asked: one signature for each kind of call a program makes.

No two signatures are equal: optimizers
that tell predictors apart by signature (GEPA, GRPO) would otherwise take one for the other.
"""

from __future__ import annotations

import dspy

from divcon.signatures._subquestions import NO_DECOMPOSITION, Subquestions

DEFAULT_MAX_SUBQUESTIONS = 3  # the paper's best cap on DROP (section 4, ablation on the number of subquestions)


class Decompose(dspy.Signature):
    __doc__ = (
        f"Split the question into at most {DEFAULT_MAX_SUBQUESTIONS} subquestions that lead to its answer. "
        f"Don't answer them. If no split helps, write: {NO_DECOMPOSITION}"
    )

    context: str | None = dspy.InputField(default=None, desc="what the question is about")
    question: str = dspy.InputField(desc="the question to split")
    subquestions: Subquestions = dspy.OutputField(desc="in the order to answer them")


class Solve(dspy.Signature):
    """Answer each subquestion in order, then the question. End with the line 'Answer:' and the answer alone."""

    context: str | None = dspy.InputField(default=None, desc="what the question is about")
    question: str = dspy.InputField(desc="the question to answer in the end")
    subquestions: Subquestions | None = dspy.InputField(default=None, desc="to answer first")
    sub_answers: str = dspy.OutputField(desc="numbered lines, one a subquestion")
    answer: str = dspy.OutputField(desc="the final answer alone")


class SolveDirect(dspy.Signature):
    """Answer the question with the help of the subquestions. Write the answer alone."""

    context: str | None = dspy.InputField(default=None, desc="what the question is about")
    question: str = dspy.InputField(desc="the question to answer")
    subquestions: Subquestions | None = dspy.InputField(default=None, desc="the way to the answer")
    answer: str = dspy.OutputField(desc="the answer alone")


class SolveStep(dspy.Signature):
    """Answer the subquestion, using the steps already done. Write the answer alone."""

    context: str | None = dspy.InputField(default=None, desc="what the question is about")
    question: str = dspy.InputField(desc="the question behind the subquestion")
    steps: str | None = dspy.InputField(default=None, desc="subquestions answered so far")
    subquestion: str = dspy.InputField(desc="what to answer now")
    sub_answer: str = dspy.OutputField(desc="the answer to the subquestion")


NOTHING_MORE = "Nothing more."


class FollowUp(dspy.Signature):
    __doc__ = (
        "Write the one subquestion to answer next on the way to the question's answer, on one line. "
        f"Once the steps suffice, write: {NOTHING_MORE}"
    )

    context: str | None = dspy.InputField(default=None, desc="what the question is about")
    question: str = dspy.InputField(desc="the question to answer in the end")
    steps: str | None = dspy.InputField(default=None, desc="subquestions answered so far")
    follow_up: str = dspy.OutputField(desc="the next subquestion, or that nothing more is needed")


class Answer(dspy.Signature):
    """Answer the question. Write the answer alone."""

    context: str | None = dspy.InputField(default=None, desc="what the question is about")
    question: str = dspy.InputField(desc="the question to answer")
    answer: str = dspy.OutputField(desc="the answer alone")


class Reason(dspy.Signature):
    """Think step by step, then answer the question. End with the line 'Answer:' and the answer alone."""

    context: str | None = dspy.InputField(default=None, desc="what the question is about")
    question: str = dspy.InputField(desc="the question to answer")
    reasoning: str = dspy.OutputField(desc="the steps that lead to the answer")
    answer: str = dspy.OutputField(desc="the final answer alone")


def decompose_signature(max_subquestions: int = DEFAULT_MAX_SUBQUESTIONS) -> type[Decompose]:
    """`Decompose` with another cap on the number of subquestions written into its instruction.

    Args:
        max_subquestions: The cap, 1 or more. It is what the model is told; screening enforces it.

    Raises:
        ValueError: The cap is below 1.
    """
    if max_subquestions < 1:
        raise ValueError(f"max_subquestions is {max_subquestions}; it must be 1 or more.")
    told = Decompose.instructions.replace(f"at most {DEFAULT_MAX_SUBQUESTIONS}", f"at most {max_subquestions}")
    return Decompose.with_instructions(told)


def list_pattern(max_subquestions: int = DEFAULT_MAX_SUBQUESTIONS) -> str:
    """A regular expression of the replies that `Decompose` asks for, for servers that can be held to one.

    Args:
        max_subquestions: The cap, 1 or more.

    Examples:
        >>> import re
        >>> bool(re.fullmatch(list_pattern(2), "1. How many bags?\\n2. How many plums are in them?"))
        True
        >>> bool(re.fullmatch(list_pattern(2), "First I count the bags."))
        False
    """
    # No "?" inside, or a model could go on after its question; 200 characters, or it could go on without one.
    pattern = ""
    for number in range(max_subquestions, 0, -1):
        line = rf"{number}\. [A-Z][^\n?]{{2,200}}\?"
        pattern = line + (rf"(\n{pattern})?" if pattern else "")
    none = NO_DECOMPOSITION.replace(".", r"\.")
    return f"({none}|{pattern})"
