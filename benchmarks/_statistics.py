"""Intervals and tests over questions and seeds, paired where two arms answered the same questions.

An arm's answers are a matrix of seeds by questions with 1 for right, 0 for wrong and nan for failed. An arm that
doesn't depend on the seed has one row. A failed answer doesn't count as wrong: the question's mean over seeds leaves
it out.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
import scipy  # loads `scipy.stats` when it is first used, in a second or more

from divcon.benchmarks._figures import points, points_between
from divcon.benchmarks._variances import covariances, in_pairs, of_seeds
from divcon.signatures import html_table

Interval = tuple[float, float]
ONE_SIDED = 0.025  # the level of a one-sided test, which is that of a 95 % interval's side
_Z = NormalDist().inv_cdf(1 - ONE_SIDED)


def accuracy_interval(right: Sequence[bool], resamples: int = 10_000, seed: int = 0) -> Interval:
    """95 % interval of an accuracy; see `mean_interval`.

    Args:
        right: Whether each answer is right; at least one answer.
        resamples: The number of bootstrap samples.
        seed: Seeds the resampling.
    """
    return mean_interval(np.asarray(right, dtype=float)[None], resamples, seed)


def mean_interval(answers: np.ndarray, resamples: int = 10_000, seed: int = 0, lowest: Literal[0, -1] = 0) -> Interval:
    """95 % percentile bootstrap interval of a mean over seeds and questions, resampling both.

    Resampling the seeds accounts for the variation between trainings, besides that between questions. With few seeds,
    such as three, the interval tends to be too narrow. With one seed, it is over questions alone. Where all answers are
    alike, a bootstrap finds no variation; the interval is then Wilson's, or Tango's of a difference.

    Args:
        answers: Shape (seeds, questions); nan where an answer failed.
        resamples: The number of bootstrap samples.
        seed: Seeds the resampling.
        lowest: The lowest mean that there can be: -1 for differences.
    """
    answers = answers[:, ~np.isnan(answers).all(axis=0)]
    mean = float(np.nanmin(answers))
    if mean == np.nanmax(answers):
        far = _Z**2 / (answers.shape[1] + _Z**2)
        return max(float(lowest), mean - far), min(1.0, mean + far)
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


def amount_interval(amounts: np.ndarray) -> Interval:
    """95 % interval of a mean of amounts, such as costs, by the normal distribution.

    Args:
        amounts: Shape (seeds, questions); nan where there is none.
    """
    middle = float(np.nanmean(amounts))
    half = _Z * math.sqrt(covariances(amounts, amounts)[0, 0])
    return middle - half, middle + half


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
    found = scipy.stats.permutation_test(
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


class Paired(NamedTuple):
    """A paired comparison of two arms, and a one-sided test of whether the first is worse by no more than a margin.

    Attributes:
        difference: The accuracy of the first arm minus that of the second.
        ci95: Tango's score interval of the difference, at 95 %.
        margin: The accepted loss of accuracy; with 0, the test is of whether the first arm is more accurate.
        p: The one-sided p-value of the hypothesis that the difference is `-margin` or less.
        discordant: The share of answers that one arm has right and the other wrong.
        n: The questions that both arms answered.
        questions: About how many questions would show it, where it isn't shown; see `questions_to_settle`. None where
            no number is expected to: the trainings may differ too much.
    """

    difference: float
    ci95: Interval
    margin: float
    p: float
    discordant: float
    n: int
    questions: int | None

    @property
    def shown(self) -> bool:
        """Whether the difference is shown to be above `-margin`; then its whole interval is."""
        return self.p < ONE_SIDED

    def _repr_html_(self) -> str:
        """The difference with its interval, and what the test says, for notebooks."""
        p = "< 0.001" if self.p < 0.001 else f"= {self.p:.3f}"
        rows = [
            ("difference of accuracy, in points", points(self.difference)),
            ("95 % interval", points_between(self.ci95)),
            ("accepted loss, in points", f"{100 * self.margin:g}"),
            ("shown to lose no more", f"{'yes' if self.shown else 'no'} (one-sided p {p})"),
            ("questions", f"{self.n:,}"),
            ("questions that would show it", "–" if self.questions is None else f"{self.questions:,}"),
        ]
        return html_table("Paired comparison", (), rows)


class Retained(NamedTuple):
    """The share of a teacher's accuracy that a student keeps.

    Attributes:
        share: The student's accuracy over the teacher's.
        ci95: The 95 % interval of the share. It has no upper limit (None) where the teacher's accuracy may be zero.
        n: The questions that both answered.
    """

    share: float
    ci95: tuple[float, float | None]
    n: int

    def _repr_html_(self) -> str:
        """The share with its interval, for notebooks."""
        low, high = self.ci95
        limits = f"at least {100 * low:.0f}" if high is None else f"{100 * low:.0f} to {100 * high:.0f}"
        rows = [
            ("of the teacher's accuracy", f"{100 * self.share:.0f} %"),
            ("95 % interval", limits),
            ("questions", f"{self.n:,}"),
        ]
        return html_table("Retained", (), rows)


def compare_paired(a: np.ndarray, b: np.ndarray, margin: float = 0.0) -> Paired | None:
    """Compare two arms that answered the same questions, and test that the first is worse by no more than a margin.

    Interval and test are Tango's (1998, Statistics in Medicine 17:891-908), which hold for few questions and where no
    two answers differ; a bootstrap has no width there. Answers of several seeds are no independent questions. They are
    scaled to as many as would have their variance (Rao and Scott 1992, Biometrics 48:577-585), which is between
    questions and between trainings. With few seeds, such as three, the interval tends to be too narrow.

    Args:
        a: Shape (seeds, questions), or (questions,), with 1 for right, 0 for wrong, nan for failed.
        b: The other arm's, for the same questions in the same order; see `in_pairs`.
        margin: The accepted loss of accuracy, from 0 to 1.

    Returns:
        The comparison; None where there is no question that both arms answered.
    """
    both = np.subtract(*in_pairs(a, b))
    n = int((~np.isnan(both)).any(axis=0).sum())
    if not n:
        return None
    better, worse = float(np.nanmean(np.maximum(both, 0))), float(np.nanmean(np.maximum(-both, 0)))
    difference, discordant = better - worse, better + worse
    alone, lasting = of_seeds(a, b)
    variance = covariances(both, both)[0, 0] + alone.sum()
    answers, spread = int(np.count_nonzero(~np.isnan(both))), discordant - difference**2
    independent = min(spread / variance, answers) if variance > 0 else n
    error = math.sqrt(_null_variance(better, worse, -margin) / independent)
    away = difference + margin
    p = float(scipy.stats.norm.sf(away / error)) if error else float(away <= 0)
    needed = None if p < ONE_SIDED else questions_to_settle(difference, discordant, int(independent), margin)
    if needed is not None:
        times = needed / independent
        if lasting:  # more questions don't make the trainings more alike
            times = (spread / independent - lasting) / spare if (spare := spread / needed - lasting) > 0 else math.inf
        needed = math.ceil(round(times * n, 6)) if math.isfinite(times) else None
    return Paired(difference, _score_interval(better, worse, independent), margin, p, discordant, n, needed)


def questions_to_settle(
    difference: float, discordant: float, n: int, margin: float = 0.0, *, power: float = 0.8
) -> int | None:
    """About how many questions would show that an arm is worse than another by no more than a margin.

    The number is Nam's (1997, Biometrics 53:1422-1430), for the test of `compare_paired`: with so many questions it
    comes out with probability `power`, if the difference and the discordant share are the observed ones. Without a
    margin, it is Miettinen's (1968, Biometrics 24:339-352) for McNemar's test. Both shares are estimates, and so is the
    number.

    Args:
        difference: The accuracy of the one minus that of the other.
        discordant: The share of questions that one has right and the other wrong.
        n: The questions that were answered, which didn't show it; so more are needed.
        margin: The accepted loss of accuracy, from 0 to 1.
        power: The probability that they show it.

    Returns:
        All questions together, the `n` included; None where the difference isn't above `-margin`, so that more
        questions aren't expected to show it.
    """
    away = difference + margin
    if away < 1e-9:
        return None
    null = _null_variance((discordant + difference) / 2, (discordant - difference) / 2, -margin)
    found = max(0.0, discordant - difference**2)
    needed = ((_Z * math.sqrt(null) + NormalDist().inv_cdf(power) * math.sqrt(found)) / away) ** 2
    return max(math.ceil(round(needed, 6)), n + 1)


def retained(student: np.ndarray, teacher: np.ndarray) -> Retained | None:
    """The share of the teacher's accuracy that a student keeps, over the questions that both answered.

    The interval is Fieller's for a ratio of paired means, by Student's t over questions. Its variances are between
    questions and, with several seeds, between trainings. Half a question is added to them for each of the four pairs of
    outcomes, as Agresti and Min (2005, Statistics in Medicine 24:729-740) do for a difference: few questions may show
    no two answers that differ, and are no proof that there are none.

    Args:
        student: Shape (seeds, questions), or (questions,), with 1 for right, 0 for wrong, nan for failed.
        teacher: The same for the teacher, for the same questions in the same order; see `in_pairs`.

    Returns:
        The share; None where the teacher has nothing right, or there is only one question.
    """
    one, two = in_pairs(student, teacher)
    n = int((~np.isnan(one)).any(axis=0).sum())
    if n < 2 or not np.nansum(two):
        return None
    mine, theirs = float(np.nanmean(one)), float(np.nanmean(two))
    variances = covariances(one, two, added=0.5) + np.diag(of_seeds(student, teacher)[0])
    return Retained(
        mine / theirs, ratio_interval(mine, theirs, variances, float(scipy.stats.t.ppf(1 - ONE_SIDED, n - 1))), n
    )


def ratio_interval(one: float, two: float, covariances: np.ndarray, quantile: float) -> tuple[float, float | None]:
    """Fieller's interval (1954, JRSS B 16:175-185) of the ratio of two means that aren't negative.

    It holds the ratios `r` for which `one - r * two` is within `quantile` standard errors of zero. Where `two` itself
    is, there is no upper limit.

    Args:
        one: The mean above the line.
        two: The mean below it.
        covariances: Of the two means, shape (2, 2).
        quantile: Of Student's t, such as 1.96 for 95 % and many observations.

    Returns:
        The limits; None for an upper one that doesn't exist.
    """
    a, b, c = (
        m - quantile**2 * v
        for m, v in ((two * two, covariances[1, 1]), (one * two, covariances[0, 1]), (one * one, covariances[0, 0]))
    )
    root = math.sqrt(max(0.0, b * b - a * c))  # the limits solve a r^2 - 2 b r + c = 0
    low = float(c / (b + root)) if c > 0 else 0.0
    return low, float((b + root) / a) if a > 0 else None


def _null_variance(better: float, worse: float, difference: float) -> float:
    """The variance of one question's paired difference, by the likeliest shares under a given difference (Tango 1998).

    Args:
        better: The share of questions that the first arm alone has right.
        worse: The share that the second alone has right.
        difference: The difference of accuracy by hypothesis, from -1 to 1.
    """
    b = (2 - better + worse) * difference - better - worse
    c = -worse * difference * (1 - difference)
    share = (math.sqrt(max(0.0, b * b - 8 * c)) - b) / 4  # of `worse`: 2 x^2 + b x + c = 0
    return max(0.0, 2 * share + difference * (1 - difference))


def _score_interval(better: float, worse: float, n: float) -> Interval:
    """Tango's 95 % interval: the differences that the score test doesn't reject."""
    found = better - worse

    def beyond(difference: float) -> float:
        return n * (found - difference) ** 2 - _Z**2 * _null_variance(better, worse, difference)

    inside = 1e-9  # the function may be zero at the observed difference, too
    low = scipy.optimize.brentq(beyond, -1.0, found - inside) if found - inside > -1 else -1.0
    high = scipy.optimize.brentq(beyond, found + inside, 1.0) if found + inside < 1 else 1.0
    return float(low), float(high)


def _interval(values: np.ndarray, resamples: int, seed: int) -> Interval:
    bootstrap = scipy.stats.bootstrap  # loaded here, so that no warning of its loading is an error
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
