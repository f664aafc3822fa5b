"""Trouble with a server: whether it is slow, overloaded, unreachable or given up, and how long to wait for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from dspy.utils.exceptions import (
    ContextWindowExceededError,
    LMError,
    LMInvalidRequestError,
    LMProviderError,
    LMRateLimitError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
    LMUnsupportedFeatureError,
)

Limit = Literal["silence", "first_token", "longest"]

LONGEST_WAIT = 600.0  # seconds; a server that asks for a longer wait isn't waited for
_QUOTED = 500  # characters
_FACTS = ("model", "provider", "provider_code", "status", "request_id", "retry_after")
_OVERLOADED = (503, 529)  # Anthropic sends 529


@dataclass(frozen=True)
class Patience:
    """How long to wait for a reply, in seconds.

    Attributes:
        silence: Time between two tokens. It is longer while other replies of the server go on.
        first_token: Time until the first token, including the time in the queue of a busy server. A server that can't
            stream has to send the whole reply by then. It is longer while other replies of the server go on.
        longest: Time for a whole reply, even while tokens come.
        give_up: Time after its first failure until a failing server is given up, and a failed call isn't repeated.
    """

    silence: float = 120.0
    first_token: float = 600.0
    longest: float = 3600.0
    give_up: float = LONGEST_WAIT


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


class UnreadableReplyError(LMProviderError):
    """The server answered with something that is no reply, such as a proxy's page, a redirect or broken JSON."""


class ReplyTooLongError(LMProviderError):
    """The server sent more bytes than a reply may have; the connection was closed."""


class UnusableReplyError(LMError):
    """A server answered, and the reply holds no answer: it is empty, refused, filtered, or a tool call.

    Such a reply was paid for, so it is on the bill; it isn't kept as an answer, and the next run asks again.
    """

    default_code = "unusable_reply"


class GivenUpError(LMError):
    """The server failed for so long that it isn't asked again. Every further call fails in the same way.

    Args:
        server: The server's address; without one, the name of the provider's model.
        failure: Its last failure.
        seconds: How long it has failed.

    Attributes:
        server: See the arguments.
        failure: See the arguments.
        seconds: See the arguments.
    """

    def __init__(self, server: str, failure: LMError, seconds: float) -> None:
        self.server, self.failure, self.seconds = server, failure, seconds
        problem, remedy = trouble(failure)
        super().__init__(f"{server} {problem}. Given up after {seconds:.0f} s. {remedy}.", model=failure.model)


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The errors from which an error was raised, the nearest first."""
    seen: set[int] = set()
    found: BaseException | None = error.__cause__ or error.__context__
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        yield found
        found = found.__cause__ or found.__context__


def overload(error: BaseException) -> str | None:
    """The status that says the server is overloaded, such as `429`; None for any other error."""
    if isinstance(error, LMRateLimitError):
        return "429"
    if isinstance(error, LMServerError) and error.status in _OVERLOADED:
        return str(error.status)
    return None


def asks_for_too_long(error: BaseException, longest: float = LONGEST_WAIT) -> bool:
    """Whether a failing server asks for a wait longer than `longest`, in seconds."""
    return isinstance(error, LMError) and (error.retry_after or 0) > longest


def reason(error: LMError) -> str:
    """Why a request failed, in a few words, as users read it while it waits to be sent again."""
    if (why := overload(error)) is not None:
        return why
    if isinstance(error, LMTimeoutError):
        return "a time-out"
    if isinstance(error, LMTransportError):
        return "a failed connection"
    return f"status {error.status}" if error.status else "a failed request"


def quoted(error: LMError) -> str:
    """What the server or its client said, as one short line, without the client's advice about its own settings."""
    said = " ".join(error.message.partition("\n  To fix:")[0].split())
    return said if len(said) <= _QUOTED else f"{said[:_QUOTED]}…"


def refusal(error: BaseException) -> str | None:
    """The words of a refused request, without its numbers; None for an error that isn't about the request.

    Numbers, such as counts of tokens, differ between requests that are refused for the same reason. A reply that can't
    be read counts as a refusal too, since another request would get the same.
    """
    if not isinstance(error, (LMInvalidRequestError, LMUnsupportedFeatureError, UnreadableReplyError)):
        return None
    return re.sub(r"\d+", "N", error.message)


def is_too_long(error: BaseException) -> bool:
    """Whether a request was refused because its prompt doesn't fit into the model's context."""
    if isinstance(error, ContextWindowExceededError):
        return True
    # vLLM gives this refusal no code.
    return isinstance(error, LMInvalidRequestError) and "context length" in error.message.lower()


def in_words(error: LMError) -> LMError | None:
    """The error with a message that says whether the server is slow, overloaded or unreachable, and what to do.

    None for an error that says nothing about the server, and for one that is in words already.
    """
    problem, remedy = trouble(error)
    if not remedy or isinstance(error, GivenUpError):
        return None
    more: dict[str, Any] = {"limit": error.limit, "mute": error.mute} if isinstance(error, SlowServerError) else {}
    return type(error)(f"the server {problem}. {remedy}.", **facts_of(error), **more)


def facts_of(error: LMError) -> dict[str, Any]:
    """What an LM error holds besides its message, as the classes of LM errors take it."""
    return {name: getattr(error, name) for name in _FACTS}


def trouble(error: LMError, setting: str = "", concurrency: str = "the concurrency") -> tuple[str, str]:
    """Problem and remedy where the server is slow, overloaded or unreachable; otherwise the remedy is empty.

    Args:
        error: An error of a client or of `LMBackend`.
        setting: The prefix of the role's settings in the pipeline file, such as `roles.teacher.`.
        concurrency: The name of the setting for the number of calls at a time.
    """
    if isinstance(error, GivenUpError):
        problem, remedy = trouble(error.failure, setting, concurrency)
        return f"{problem}; given up after {error.seconds:.0f} s", remedy
    cause = error.__cause__
    if type(cause) is type(error) and trouble(cause)[1]:
        error = cause  # `in_words` made this error, so its cause has the original message
    said = quoted(error).rstrip(".")
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
    if isinstance(error, LMServerError):
        return f"fails: {said}", "Look at its log, or run again later"
    return said, ""
