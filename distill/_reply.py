"""What a server's reply has to have to be an answer, and its token counts as they can be right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dspy.lm15 import DataPart, RefusalPart, Response, ThinkingPart, Usage

from divcon.distill._body import ENDED_BY
from divcon.programs import Counters

# What servers call the end of a whole reply, and of one that ran out of tokens; any other reason spoils the reply.
_WHOLE = frozenset(("", "stop", "eos", "eos_token", "end_turn", "stop_sequence", "complete", "completed", "none"))
_CUT_OFF = frozenset(("length", "max_tokens", "model_length", "max_output_tokens"))
_QUOTED = 200  # characters


def counters_of(usage: Usage) -> Counters:
    """The checked token counts of a reply."""
    return Counters.read(
        {
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
            "cached_tokens": usage.cache_read_tokens,
            "reasoning_tokens": usage.reasoning_tokens,
        }
    )


def as_read(response: Response) -> Response:
    """A reply with checked token counts, and with `length` as the reason wherever it ran out of tokens."""
    counters = counters_of(response.usage)
    uncounted = counters.output_tokens == 0 and bool(response.text)  # LiteLLM's count where the server sends none
    usage = Usage(
        input_tokens=counters.input_tokens,
        output_tokens=None if uncounted else counters.output_tokens,
        cache_read_tokens=counters.cached_tokens,
        reasoning_tokens=response.usage.reasoning_tokens,
    )
    cut = ended_by(response).lower() in _CUT_OFF
    return replace(response, usage=usage, finish_reason="length" if cut else response.finish_reason)


def ended_by(response: Response) -> str:
    """The finish reason as the server wrote it; the clients take every reason that they don't know for `stop`."""
    sent: Any = response.provider_data
    if isinstance(sent, Mapping) and sent.get(ENDED_BY):
        return str(sent[ENDED_BY])
    try:
        choice = sent["choices"][0] if isinstance(sent, Mapping) else {}
        native = (choice.get("provider_specific_fields") or {}).get("native_finish_reason")  # LiteLLM's name for it
        reason = native or choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        reason = None
    return str(reason or response.finish_reason)


def why_unusable(response: Response, *, empty: bool = False) -> str | None:
    """Why a reply holds no answer, as users read it; None where it holds one.

    Args:
        response: The reply.
        empty: Whether an empty reply is an answer.
    """
    reason = ended_by(response)
    ends = reason.lower()
    if response.tool_calls or ends in ("tool_calls", "tool_call", "function_call"):
        return "the model called a tool instead of answering"
    refused = [part.text for part in response.message.parts if isinstance(part, RefusalPart) and part.text]
    if refused:
        return f"the model refused: '{refused[0][:_QUOTED]}'"
    if ends not in _WHOLE and ends not in _CUT_OFF:
        return f"the reply ended by '{reason[:_QUOTED]}'"
    if empty or (response.text or "").strip() or any(isinstance(part, DataPart) for part in response.message.parts):
        return None
    if ends in _CUT_OFF:
        return "the reply ran out of tokens before it said anything; raise max_tokens of the role"
    if any(isinstance(part, ThinkingPart) and part.text for part in response.message.parts):
        return "the reply holds reasoning and no answer"
    return "the reply is empty"
