"""Variances of means over questions and seeds, of two arms side by side."""

from __future__ import annotations

import numpy as np


def in_pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The answers of two arms side by side, nan where either failed.

    Args:
        a: Shape (seeds, questions), or (questions,).
        b: The other arm's, for the same questions in the same order. An arm with one seed is paired with every seed of
            the other; of two arms with different numbers of seeds, the means are paired (and see `of_seeds`).

    Returns:
        Two arrays of the same shape (seeds, questions).
    """
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    if len(a) != len(b) and 1 not in (len(a), len(b)):
        a, b = a.mean(axis=0, keepdims=True), b.mean(axis=0, keepdims=True)
    a, b = np.broadcast_arrays(a, b)
    failed = np.isnan(a - b)
    return np.where(failed, np.nan, a), np.where(failed, np.nan, b)


def covariances(one: np.ndarray, two: np.ndarray, added: float = 0.0) -> np.ndarray:
    """The covariances of two means over seeds and questions, shape (2, 2): between questions, and between seeds.

    The variation of single answers counts in both, which makes them a little too large, as in `mean_interval`.

    Args:
        one: Shape (seeds, questions).
        two: The same, nan in the same places.
        added: Questions that are added for each of the four pairs of outcomes.
    """
    whole = ~np.isnan(one).all(axis=0)
    weights = [1.0] * int(whole.sum()) + [added] * 4
    outcomes = np.array([[1, 1, 0, 0], [1, 0, 1, 0]])
    means = np.stack([np.nanmean(answers[:, whole], axis=0) for answers in (one, two)])
    found = np.cov(np.hstack([means, outcomes]), ddof=0, aweights=weights) / sum(weights)
    if len(one) > 1:
        found += np.cov(np.stack([np.nanmean(answers, axis=1) for answers in (one, two)])) / len(one)
    return np.asarray(found)


def of_seeds(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
    """The variances of two arms' means between seeds, where these can't be paired, and what lasts of the difference's.

    Args:
        a: Shape (seeds, questions), or (questions,).
        b: The other arm's.

    Returns:
        The variances of the two means, zero where each seed of one has a seed of the other, so that `covariances` has
        them; and the variance of the difference that would be left with any number of questions.
    """
    one, two = in_pairs(a, b)
    apart = [np.atleast_2d(a), np.atleast_2d(b)]
    if len(apart[0]) == len(apart[1]) or 1 in (len(apart[0]), len(apart[1])):
        return np.zeros(2), _lasting(one - two)
    alone = np.array([np.var(np.nanmean(answers, axis=1), ddof=1) / len(answers) for answers in apart])
    return alone, sum(map(_lasting, apart))


def _lasting(answers: np.ndarray) -> float:
    """The variance of a mean over seeds that more questions wouldn't make smaller, shape (seeds, questions)."""
    seeds, questions = len(answers), int((~np.isnan(answers)).any(axis=0).sum())
    if seeds < 2 or not questions:
        return 0.0
    whole = answers[:, (~np.isnan(answers)).sum(axis=0) > 1]
    single = float(np.nanvar(whole, axis=0, ddof=1).mean()) / questions if whole.size else 0.0
    return max(0.0, float(np.var(np.nanmean(answers, axis=1), ddof=1)) - single) / seeds
