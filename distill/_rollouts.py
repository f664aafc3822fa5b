"""Rollouts: the numbers that tell equal requests apart, since several samples of one prompt are several replies."""

from __future__ import annotations

import contextlib
import contextvars
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dspy
from dspy.utils.callback import BaseCallback

_CANDIDATES = 1_000_000
"""Rollout 7 has the numbers from 7,000,000 on, one per candidate. No call has a million candidates."""


@dataclass
class _LMCall:
    """One call of an LM: its rollout, and how many candidates the engine has returned for each of its requests."""

    rollout: int = 0
    candidates: Counter[str] = field(default_factory=Counter)


_lm_call: contextvars.ContextVar[_LMCall | None] = contextvars.ContextVar("divcon_lm_call", default=None)
_inner_rollout: contextvars.ContextVar[int | None] = contextvars.ContextVar("divcon_inner_rollout", default=None)


def next_rollout(asked: str) -> int:
    """The number that distinguishes this request from equal requests before it.

    Args:
        asked: The request's fingerprint.
    """
    call = _lm_call.get() or _LMCall()
    rollout = call.rollout * _CANDIDATES + call.candidates[asked]
    call.candidates[asked] += 1
    return rollout


class RolloutNote(BaseCallback):
    """Records the rollout of an LM call before the engine is asked.

    DSPy removes `rollout_id` from the request before the engine sees it, and asks an engine n times for n candidates.
    Without the record, two samples of one prompt would be the same request.
    """

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        given = inputs.get("kwargs", inputs)
        rollout = given.get("rollout_id", getattr(instance, "kwargs", {}).get("rollout_id"))
        inner = _inner_rollout.get()
        _lm_call.set(_LMCall(int(rollout or 0) if inner is None else inner))


def rollout_id(rollout: int) -> int:
    """DSPy's `rollout_id` of the call that a number of `next_rollout` is of; 0 where the call had none."""
    return rollout // _CANDIDATES


@contextlib.contextmanager
def as_inner_call(rollout: int, listener: Any = None) -> Iterator[None]:
    """Run an LM call that is made inside another LM call: it has the outer call's rollout and no history of its own.

    Callbacks of the settings see the outer call alone. An inner call that fails may be asked again and succeed.

    Args:
        rollout: The outer call's rollout.
        listener: Gets the chunks of the reply as they arrive (DSPy's `send_stream`); None asks for a whole reply.
    """
    outer, token = _lm_call.get(), _inner_rollout.set(rollout)
    try:
        with dspy.context(disable_history=True, usage_tracker=None, callbacks=[], send_stream=listener):
            yield
    finally:
        _inner_rollout.reset(token)
        _lm_call.set(outer)
