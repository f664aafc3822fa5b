"""Control tokens in text: what a user writes is text, and never begins or ends a turn of a chat."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

_BREAK = "\u200b"  # a zero-width space, after the first character of what would be read as a control token


def without_control_tokens(messages: Sequence[dict[str, str]], tokenizer: Any) -> list[dict[str, str]]:
    """The messages with the tokenizer's control tokens in their contents made plain text.

    Contents without such tokens stay as they are.

    Args:
        messages: Chat messages, each with `role` and `content`.
        tokenizer: A transformers tokenizer.
    """
    tokens = sorted(tokenizer.all_special_tokens, key=len, reverse=True)
    tokens = [token for token in tokens if len(token) > 1]
    if not tokens:
        return list(messages)
    pattern = re.compile("|".join(map(re.escape, tokens)))
    return [
        {**message, "content": pattern.sub(lambda found: found[0][0] + _BREAK + found[0][1:], message["content"])}
        for message in messages
    ]
