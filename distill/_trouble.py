"""What is the matter with a server: slow, overloaded or unreachable, and how long it is waited for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from dspy.utils.exceptions import LMError, LMRateLimitError, LMServerError, LMTimeoutError, LMTransportError

Limit = Literal["silence", "first_token", "longest"]

# A server that asks to be left alone for longer isn't waited for.
LONGEST_WAIT = 600.0
_OVERLOADED = (503, 529)  # the second is Anthropic's


@dataclass(frozen=True)
class Patience:
    """How long a reply is waited for, in seconds.

    Attributes:
        silence: Between two tokens.
        first_token: Until the first one, and so in the queue of a busy server. A server that can't stream has to have
            the whole reply there by then.
        longest: For a whole reply, however many tokens come.
    """

    silence: float = 120.0
    first_token: float = 600.0
    longest: float = 3600.0


class SlowServerError(LMTimeoutError):
    """A server that was silent for longer than it may be, or that didn't come to an end.

    Attributes:
        limit: Which limit of `Patience` ended the waiting.
        mute: Whether no token has ever come from there, for any request of this process.
    """

    def __init__(self, message: str, limit: Limit, mute: bool = False, **more: Any) -> None:
        super().__init__(message, **more)
        self.limit = limit
        self.mute = mute


def overload(error: BaseException) -> str | None:
    """What a server that had too much said, such as `429`; None for any other error."""
    if isinstance(error, LMRateLimitError):
        return "429"
    if isinstance(error, LMServerError) and error.status in _OVERLOADED:
        return str(error.status)
    return None


def asks_for_too_long(error: BaseException) -> bool:
    """Whether a server said to come back in so long a time that it isn't waited for."""
    return overload(error) is not None and (getattr(error, "retry_after", None) or 0) > LONGEST_WAIT


def in_words(error: LMError) -> LMError | None:
    """The same error, saying whether the server is slow, overloaded or unreachable, and what to do; or None."""
    problem, remedy = trouble(error)
    if not remedy:
        return None
    more: dict[str, Any] = {"limit": error.limit, "mute": error.mute} if isinstance(error, SlowServerError) else {}
    return type(error)(
        f"the server {problem}. {remedy}.", model=error.model, provider=error.provider, status=error.status,
        provider_code=error.provider_code, request_id=error.request_id, retry_after=error.retry_after, **more,
    )  # fmt: skip


def trouble(error: LMError, setting: str = "", concurrency: str = "the concurrency") -> tuple[str, str]:
    """What is the matter with a server, slow, overloaded or unreachable, and the remedy; the latter is empty otherwise.

    Args:
        error: As it was raised by a client or by `LMBackend`.
        setting: Where the settings of its role stand, such as `roles.teacher.`.
        concurrency: What sets how many are asked at a time.
    """
    cause = error.__cause__
    if isinstance(cause, LMError) and trouble(cause)[1]:
        error = cause  # it is in these words already
    said = error.message.rstrip(".")
    if isinstance(error, SlowServerError):
        name = {"silence": "timeout", "first_token": "first_token", "longest": "longest"}[error.limit]
        if error.mute:
            return f"takes requests and answers none: {said}", f"Look at the server, or raise {setting}{name}"
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
