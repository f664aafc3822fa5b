"""Trouble with a server: whether it is slow, overloaded or unreachable, and how long to wait for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dspy.utils.exceptions import LMError, LMRateLimitError, LMServerError, LMTimeoutError, LMTransportError

Limit = Literal["silence", "first_token", "longest"]

LONGEST_WAIT = 600.0  # seconds; a server that asks for a longer wait isn't waited for
_OVERLOADED = (503, 529)  # Anthropic sends 529


@dataclass(frozen=True)
class Patience:
    """How long to wait for a reply, in seconds.

    Attributes:
        silence: Time between two tokens.
        first_token: Time until the first token, including the time in the queue of a busy server. A server that can't
            stream has to send the whole reply by then.
        longest: Time for a whole reply, even while tokens come.
    """

    silence: float = 120.0
    first_token: float = 600.0
    longest: float = 3600.0


class SlowServerError(LMTimeoutError):
    """The server was silent for longer than a limit of `Patience`, or didn't end its reply in time.

    Attributes:
        limit: The limit of `Patience` that was exceeded.
        mute: Whether the server has never sent a token to this process, for any request.
    """

    def __init__(self, message: str, limit: Limit, mute: bool = False, **more: Any) -> None:
        super().__init__(message, **more)
        self.limit = limit
        self.mute = mute


def overload(error: BaseException) -> str | None:
    """The status that says the server is overloaded, such as `429`; None for any other error."""
    if isinstance(error, LMRateLimitError):
        return "429"
    if isinstance(error, LMServerError) and error.status in _OVERLOADED:
        return str(error.status)
    return None


def asks_for_too_long(error: BaseException) -> bool:
    """Whether an overloaded server asks for a wait longer than `LONGEST_WAIT`."""
    return overload(error) is not None and (getattr(error, "retry_after", None) or 0) > LONGEST_WAIT


def in_words(error: LMError) -> LMError | None:
    """The error with a message that says whether the server is slow, overloaded or unreachable, and what to do.

    None for an error that says nothing about the server.
    """
    problem, remedy = trouble(error)
    if not remedy:
        return None
    more: dict[str, Any] = {"limit": error.limit, "mute": error.mute} if isinstance(error, SlowServerError) else {}
    return type(error)(
        f"the server {problem}. {remedy}.",
        model=error.model,
        provider=error.provider,
        status=error.status,
        provider_code=error.provider_code,
        request_id=error.request_id,
        retry_after=error.retry_after,
        **more,
    )


def trouble(error: LMError, setting: str = "", concurrency: str = "the concurrency") -> tuple[str, str]:
    """Problem and remedy where the server is slow, overloaded or unreachable; otherwise the remedy is empty.

    Args:
        error: An error of a client or of `LMBackend`.
        setting: The prefix of the role's settings in the pipeline file, such as `roles.teacher.`.
        concurrency: The name of the setting for the number of calls at a time.
    """
    cause = error.__cause__
    if isinstance(cause, LMError) and trouble(cause)[1]:
        error = cause  # `in_words` made this error, so its cause has the original message
    said = error.message.rstrip(".")
    if isinstance(error, SlowServerError):
        name = {"silence": "timeout", "first_token": "first_token", "longest": "longest"}[error.limit]
        if error.mute:
            return f"takes requests and answers none: {said}", f"Check the server, or raise {setting}{name}"
        return f"is slow: {said}", f"Raise {setting}{name}, or lower {concurrency}"
    if (why := overload(error)) is not None:
        wait = f" and says to wait {error.retry_after:g} s" if error.retry_after else ""
        when = f"in {error.retry_after:g} s" if error.retry_after else "later"
        return f"is overloaded: it answers {why}{wait} ({said})", f"Lower {concurrency}, or run again {when}"
    if isinstance(error, LMTimeoutError):
        return f"is slow: {said}", f"Raise {setting}first_token, or lower {concurrency}"
    if isinstance(error, LMTransportError):
        return f"can't be reached: {said}", f"Start it, or correct {setting or 'its '}api_base"
    return said, ""
