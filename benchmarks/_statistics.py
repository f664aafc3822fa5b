"""Intervals and tests over questions and seeds, paired where two arms answered the same questions.

An arm's answers are a matrix of seeds by questions with 1 for right, 0 for wrong and nan for failed. An arm that
doesn't depend on the seed has one row. A failed answer doesn't count as wrong: the question's mean over seeds leaves
it out.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from scipy.stats import bootstrap, permutation_test

Interval = tuple[float, float]


def accuracy_interval(right: Sequence[bool], resamples: int = 10_000, seed: int = 0) -> Interval:
    """95 % percentile bootstrap interval of an accuracy.

    Args:
        right: Whether each answer is right; at least one answer.
        resamples: The number of bootstrap samples.
        seed: Seeds the resampling.
    """
    return _interval(np.asarray(right, dtype=float), resamples, seed)


def mean_interval(answers: np.ndarray, resamples: int = 10_000, seed: int = 0) -> Interval:
    """95 % percentile bootstrap interval of a mean over seeds and questions, resampling both.

    Resampling the seeds accounts for the variation between trainings, besides that between questions. With few seeds,
    such as three, the interval tends to be too narrow. With one seed, it is over questions alone.

    Args:
        answers: Shape (seeds, questions); nan where an answer failed.
        resamples: The number of bootstrap samples.
        seed: Seeds the resampling.
    """
    answers = answers[:, ~np.isnan(answers).all(axis=0)]
    if len(answers) == 1:
        return _interval(answers[0], resamples, seed)
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for i in range(resamples):
        rows = rng.integers(len(answers), size=len(answers))
        columns = rng.integers(answers.shape[1], size=answers.shape[1])
        drawn = answers[np.ix_(rows, columns)]
        whole = np.count_nonzero(~np.isnan(drawn))
        means[i] = np.nansum(drawn) / whole if whole else np.nan  # nan where only failed answers were drawn
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return float(low), float(high)


def paired_p_value(a: np.ndarray, b: np.ndarray, resamples: int = 9_999, seed: int = 0) -> float:
    """Two-sided p-value of a paired permutation test, which exchanges a and b on random questions.

    Each question counts once, with its mean over seeds. With one seed and few discordant questions, scipy enumerates
    all exchanges, which is McNemar's exact test.

    Args:
        a: The mean over seeds of each question's answers; nan where all failed.
        b: The same for the other arm, for the same questions in the same order.
        resamples: The number of random exchanges; if there are no more than that, all are enumerated.
        seed: Seeds the random exchanges.
    """
    differences = (a - b)[~np.isnan(a - b)]
    differences = differences[differences != 0]  # an exchange doesn't change a difference of 0
    if len(differences) < 2:
        return 1.0
    found = permutation_test(
        (differences, np.zeros_like(differences)),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=resamples,
        vectorized=True,
        batch=1_000,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for multiple comparisons by Holm's method (1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def _interval(values: np.ndarray, resamples: int, seed: int) -> Interval:
    if np.all(values == values[0]):
        return float(values[0]), float(values[0])  # scipy warns about values that don't vary
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = bootstrap(
            (values,),
            np.mean,
            n_resamples=resamples,
            confidence_level=0.95,
            method="percentile",
            batch=500,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(found.low), float(found.high)
