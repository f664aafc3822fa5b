"""Waiting: OpenMP's threads sleep between two operations instead of spinning.

libgomp has them spin for what comes next, on cores that somebody else may need: with two threads and one busy core a
training step took six times what one thread took. It reads its settings once, when torch loads it.
"""

from __future__ import annotations

import os

_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_OURS: dict[str, str] = {}


def wait_asleep() -> None:
    """Have the threads of this process sleep while they wait, where its environment doesn't say how they are to.

    To be called before torch is first imported; afterwards it changes nothing.
    """
    if not any(name in os.environ for name in _CHOICES):
        _OURS["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.update(_OURS)


def inherited() -> dict[str, str]:
    """The environment as it was given to this process, for another program that has its own way of waiting."""
    return {name: value for name, value in os.environ.items() if _OURS.get(name) != value}
