"""The ledger: what each role of a program has used, in calls, tokens, seconds and money.

DSPy keys usage by model name, so that two roles on one model are counted as one, and counts nothing that runs under
`dspy.Parallel` inside a module. The ledger counts by role. It stands in DSPy's settings context, which DSPy's worker
threads and async tasks inherit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dspy

from divcon.programs._meter import Counters, Meter, Usage

_SETTING = "_divcon_ledgers"


class Ledger:
    """Usage by role, safe to fill from many threads.

    Examples:
        >>> with Ledger() as ledger:
        ...     pass
        >>> ledger.usage
        {}
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage: dict[str, Usage] = {}
        self._calls: list[str] = []
        self._contexts: list[Any] = []

    @property
    def usage(self) -> dict[str, Usage]:
        """Usage by role so far."""
        with self._lock:
            return dict(self._usage)

    @property
    def calls(self) -> list[str]:
        """The keys of the stored replies so far, in the order in which they were asked for."""
        with self._lock:
            return list(self._calls)

    def record_call(self, key: str) -> None:
        with self._lock:
            self._calls.append(key)

    def as_dict(self) -> dict[str, dict[str, Any]]:
        return {role: usage.as_dict() for role, usage in sorted(self.usage.items())}

    def record(self, role: str, usage: Usage) -> None:
        with self._lock:
            self._usage.setdefault(role, Usage()).add(usage)

    def __enter__(self) -> Ledger:
        context = dspy.context(**{_SETTING: (*_active(), self)})
        context.__enter__()
        self._contexts.append(context)
        return self

    def __exit__(self, *exc: object) -> None:
        self._contexts.pop().__exit__(*exc)

    def __deepcopy__(self, memo: dict[int, Any]) -> Ledger:
        return self  # copies of a program made inside the ledger are counted in it


def _active() -> tuple[Ledger, ...]:
    return dspy.settings.get(_SETTING) or ()


class CallRecorder:
    """Records the LM calls that one predictor makes, with their replies, finish reasons, usage and cost.

    DSPy appends each call to the `history` of every module in `caller_modules`. A recorder stands there beside them, so
    that it works with any LM and changes none.
    """

    def __init__(self) -> None:
        self.history: list[dict[str, Any]] = []

    def usage(self, meter: Meter | None = None) -> Usage:
        """The sum over the calls, by the role's meter; without one, at the cost that LiteLLM knows."""
        total = Usage()
        for entry in self.history:
            sent = entry.get("usage") or {}
            read, written = (
                dict(sent.get(name) or {}) for name in ("prompt_tokens_details", "completion_tokens_details")
            )
            counters = Counters.read(
                {
                    "input_tokens": sent.get("prompt_tokens"),
                    "output_tokens": sent.get("completion_tokens"),
                    "total_tokens": sent.get("total_tokens"),
                    "cached_tokens": read.get("cached_tokens"),
                    "reasoning_tokens": written.get("reasoning_tokens"),
                }
            )
            free = not sent and _from_cache(entry.get("response"))
            call = (meter or Meter()).measured(counters, free=free, known_cost=entry.get("cost"))
            call.cut_off_calls = int(_is_cut_off(entry))
            total.add(call)
        return total

    def text(self) -> str:
        """The last reply as the model wrote it; empty where there is none."""
        outputs = self.history[-1].get("outputs") if self.history else None
        first = outputs[0] if outputs else ""
        return str(first.get("text") or "") if isinstance(first, dict) else str(first or "")

    def cut_off(self) -> bool:
        """Whether the last reply ended because it ran out of tokens."""
        return bool(self.history) and _is_cut_off(self.history[-1])


def _is_cut_off(entry: Mapping[str, Any]) -> bool:
    return _finish_reason(entry.get("response")) == "length"


def _from_cache(response: Any) -> bool:
    """Whether a call that DSPy counts no tokens for came from its cache, and not from a server that counts none."""
    if getattr(response, "cache_hit", False):
        return True
    usage = getattr(response, "usage", None)
    return getattr(usage, "input_tokens", None) is not None or getattr(usage, "output_tokens", None) is not None


def _finish_reason(response: Any) -> str | None:
    if isinstance(response, (tuple, list)):
        response = response[-1] if response else None
    reason = getattr(response, "finish_reason", None)
    choices = getattr(response, "choices", None)
    if reason is None and choices:
        reason = getattr(choices[-1], "finish_reason", None)
    return reason


@contextmanager
def recording_calls() -> Iterator[CallRecorder]:
    """Record the LM calls made inside the block, in this thread or task."""
    recorder = CallRecorder()
    # DSPy appends nothing where the host has switched histories off.
    history = {"disable_history": False, "max_history_size": max(1, dspy.settings.max_history_size)}
    with dspy.context(caller_modules=[*(dspy.settings.caller_modules or []), recorder], **history):
        yield recorder


def record_call(key: str) -> None:
    """Add the key of a stored reply to every ledger open here."""
    for ledger in _active():
        ledger.record_call(key)


def record_usage(role: str, usage: Usage) -> None:
    """Add `usage` to every ledger open here."""
    for ledger in _active():
        ledger.record(role, usage)
