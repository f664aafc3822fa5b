"""Errors that end a station or a run, and LM errors explained with the keys of the pipeline file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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


def require_all(station: str, failed: int, total: int, first_error: str | None) -> None:
    """Raise an error where calls of a station failed.

    Raises:
        Incomplete: Calls failed; the message has their number and the first error.
    """
    if failed:
        raise Incomplete(
            f"{station}: {failed} of {total} calls failed; the first: {first_error}",
            "All replies are kept. Run the same command again; only the failed calls are repeated.",
        )


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
