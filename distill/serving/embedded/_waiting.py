"""Waiting: OpenMP's threads spin briefly between two operations, and then sleep.

libgomp has them spin long for what comes next, on cores that somebody else may need. Beside one busy core, two threads
took more than twice as long for a training step as one thread did. Threads that sleep at once took a quarter longer
alone. To spin a thousand times costs little of either (benchmarks/results/perf-cpu.json). libgomp reads this once, when
torch loads it.
"""

from __future__ import annotations

import os

_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
BRIEFLY = {"GOMP_SPINCOUNT": "1000"}
_OURS: dict[str, str] = {}


def wait_briefly() -> None:
    """Have the threads of this process spin briefly while they wait, where its environment doesn't say how long.

    To be called before torch is first imported; afterwards it changes nothing.
    """
    if not any(name in os.environ for name in _CHOICES):
        _OURS.update(BRIEFLY)
        os.environ.update(_OURS)


def inherited() -> dict[str, str]:
    """The environment as it was given to this process, for another program that has its own way of waiting."""
    return {name: value for name, value in os.environ.items() if _OURS.get(name) != value}
