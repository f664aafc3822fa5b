"""What a model is asked: the signatures of both stages, and the type that carries a decomposition."""

from divcon.signatures._answers import MARKED, Reading, plain, read_answer
from divcon.signatures._asks import (
    DEFAULT_MAX_SUBQUESTIONS,
    NOTHING_MORE,
    Answer,
    Decompose,
    FollowUp,
    Reason,
    Solve,
    SolveDirect,
    SolveStep,
    decompose_signature,
    list_pattern,
)
from divcon.signatures._errors import DivconError, SubquestionsError, refusal
from divcon.signatures._framing import thinks_still, without_thinking
from divcon.signatures._subquestions import NO_DECOMPOSITION, Subquestions

__all__ = [
    "DEFAULT_MAX_SUBQUESTIONS",
    "NOTHING_MORE",
    "NO_DECOMPOSITION",
    "MARKED",
    "Answer",
    "Decompose",
    "DivconError",
    "FollowUp",
    "Reading",
    "Reason",
    "Solve",
    "SolveDirect",
    "SolveStep",
    "Subquestions",
    "SubquestionsError",
    "decompose_signature",
    "list_pattern",
    "plain",
    "read_answer",
    "refusal",
    "thinks_still",
    "without_thinking",
]
