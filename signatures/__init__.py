"""The signatures of both stages, the types of their outputs, and the readers of the replies to them."""

from divcon.signatures._answers import MARKED, READER, Reading, read_answer
from divcon.signatures._asks import (
    DEFAULT_MAX_SUBQUESTIONS,
    NOTHING_MORE,
    Answer,
    Conclude,
    Decompose,
    FollowUp,
    Reason,
    Solve,
    SolveDirect,
    SolveStep,
    decompose_signature,
    ends_in_answer,
    list_pattern,
)
from divcon.signatures._demonstrations import demonstrations
from divcon.signatures._errors import DivconError, FatalError, SubquestionsError, UnusableArgument, refusal
from divcon.signatures._html import html_table
from divcon.signatures._markers import unnumbered
from divcon.signatures._markup import plain
from divcon.signatures._printable import printable, printable_json, printable_values
from divcon.signatures._questions import is_ended
from divcon.signatures._secrets import (
    MASK,
    errors_masked,
    learn_addresses,
    learn_secret,
    learn_settings,
    learn_variable,
    mask_error,
    masked,
    masked_json,
    masked_values,
    names_a_secret,
)
from divcon.signatures._subquestions import NO_DECOMPOSITION, Subquestions
from divcon.signatures._turns import own_words, thinks_still, without_thinking

__all__ = [
    "DEFAULT_MAX_SUBQUESTIONS",
    "MARKED",
    "MASK",
    "NOTHING_MORE",
    "NO_DECOMPOSITION",
    "READER",
    "Answer",
    "Conclude",
    "Decompose",
    "DivconError",
    "FatalError",
    "FollowUp",
    "Reading",
    "Reason",
    "Solve",
    "SolveDirect",
    "SolveStep",
    "Subquestions",
    "SubquestionsError",
    "UnusableArgument",
    "decompose_signature",
    "demonstrations",
    "ends_in_answer",
    "errors_masked",
    "html_table",
    "is_ended",
    "learn_addresses",
    "learn_secret",
    "learn_settings",
    "learn_variable",
    "list_pattern",
    "mask_error",
    "masked",
    "masked_json",
    "masked_values",
    "names_a_secret",
    "own_words",
    "plain",
    "printable",
    "printable_json",
    "printable_values",
    "read_answer",
    "refusal",
    "thinks_still",
    "unnumbered",
    "without_thinking",
]
