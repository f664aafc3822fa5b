"""What goes between a driver and its workers: JSON text for jobs, results, errors and writes. Nothing is unpickled."""

from __future__ import annotations

import json
from typing import Any

import dspy.utils.exceptions as lm_errors
from dspy.utils.exceptions import LMError
from pydantic import TypeAdapter

from divcon.distill._jobs import Job
from divcon.distill._store import Trace
from divcon.distill._targets import Solved
from divcon.distill.screening import Judgement
from divcon.signatures import DivconError, FatalError

_OF_LM = ("message", "model", "provider", "status", "request_id", "retry_after")
_JOB = TypeAdapter(Job)
# What a job gives, by the first word of its work.
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
        of: The code of the error that was raised there.
    """

    def __init__(self, problem: str, remedy: str, of: str) -> None:
        super().__init__(problem, remedy)
        self.code = of


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
    """An error as text: its class, its words, and what else decides how it is dealt with."""
    told: dict[str, Any] = {"class": type(error).__name__, "notes": list(getattr(error, "__notes__", []))}
    if isinstance(error, DivconError):
        told |= {"problem": error.problem, "remedy": error.remedy, "code": error.code}
        told |= {"fatal": isinstance(error, FatalError)}
    elif isinstance(error, LMError):
        told |= {name: getattr(error, name, None) for name in _OF_LM}
    else:
        told |= {"message": str(error)}
    return json.dumps(told, default=str)


def unpack_error(text: str) -> Exception:
    """The error of a worker, of its own class where that is DSPy's."""
    told = json.loads(text)
    error: Exception
    if "problem" in told:
        error = (FatalWorkerError if told["fatal"] else WorkerError)(told["problem"], told["remedy"], told["code"])
    elif isinstance(of_lm := getattr(lm_errors, told["class"], None), type) and issubclass(of_lm, LMError):
        error = of_lm(**{name: value for name, value in told.items() if name in _OF_LM and value is not None})
    else:
        error = WorkerError(f"A worker failed with {told['class']}: {told['message']}.", "Look at its log.", "worker")
    for note in told["notes"]:
        error.add_note(note)
    return error
