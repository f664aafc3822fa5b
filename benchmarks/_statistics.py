"""Intervals: a bootstrap over questions, paired where two arms answered the same ones."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.stats import bootstrap

Interval = tuple[float, float]


def accuracy_interval(right: Sequence[bool], resamples: int = 10_000, seed: int = 0) -> Interval:
    """95 % percentile bootstrap interval of an accuracy.

    Args:
        right: One truth value a question; at least one.
        resamples: Bootstrap samples.
        seed: Of the resampling.
    """
    return _interval(np.asarray(right, dtype=float), resamples, seed)


def difference_interval(a: Sequence[bool], b: Sequence[bool], resamples: int = 10_000, seed: int = 0) -> Interval:
    """95 % percentile bootstrap interval of accuracy(a) - accuracy(b), resampling questions, so that it is paired.

    Args:
        a: One truth value a question.
        b: The same questions in the same order.

    Raises:
        ValueError: The lengths differ.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} answers can't be paired")
    return _interval(np.asarray(a, dtype=float) - np.asarray(b, dtype=float), resamples, seed)


def _interval(values: np.ndarray, resamples: int, seed: int) -> Interval:
    if np.all(values == values[0]):
        return float(values[0]), float(values[0])  # nothing varies, and scipy would warn
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = bootstrap(
            (values,), np.mean, n_resamples=resamples, confidence_level=0.95, method="percentile", batch=500,
            rng=np.random.default_rng(seed),
        ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)
