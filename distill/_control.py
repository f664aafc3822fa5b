"""Control tokens in text: what a user writes is text, and never begins or ends a turn of a chat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dspy.lm15 import Request, TextPart

_BREAK = "\u200b"  # a zero-width space, after the first character of what would be read as a control token


def without_control_tokens(messages: Sequence[dict[str, str]], tokenizer: Any) -> list[dict[str, str]]:
    """The messages with the tokenizer's control tokens in their contents made plain text.

    Contents without such tokens stay as they are.

    Args:
        messages: Chat messages, each with `role` and `content`.
        tokenizer: A transformers tokenizer.
    """
    tokens = _control_tokens(tokenizer)
    return [{**message, "content": _plain(message["content"], tokens)} for message in messages]


def request_without_control_tokens(request: Request, tokenizer: Any) -> Request:
    """The request with the tokenizer's control tokens in its texts made plain text; see `without_control_tokens`."""
    tokens = _control_tokens(tokenizer)

    def plain(parts: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(
            replace(part, text=_plain(part.text, tokens)) if isinstance(part, TextPart) else part for part in parts
        )

    system = request.system
    if system is not None:
        system = _plain(system, tokens) if isinstance(system, str) else plain(system)
    messages = tuple(replace(message, parts=plain(message.parts)) for message in request.messages)
    return replace(request, system=system, messages=messages)


def _control_tokens(tokenizer: Any) -> re.Pattern[str] | None:
    """A pattern of the tokenizer's control tokens; None where it has none."""
    tokens = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
    tokens = [token for token in tokens if len(token) > 1]
    return re.compile("|".join(map(re.escape, tokens))) if tokens else None


def _plain(text: str, tokens: re.Pattern[str] | None) -> str:
    return tokens.sub(lambda found: found[0][0] + _BREAK + found[0][1:], text) if tokens else text
