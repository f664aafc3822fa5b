"""How fast this machine computes, timed in a moment: what the time of a model is predicted by before it is asked."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from divcon.distill.serving.embedded._precision import Precision

_SIDE = 1024  # of the matrices whose product is timed
_READ = 2**25  # numbers of four bytes that are read: more than any cache holds
_TRIES = 3  # the fastest counts, since others may be at work
# The share of a product's speed that a model reaches while it writes; and what a token that is read costs beside one
# that is written, for which every word of the vocabulary is weighed.
_REACHED, _OF_WRITTEN = 0.7, 0.5


@dataclass(frozen=True)
class Speed:
    """The speed of this machine.

    Attributes:
        operations: Operations a second, in a product of matrices.
        memory: Bytes a second, read from memory.
    """

    operations: float
    memory: float

    def seconds_of_tokens(self, weights: float, read: float, written: float) -> float:
        """The time that computing takes for tokens of a model, in batches of any size.

        Args:
            weights: The number of the model's weights.
            read: Tokens of prompts.
            written: Tokens of replies.
        """
        return 2 * weights * (_OF_WRITTEN * read + written) / (_REACHED * self.operations)

    def seconds_of_step(self, size: float) -> float:
        """The time that a step of a batch takes at least: all weights are read once.

        Args:
            size: The bytes of the weights.
        """
        return size / self.memory


@functools.cache
def speed(precision: Precision) -> Speed:
    """The speed of this machine in a precision, on its GPU where it has one.

    Args:
        precision: What the model computes in.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    one = torch.rand(_SIDE, _SIDE, device=device).to(getattr(torch, precision))
    many = torch.zeros(_READ, device=device)
    return Speed(2 * _SIDE**3 / _seconds(lambda: one @ one), 4 * _READ / _seconds(many.sum))


def _seconds(work: Callable[[], Any]) -> float:
    """The time of some work on tensors, whose first run is slower."""
    found = []
    for _ in range(1 + _TRIES):
        started = time.perf_counter()
        work().sum().item()  # a GPU works on until its result is read
        found.append(time.perf_counter() - started)
    return min(found[1:])
