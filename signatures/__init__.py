"""What a model is asked: the signatures of both stages, and the type that carries a decomposition."""

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
from divcon.signatures._subquestions import NO_DECOMPOSITION, Subquestions, without_thinking

__all__ = [
    "DEFAULT_MAX_SUBQUESTIONS",
    "NOTHING_MORE",
    "NO_DECOMPOSITION",
    "Answer",
    "Decompose",
    "DivconError",
    "FollowUp",
    "Reason",
    "Solve",
    "SolveDirect",
    "SolveStep",
    "Subquestions",
    "SubquestionsError",
    "decompose_signature",
    "list_pattern",
    "refusal",
    "without_thinking",
]
