"""How fast this machine computes, timed in a moment: what the time of a model is predicted by before it is asked."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from divcon.distill.serving.embedded._precision import Precision

_SIDE = 1024  # of the square matrices whose product is timed
_WEIGHTS = (8192, 2048)  # of the layer that is timed, more than a cache holds
_FEW, _MANY = 8, 64  # rows that pass it
_TRIES = 3  # the fastest counts, since others may be at work
_OF_PRODUCT = 0.6  # what a token that is read takes, beside the product: no word of the vocabulary is weighed for it


@dataclass(frozen=True)
class Speed:
    """The speed of this machine.

    Attributes:
        operations: Operations a second, in a product of large square matrices.
        step: Seconds for each weight of a model in a step of a batch, however many rows it has.
        row: Seconds for each weight and row of such a step.
    """

    operations: float
    step: float
    row: float

    def seconds_of(self, weights: float, read: float, written: float, steps: float) -> float:
        """The time that a model computes.

        Args:
            weights: The number of its weights.
            read: Tokens of prompts.
            written: Tokens of replies.
            steps: Steps of batches in which they are written.
        """
        reading = 2 * _OF_PRODUCT * read / self.operations
        return weights * (reading + self.row * written + self.step * steps)


@functools.cache
def speed(precision: Precision) -> Speed:
    """The speed of this machine in a precision, on its GPU where it has one.

    Args:
        precision: What the model computes in.
    """
    import torch

    device, kind = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, precision)

    def drawn(*shape: int) -> Any:
        return torch.rand(*shape, device=device).to(kind)

    square, layer = drawn(_SIDE, _SIDE), drawn(*_WEIGHTS)
    few, many = drawn(_FEW, layer.shape[1]), drawn(_MANY, layer.shape[1])
    with torch.inference_mode():
        product = _seconds(lambda: square @ square)
        least = _seconds(lambda: torch.nn.functional.linear(few, layer))
        most = _seconds(lambda: torch.nn.functional.linear(many, layer))
    row = max(0.0, most - least) / (_MANY - _FEW)
    return Speed(2 * _SIDE**3 / product, max(0.0, least - _FEW * row) / layer.numel(), row / layer.numel())


def _seconds(work: Callable[[], Any]) -> float:
    """The time of some work on tensors, whose first run is slower."""
    found = []
    for _ in range(1 + _TRIES):
        started = time.perf_counter()
        work().sum().item()  # a GPU works on until its result is read
        found.append(time.perf_counter() - started)
    return min(found[1:])
