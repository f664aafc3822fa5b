"""What ends a station or a run, and an LM's error in the words of the pipeline file."""

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
    """A station did what it could, and some calls failed.

    Attributes:
        results: What an evaluation found nevertheless, or None.
    """

    results: dict[str, Any] | None = None


class Unfit(DivconError):
    """Something that the doctor found would stop the run."""


class MissingStation(DivconError):
    """A station needs what an earlier one makes."""


def stop_at_failures(findings: Iterable[Finding], reporter: Reporter) -> None:
    """Report the doctor's warnings, and stop at the first thing that would stop the work.

    Raises:
        Unfit: With that thing.
    """
    for finding in findings:
        if finding.level == "failure":
            raise Unfit(f"{finding.what}: {finding.text}", finding.remedy)
        if finding.level == "warning":
            reporter.finished(finding.what, f"warning: {finding.text}")


def require_all(station: str, failed: int, total: int, first_error: str | None) -> None:
    """Raise where calls of a station failed.

    Raises:
        Incomplete: How many, and the first error.
    """
    if failed:
        raise Incomplete(
            f"{station}: {failed} of {total} calls failed; the first: {first_error}",
            "What was answered is kept. Run the same command again; only what failed is asked again.",
        )


def explain_lm_error(error: LMError, pipeline: Pipeline) -> DivconError:
    """An LM's error in the words of the pipeline file: which role, which server, what to do."""
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
    kept = "What was answered before is kept."
    if isinstance(error, (LMAuthError, LMNotConfiguredError)):
        variable = getattr(endpoint, "api_key_env", None) or "the provider's usual one, such as OPENAI_API_KEY"
        return DivconError(
            f"{who}{at} refused the key, or has none.", f"Set the environment variable ({variable}). {kept}"
        )
    declared = isinstance(endpoint, Endpoint) or role is None
    setting = f"roles.{role or 'teacher'}." if declared else f"roles.{role}.server."
    problem, remedy = trouble(error, setting, "the station's concurrency")
    if not declared and isinstance(error, LMTimeoutError):
        remedy = "Lower the station's concurrency"  # a student's limits aren't set in the file
    if remedy:
        return DivconError(f"{who}{at} {problem}.", f"{remedy}. {kept}")
    return DivconError(f"{who}{at} failed: {type(error).__name__}: {error.message}", f"{kept} Run again to go on.")
