"""Errors that end a station or a run, and LM errors explained with the keys of the pipeline file."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dspy.utils.exceptions import LMAuthError, LMError, LMNotConfiguredError, LMTimeoutError

from divcon._watch import Reporter
from divcon.config import Endpoint, Pipeline
from divcon.distill import cause_of_ours, trouble
from divcon.distill.serving import Finding
from divcon.signatures import DivconError


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


def stop_at_failures(findings: Iterable[Finding], reporter: Reporter) -> None:
    """Report the doctor's warnings, and stop at its first failure.

    Raises:
        Unfit: There is a failure.
    """
    for finding in findings:
        if finding.level == "failure":
            raise Unfit(f"{finding.what}: {finding.text}", finding.remedy)
        if finding.level == "warning":
            reporter.finished(finding.what, f"warning: {finding.text}")


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
        raise Incomplete(
            f"{station}: {said}",
            "All replies are kept. Run the same command again; only the failed calls are repeated. Where some always "
            f"fail, allow a share of them with {station}.max_failed.",
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
        who = f"The {role} ({endpoint.model})"
        at = f" at {endpoint.api_base}" if endpoint.api_base else ""
    kept = "All replies are kept."
    if isinstance(error, (LMAuthError, LMNotConfiguredError)):
        variable = getattr(endpoint, "api_key_env", None) or "the provider's usual one, such as OPENAI_API_KEY"
        return DivconError(
            f"{who}{at} refused the key, or has none.", f"Set the environment variable ({variable}). {kept}"
        )
    declared = isinstance(endpoint, Endpoint) or role is None
    setting = f"roles.{role or 'teacher'}." if declared else f"roles.{role}.server."
    problem, remedy = trouble(error, setting, "the station's concurrency")
    if not declared and isinstance(error, LMTimeoutError):
        remedy = "Lower the station's concurrency"  # the file has no time limits for students
    if remedy:
        return DivconError(f"{who}{at} {problem}.", f"{remedy}. {kept}")
    return DivconError(f"{who}{at} failed: {type(error).__name__}: {error.message}", f"{kept} Run again to go on.")
