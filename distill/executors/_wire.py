"""The messages between a driver and its workers: jobs, results and errors as JSON text. Nothing is pickled."""

from __future__ import annotations

import json
from typing import Any

import dspy.utils.exceptions as lm_errors
from dspy.utils.exceptions import LMError
from pydantic import TypeAdapter

from divcon.distill import _trouble
from divcon.distill._jobs import Job
from divcon.distill._stored import Trace
from divcon.distill._targets import Solved
from divcon.distill._trouble import GivenUpError, SlowServerError, facts_of
from divcon.distill.screening import Judgement
from divcon.signatures import DivconError, FatalError

_JOB = TypeAdapter(Job)
# The type of a job's result, by the first word of its work.
_RESULTS: dict[str, TypeAdapter[Any]] = {
    "collect": TypeAdapter(Trace),
    "screen": TypeAdapter(list[Judgement]),
    "solve": TypeAdapter(Solved | None),
    "evaluate": TypeAdapter(dict[str, Any]),
}


class WorkerError(DivconError):
    """An error of a worker.

    Args:
        problem: See `DivconError`.
        remedy: See `DivconError`.
        code: The code of the error that was raised on the worker.
    """

    def __init__(self, problem: str, remedy: str, code: str) -> None:
        super().__init__(problem, remedy)
        self.code = code


class FatalWorkerError(WorkerError, FatalError):
    """An error of a worker after which the run can't go on."""


def pack_job(job: Job) -> str:
    return _JOB.dump_json(job).decode()


def unpack_job(text: str) -> Job:
    return _JOB.validate_json(text)


def pack_result(job: Job, result: Any) -> str:
    return _RESULTS[job.work.partition(" ")[0]].dump_json(result).decode()


def unpack_result(job: Job, text: str) -> Any:
    return _RESULTS[job.work.partition(" ")[0]].validate_json(text)


def pack_error(error: BaseException) -> str:
    """An error as JSON: its class, its notes, its message, and the fields that decide how the driver handles it."""
    packed: dict[str, Any] = {"class": type(error).__name__, "notes": list(getattr(error, "__notes__", []))}
    if isinstance(error, DivconError):
        packed |= {"problem": error.problem, "remedy": error.remedy, "code": error.code}
        packed |= {"fatal": isinstance(error, FatalError)}
    elif isinstance(error, LMError):
        packed |= {"message": error.message, "facts": facts_of(error)}
        if isinstance(error, SlowServerError):
            packed["facts"] |= {"limit": error.limit, "mute": error.mute}
        if isinstance(error, GivenUpError):
            packed |= {"server": error.server, "failure": pack_error(error.failure), "seconds": error.seconds}
    else:
        packed |= {"message": str(error)}
    return json.dumps(packed, default=str)


def unpack_error(text: str) -> Exception:
    """The error of a worker: an LM error keeps its class, any other becomes a `WorkerError`."""
    packed = json.loads(text)
    error: Exception
    if "problem" in packed:
        made = FatalWorkerError if packed["fatal"] else WorkerError
        error = made(packed["problem"], packed["remedy"], packed["code"])
    elif packed["class"] == GivenUpError.__name__:
        failure = unpack_error(packed["failure"])
        assert isinstance(failure, LMError)
        error = GivenUpError(packed["server"], failure, packed["seconds"])
    elif (kind := _lm_error(packed["class"])) is not None:
        error = kind(packed["message"], **packed["facts"])
    else:
        problem = f"A worker failed with {packed['class']}: {packed['message'].rstrip('.')}."
        error = WorkerError(problem, "Look at its log.", "worker")
    for note in packed["notes"]:
        error.add_note(note)
    return error


def _lm_error(name: str) -> type[LMError] | None:
    """The class of an LM error of DSPy's or of ours, or None."""
    kind = getattr(lm_errors, name, None) or getattr(_trouble, name, None)
    return kind if isinstance(kind, type) and issubclass(kind, LMError) else None
