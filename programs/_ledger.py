"""The ledger: what each role of a program has used, in calls, tokens, seconds and money.

DSPy keys usage by model name, so that two roles on one model are counted as one, and counts nothing that runs under
`dspy.Parallel` inside a module. The ledger counts by role. It stands in DSPy's settings context, which DSPy's worker
threads and async tasks inherit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dspy

_SETTING = "_divcon_ledgers"


@dataclass(slots=True)
class Usage:
    """What one role has used.

    Attributes:
        calls: Requests answered; `cached_calls` of them came from DSPy's cache and cost nothing.
        input_tokens: As the server counted them; `cached_tokens` of them came from the server's own cache.
        output_tokens: As the server counted them.
        seconds: Time spent waiting, summed over calls that may have overlapped.
        cost: US dollars, of the priced calls alone.
        unpriced_calls: Calls without a known price; they are not counted as free.
        cut_off_calls: Calls whose reply ran out of tokens.
    """

    calls: int = 0
    cached_calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    unpriced_calls: int = 0
    cut_off_calls: int = 0

    def add(self, other: Usage) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `cost` is None where no call was priced."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["seconds"] = round(self.seconds, 4)
        values["cost"] = None if self.unpriced_calls == self.calls else round(self.cost, 8)
        return values


def cost_of(price: Mapping[str, float], read: int, cached: int, written: int) -> float:
    """US dollars for a call.

    Args:
        price: US dollars per million tokens: `input`, `output`, and `cached` where cached input has its own price.
        read: Input tokens, those from the server's cache included.
        cached: Input tokens from the server's cache.
        written: Output tokens.
    """
    cached_price = price.get("cached", price["input"])
    return (max(0, read - cached) * price["input"] + cached * cached_price + written * price["output"]) / 1e6


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
        self._contexts: list[Any] = []

    @property
    def usage(self) -> dict[str, Usage]:
        """Usage by role so far."""
        with self._lock:
            return dict(self._usage)

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

    def usage(self, price: dict[str, float] | None = None) -> Usage:
        """The sum over the calls; at `price` (see `cost_of`) where it is given, else at the cost that LiteLLM knows."""
        total = Usage()
        for entry in self.history:
            tokens = entry.get("usage") or {}
            details = tokens.get("prompt_tokens_details") or {}
            if not isinstance(details, dict):
                details = dict(details)
            cost = entry.get("cost")
            call = Usage(
                calls=1,
                cached_calls=0 if tokens else 1,
                input_tokens=tokens.get("prompt_tokens") or 0,
                cached_tokens=details.get("cached_tokens") or 0,
                output_tokens=tokens.get("completion_tokens") or 0,
                cut_off_calls=int(_is_cut_off(entry)),
            )
            if price is not None:
                cost = cost_of(price, call.input_tokens, call.cached_tokens, call.output_tokens)
            call.cost, call.unpriced_calls = (cost, 0) if cost is not None else (0.0, 1)
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


def record_usage(role: str, usage: Usage) -> None:
    """Add `usage` to every ledger open here."""
    for ledger in _active():
        ledger.record(role, usage)
