"""The signatures: one for each kind of call that a program makes.

The instructions were chosen on a model that was trained on none of them (benchmarks/results/perf-real.json). A solver
that writes steps is shown no demonstrations, since those that shorten its reasoning cost it accuracy. It is given the
subquestions as hints, since an instruction to answer them one by one costs it accuracy too. A decomposer and a solver
that writes its answer alone are shown demonstrations; without them, a small model writes out a solution instead.

No two signatures are equal, because some optimizers (GEPA, GRPO) tell predictors apart by their signatures.
"""

from __future__ import annotations

import re

import dspy

from divcon.signatures._errors import UnusableArgument
from divcon.signatures._subquestions import NO_DECOMPOSITION, Subquestions

DEFAULT_MAX_SUBQUESTIONS = 3  # the paper's best cap on DROP (section 4, ablation on the number of subquestions)

_NO_SPLIT = f"If no split helps, write: {NO_DECOMPOSITION}"
_ENDS_WITH_ANSWER = "Then write the final answer on a line of its own, as 'Final answer: ...'."


class Decompose(dspy.Signature):
    __doc__ = (
        f"Split the question into at most {DEFAULT_MAX_SUBQUESTIONS} subquestions that lead to its answer, in the "
        "order to answer them. Write one numbered line for each, and nothing else. Don't answer them."
    )

    context: str | None = dspy.InputField(default=None, desc="what the question is about")
    question: str = dspy.InputField(desc="the question to split")
    subquestions: Subquestions = dspy.OutputField(desc="in the order to answer them")


class Solve(dspy.Signature):
    __doc__ = f"Please reason step by step. {_ENDS_WITH_ANSWER}"

    context: str | None = dspy.InputField(default=None, desc="what the question is about")
    question: str = dspy.InputField(desc="the question to answer in the end")
    subquestions: Subquestions | None = dspy.InputField(default=None, desc="hints to the steps")
    sub_answers: str = dspy.OutputField(
        desc="the steps that lead to the answer, as many and as long as they need to be"
    )
    answer: str = dspy.OutputField(desc="the final answer alone")


class SolveDirect(dspy.Signature):
    """Answer the question with the help of the subquestions. Write the answer alone: no steps, no explanation."""

    context: str | None = dspy.InputField(default=None, desc="what the question is about")
    question: str = dspy.InputField(desc="the question to answer")
    subquestions: Subquestions | None = dspy.InputField(default=None, desc="the way to the answer")
    answer: str = dspy.OutputField(desc="the answer alone")


class SolveStep(dspy.Signature):
    __doc__ = f"Answer the subquestion, using the steps already done. {_ENDS_WITH_ANSWER}"

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
    """Answer the question. Write the answer alone: no steps, no explanation."""

    context: str | None = dspy.InputField(default=None, desc="what the question is about")
    question: str = dspy.InputField(desc="the question to answer")
    answer: str = dspy.OutputField(desc="the answer alone")


class Reason(dspy.Signature):
    __doc__ = f"Please reason step by step. {_ENDS_WITH_ANSWER}"

    context: str | None = dspy.InputField(default=None, desc="what the question is about")
    question: str = dspy.InputField(desc="the question to answer")
    reasoning: str = dspy.OutputField(desc="the steps that lead to the answer")
    answer: str = dspy.OutputField(desc="the final answer alone")


class Conclude(dspy.Signature):
    """Here is a question, and a reply to it. Write the reply's final answer alone: no steps, no explanation."""

    question: str = dspy.InputField(desc="what was asked")
    reply: str = dspy.InputField(desc="what was replied")
    answer: str = dspy.OutputField(desc="the final answer alone")


_ANSWERED = (Solve, SolveDirect, SolveStep, Answer, Reason, Conclude)


def ends_in_answer(signature: type[dspy.Signature]) -> bool:
    """Whether a signature is one of this module's that end in an answer, with any instruction.

    Their replies are read by `read_answer`. In a user's own signature, a field called `answer` may be a long text.
    """
    return tuple(signature.fields) in {tuple(asked.fields) for asked in _ANSWERED}


def decompose_signature(max_subquestions: int = DEFAULT_MAX_SUBQUESTIONS, allow_whole: bool = False) -> type[Decompose]:
    """`Decompose` with another cap on the number of subquestions written into its instruction.

    Args:
        max_subquestions: The cap, 1 or more. The instruction names it; screening enforces it.
        allow_whole: Let the model write that no split helps. A small model then writes it of every question.

    Raises:
        UnusableArgument: The cap is below 1.
    """
    if max_subquestions < 1:
        raise UnusableArgument(f"max_subquestions is {max_subquestions}.", "Give a whole number, 1 or more.")
    told = Decompose.instructions.replace(f"at most {DEFAULT_MAX_SUBQUESTIONS}", f"at most {max_subquestions}")
    asked = Decompose.with_instructions(f"{told} {_NO_SPLIT}" if allow_whole else told)
    asked.__name__ = Decompose.__name__  # DSPy gives it another, and a wording finds its instruction by the name
    return asked


def list_pattern(max_subquestions: int = DEFAULT_MAX_SUBQUESTIONS, allow_whole: bool = False) -> str:
    """A regular expression of the replies that `Decompose` asks for, for servers with guided decoding.

    Args:
        max_subquestions: The cap, 1 or more.
        allow_whole: Whether the sentence that no split helps is one of them.

    Examples:
        >>> import re
        >>> bool(re.fullmatch(list_pattern(2), "1. How many bags?\\n2. How many plums are in them?"))
        True
        >>> bool(re.fullmatch(list_pattern(2), "First I count the bags."))
        False
    """
    # No "?" inside, so that a line ends after one question; at most 200 characters, so that it ends at all.
    pattern = ""
    for number in range(max_subquestions, 0, -1):
        line = rf"{number}\. [A-Z][^\n?]{{2,200}}\?"
        pattern = line + (rf"(\n{pattern})?" if pattern else "")
    return rf"({re.escape(NO_DECOMPOSITION)}|{pattern})" if allow_whole else f"({pattern})"
