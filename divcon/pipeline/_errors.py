"""Errors that end a station or a run, and LM errors explained with the keys of the pipeline file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from dspy.utils.exceptions import (
    ContextWindowExceededError,
    LMAuthError,
    LMBillingError,
    LMError,
    LMInvalidRequestError,
    LMNotConfiguredError,
    LMTimeoutError,
    LMUnsupportedFeatureError,
    LMUnsupportedModelError,
)

from divcon._watch import Reporter
from divcon.config import Endpoint, Pipeline
from divcon.distill import (
    GivenUpError,
    ReplyTooLongError,
    UnreadableReplyError,
    cause_of_ours,
    is_too_long,
    quoted,
    trouble,
)
from divcon.distill.serving import Finding
from divcon.signatures import DivconError

# The names of errors that the same request would meet again.
_LASTING = {
    kind.__name__
    for kind in (LMInvalidRequestError, ContextWindowExceededError, LMUnsupportedFeatureError, ReplyTooLongError)
}


class Incomplete(DivconError):
    """Some calls of a station failed; its other results are kept.

    Attributes:
        results: The results of an evaluation without the failed answers; None for other stations.
    """

    results: dict[str, Any] | None = None


class Unfit(DivconError):
    """The doctor or a check found something that would stop the run."""


class MissingStation(DivconError):
    """A station needs the result of an earlier station."""


class Failures:
    """Collects whatever would stop a run, so that all of it is said at once.

    Args:
        reporter: Gets the doctor's warnings.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._errors: list[DivconError] = []
        self._known: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._errors)

    @contextmanager
    def gathering(self, what: str = "") -> Iterator[None]:
        """Inside, an error ends the block alone, and is kept.

        Args:
            what: What is checked, as the doctor's findings name it. Its finding of the same isn't kept as well.
        """
        try:
            yield
        except DivconError as error:
            self._known.add(what)
            self._add(error)

    def look_at(self, findings: Iterable[Finding]) -> None:
        """Keep the doctor's failures, and report its warnings."""
        for finding in findings:
            if finding.level == "failure" and finding.what not in self._known:
                self._add(Unfit(f"{finding.what}: {finding.text}", finding.remedy))
            if finding.level == "warning":
                self._reporter.finished(finding.what, f"warning: {finding.text}")

    def _add(self, error: DivconError) -> None:
        # Cells of an experiment share what they need, and one failure may be in the way of several checks.
        if not any(error.problem in other.problem or other.problem in error.problem for other in self._errors):
            self._errors.append(error)

    def require_none(self) -> None:
        """Raise an error that lists what was found.

        Raises:
            DivconError: There is a single failure, which is raised as it is, or there are several of one kind.
            Unfit: There are several of different kinds.
        """
        if len(self._errors) == 1:
            raise self._errors[0]
        if self._errors:
            lines = "".join(f"\n- {error}" for error in self._errors)
            kinds = {type(error) for error in self._errors}
            one = kinds.pop() if len(kinds) == 1 else Unfit
            kind = one if one.__init__ is DivconError.__init__ else Unfit
            raise kind(f"{len(self._errors)} things would stop the run:{lines}", "Nothing was asked of a model yet.")


def require_most(
    station: str, failed: int, total: int, first_error: str | None, max_failed: float, reporter: Reporter
) -> None:
    """Raise an error where more calls of a station failed than may, and report those that may.

    Raises:
        Incomplete: Too many calls failed; the message has their number and the first error.
    """
    if not failed:
        return
    said = f"{failed} of {total} calls failed; the first: {first_error}"
    if failed > max_failed * total:
        again = "Run the same command again; only the failed calls are repeated."
        if (first_error or "").partition(":")[0] in _LASTING:
            again = "The failed calls get the same again until their question or the role's settings change."
        raise Incomplete(
            f"{station}: {said}",
            f"All replies are kept. {again} Where some always fail, allow a share of them with {station}.max_failed.",
        )
    reporter.finished(station, f"warning: {said} ({station}.max_failed allows {max_failed:.1%})")


def explain_lm_error(error: LMError, pipeline: Pipeline) -> DivconError:
    """An LM's error as an error of divcon's, which names the role, the server and the key of the file to change."""
    if (ours := cause_of_ours(error)) is not None:
        return ours
    notes = getattr(error, "__notes__", [])
    role = next((note.removeprefix("role: ") for note in notes if note.startswith("role: ")), None)
    endpoint = getattr(pipeline.roles, role, None) if role else None
    who = f"The {role}" if role else "A model"
    at = ""
    if isinstance(endpoint, Endpoint):
        who = f"The {role} ({endpoint.title})"
        at = f" at {endpoint.api_base}" if endpoint.api_base else ""
    kept = "All replies are kept."
    if isinstance(error, (LMAuthError, LMNotConfiguredError)):
        variable = getattr(endpoint, "api_key_env", None) or "the provider's usual one, such as OPENAI_API_KEY"
        return DivconError(
            f"{who}{at} refused the key, or has none.", f"Set the environment variable ({variable}). {kept}"
        )
    declared = role is None or (isinstance(endpoint, Endpoint) and endpoint.base is None)
    setting = f"roles.{role or 'teacher'}." if declared else f"roles.{role}.server."
    refused = _refusal(error, setting, f"roles.{role or 'teacher'}.", declared)
    problem, remedy = refused or trouble(error, setting, "the station's concurrency")
    failure = error.failure if isinstance(error, GivenUpError) else error
    if not declared and isinstance(failure, LMTimeoutError):
        remedy = "Lower the station's concurrency"  # the file has no time limits for what is served here
    if remedy:
        return DivconError(f"{who}{at} {problem}.", f"{remedy}. {kept}")
    return DivconError(f"{who}{at} failed: {type(error).__name__}: {quoted(error)}", f"{kept} Run again to go on.")


# The station that has a temperature of its own for a role.
_SAMPLING = {"roles.teacher.": "collect", "roles.solver.": "screen"}


def _refusal(error: LMError, setting: str, own: str, declared: bool) -> tuple[str, str] | None:
    """Problem and remedy where the same request would get the same again; None for another error.

    Args:
        error: The error.
        setting: The prefix of the server's settings in the pipeline file.
        own: The prefix of the role's settings.
        declared: Whether the file names the model; it doesn't for students.
    """
    model = f"{own}{'model' if declared else 'base'}"
    said = quoted(error).rstrip(".")
    if isinstance(error, UnreadableReplyError):
        return f"answers with no reply of a model: {said}", f"Correct {setting}api_base, or look at the proxy before it"
    if isinstance(error, ReplyTooLongError):
        return f"doesn't end its reply: {said}", f"Lower {own}max_tokens, or raise {own}reply_bytes"
    if isinstance(error, LMBillingError):
        return f"isn't paid: {said}", "Look at the account"
    if not isinstance(error, (LMInvalidRequestError, LMUnsupportedFeatureError)):
        return None
    problem = f"refuses the request: {said or 'it gives no reason'}"
    if is_too_long(error):
        return problem, f"Lower {own}max_tokens, or set {model} to one with a larger context"
    if isinstance(error, LMUnsupportedModelError):
        return problem, f"Correct {model}, or {setting}api_base"
    words = said.lower()
    if "temperature" in words:
        station = _SAMPLING.get(own)
        sampled = f" and {station}.temperature; null leaves the model its own" if station else ""
        return problem, f"Change {own}temperature{sampled}"
    if "max_tokens" in words or "max_completion_tokens" in words:
        return problem, f"Change {own}max_tokens"
    if error.status in (404, 405):
        return problem, f"Correct {setting}api_base, which ends in /v1 for most servers, or {model}"
    return problem, f"Set {model} to one that takes such requests"
