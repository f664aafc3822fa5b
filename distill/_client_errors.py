"""What clients raise, told apart: DSPy's native client and LiteLLM name the same faults differently."""

from __future__ import annotations

import json

import httpx
from dspy.utils.exceptions import (
    LMError,
    LMProviderError,
    LMServerError,
    LMTimeoutError,
    LMTransportError,
    LMUnexpectedError,
)

from divcon.distill._trouble import ReplyTooLongError, SlowServerError, UnreadableReplyError, causes_of, facts_of

# Whole sentences of the clients, which have no type for these faults.
_UNREADABLE = (
    "the reply (HTTP ",  # the native client: no JSON, which a redirect is too
    "a Chat Completions response body is a JSON object",
    "Empty or invalid response from LLM endpoint",  # LiteLLM, also for JSON that is no object
    "provider returned a response with no 'choices'",
)


class TooManyBytes(Exception):
    """A reply has more bytes than it may have."""


class NotAReply(Exception):
    """The server answers with something that must not be read as a reply, such as a redirect."""


def told_apart(error: LMError) -> LMError:
    """The error, as one of another type where its client has no type for the fault.

    LiteLLM calls an unreachable server and an unreadable reply internal errors of the server, and neither client has
    a type for a reply that is too long.
    """
    kind = _kind_of(error, list(causes_of(error)))
    if kind is None:
        return error
    found = kind(_said(error), **facts_of(error))
    found.__cause__ = error
    return found


def _kind_of(error: LMError, causes: list[BaseException]) -> type[LMError] | None:
    if any(isinstance(cause, TooManyBytes) for cause in causes):
        return ReplyTooLongError
    if any(isinstance(cause, NotAReply) for cause in causes):
        return UnreadableReplyError
    general = type(error) in (LMProviderError, LMServerError, LMUnexpectedError)
    if general and (
        any(words in error.message for words in _UNREADABLE)
        or any(isinstance(cause, (json.JSONDecodeError, UnicodeDecodeError)) for cause in causes)
    ):
        return UnreadableReplyError
    if isinstance(error, LMTimeoutError):
        # Our own limits come before those of the clients, but for the time to connect.
        connecting = not isinstance(error, SlowServerError) and error.status is None
        return LMTransportError if connecting or any(isinstance(c, httpx.ConnectTimeout) for c in causes) else None
    lost = any(isinstance(c, httpx.TransportError) or type(c).__name__ == "APIConnectionError" for c in causes)
    return LMTransportError if lost and isinstance(error, LMServerError) else None


def _said(error: LMError) -> str:
    """The message; that of our own cause, where there is one."""
    ours = next((cause for cause in causes_of(error) if isinstance(cause, (TooManyBytes, NotAReply))), None)
    if ours is not None:
        return str(ours)
    deepest = [str(cause) for cause in causes_of(error) if isinstance(cause, httpx.TransportError) and str(cause)]
    return deepest[-1] if deepest else error.message
