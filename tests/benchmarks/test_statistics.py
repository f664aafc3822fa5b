import numpy as np
import pytest
from scipy.stats import binomtest, norm
from support.arms import arm_named

from divcon.benchmarks import (
    compare_paired,
    differences,
    holm,
    mean_interval,
    paired_p_value,
    questions_to_settle,
    ratio_interval,
    retained,
    summarize_arm,
)


def test_one_seeds_test_is_mcnemars_exact_one() -> None:
    a = np.array([1.0] * 9 + [0.0] * 2 + [1.0] * 30)
    b = np.array([0.0] * 9 + [1.0] * 2 + [1.0] * 30)
    assert paired_p_value(a, b) == pytest.approx(binomtest(2, 11).pvalue)
    assert paired_p_value(a, a) == 1.0
    assert paired_p_value(b, a) == paired_p_value(a, b)


def test_a_question_that_failed_is_in_no_test() -> None:
    a, b = np.array([1.0] * 8 + [np.nan] * 5), np.array([0.0] * 8 + [1.0] * 5)
    assert paired_p_value(a, b) == pytest.approx(binomtest(0, 8).pvalue)


def test_the_p_value_is_uniform_where_nothing_differs() -> None:
    rng = np.random.default_rng(0)
    found = [
        paired_p_value((rng.random(80) < 0.6).astype(float), (rng.random(80) < 0.6).astype(float), 999, seed)
        for seed in range(300)
    ]
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.08


def test_holm_multiplies_by_what_is_left_and_never_falls() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_an_interval_over_seeds_is_wider_where_seeds_differ() -> None:
    rng = np.random.default_rng(1)
    alike = (rng.random((1, 200)) < 0.6).astype(float).repeat(3, axis=0)
    apart = np.stack([(rng.random(200) < share).astype(float) for share in (0.4, 0.6, 0.8)])
    width = {name: np.diff(mean_interval(x, 2000))[0] for name, x in (("alike", alike), ("apart", apart))}
    assert width["apart"] > 1.5 * width["alike"]
    one = mean_interval(alike[:1], 2000)
    assert mean_interval(alike, 2000) == pytest.approx(one, abs=0.02)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    hits = 0
    for seed in range(200):
        low, high = mean_interval((rng.random((1, 100)) < 0.7).astype(float), 400, seed)
        hits += low <= 0.7 <= high
    assert 0.89 <= hits / 200 <= 0.99


@pytest.mark.parametrize(("right", "questions"), [(0, 16), (16, 16), (0, 1), (400, 400)])
def test_answers_that_are_all_alike_are_no_certainty(right: int, questions: int) -> None:
    wilson = binomtest(right, questions).proportion_ci(0.95, "wilson")
    answers = np.full((1, questions), right / questions)
    for seeds in (1, 3):
        assert mean_interval(answers.repeat(seeds, axis=0)) == pytest.approx((wilson.low, wilson.high))
    same = compare_paired(answers, answers)
    assert same is not None
    assert mean_interval(answers - answers, lowest=-1) == pytest.approx(same.ci95)


def records(*outcomes: str) -> dict[str, dict]:
    return {str(i): {"outcome": outcome, "error": "no"} for i, outcome in enumerate(outcomes)}


def test_seeds_are_summed_and_their_accuracies_named() -> None:
    line = summarize_arm(arm_named("sd-r"), [records("right", "wrong"), records("right", "failed")], 200, 0.5)
    assert (line["right"], line["wrong"], line["failed"]) == (2, 1, 1)
    assert line["accuracy"] == pytest.approx(2 / 3)
    assert line["by_seed"] == [0.5, 1.0]


def test_a_price_that_became_known_or_changed_counts_as_it_is_now() -> None:
    used = {
        "calls": 1,
        "input_tokens": 1000,
        "cached_tokens": 400,
        "output_tokens": 100,
        "cost": None,
        "unpriced_calls": 1,
    }
    answered = {"0": {"outcome": "right", "usage": {"solver": used}}}
    assert summarize_arm(arm_named("cot"), [answered], 200)["bill"]["cost"] is None
    price = {"solver": {"input": 2.0, "cached": 0.5, "output": 8.0}}
    found = summarize_arm(arm_named("cot", prices=price), [answered], 200)
    assert found["bill"]["cost"] == pytest.approx((600 * 2 + 400 * 0.5 + 100 * 8) / 1e6)


def test_a_seed_whose_answers_all_failed_leaves_no_accuracy_of_the_others() -> None:
    line = summarize_arm(arm_named("sd-r"), [records("right", "wrong"), records("failed", "failed")], 200, 1.0)
    assert "by_seed" not in line
    assert line["accuracy"] is None
    assert line["withheld"] == "2 of 4 answers failed; the first: no"


@pytest.mark.parametrize(("failed", "accuracy"), [(1, 1.0), (2, None)])
def test_above_the_share_that_may_fail_there_is_no_score(failed: int, accuracy: float | None) -> None:
    found = [records(*["right"] * (50 - failed), *["failed"] * failed)]
    line = summarize_arm(arm_named("sd-r"), found, 200)
    assert (line["accuracy"], line["failed"]) == (accuracy, failed)
    scores = ("ci95", "whole_rate", "salvaged_rate", "fell_back_rate", "bill")
    assert all((line[name] is None) == (accuracy is None) for name in scores)
    rows = differences({"a": found, "b": [records(*["right"] * 50)]}, 200)
    assert [(row["n"], row["left_out"]) for row in rows] == ([(49, 1)] if accuracy else [])


def test_one_seed_over_the_share_is_not_hidden_by_the_others() -> None:
    whole = records(*["right"] * 20)
    line = summarize_arm(arm_named("sd-r"), [whole, whole, records(*["right"] * 19, "failed")], 200)
    assert line["accuracy"] is None


def test_answers_of_different_questions_are_not_paired() -> None:
    with pytest.raises(ValueError, match="different questions"):
        differences({"a": [records("right", "wrong")], "b": [records("right")]}, 200)


def test_an_arm_without_seeds_is_paired_with_every_seed_of_the_other() -> None:
    arms = {"cot": [records("right", "wrong")], "sd-r": [records("right", "right"), records("wrong", "right")]}
    (row,) = differences(arms, 200, [("sd-r", "cot")])
    assert row["difference"] == pytest.approx(0.25)
    assert (row["n"], row["p_holm"]) == (2, row["p"])


def test_the_correction_is_for_as_many_comparisons_as_there_are() -> None:
    arms = {"a": [records(*["right"] * 8)], "b": [records(*["wrong"] * 8)], "c": [records(*["wrong"] * 8)]}
    rows = differences(arms, 200)
    assert [row["p_holm"] for row in rows] == pytest.approx([3 * rows[0]["p"], 3 * rows[1]["p"], 1.0])


def pairs(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """The answers of two arms, by the cells of the paired table."""
    one, two = [1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 1.0, 0.0]
    counts = [both, first, second, neither]
    return np.repeat(one, counts), np.repeat(two, counts)


def drawn(rng: np.random.Generator, shares: tuple[float, ...], n: int) -> tuple[np.ndarray, np.ndarray]:
    return pairs(*rng.multinomial(n, shares))


def test_the_paired_interval_is_tangos() -> None:
    # Airway hyper-responsiveness before and after: Fagerland, Lydersen and Laake 2014 have -0.517 to -0.026.
    found = compare_paired(*pairs(1, 1, 7, 12))
    assert found is not None
    assert found.ci95 == pytest.approx((-0.517, -0.026), abs=0.0005)
    assert (found.n, found.difference, found.discordant) == (21, pytest.approx(-6 / 21), pytest.approx(8 / 21))
    swapped = compare_paired(*reversed(pairs(1, 1, 7, 12)))
    assert swapped is not None
    assert swapped.ci95 == pytest.approx((0.026, 0.517), abs=0.0005)


def test_without_a_margin_the_paired_test_is_mcnemars() -> None:
    found = compare_paired(*pairs(30, 12, 3, 10))
    assert found is not None
    assert found.p == pytest.approx(norm.sf(9 / 15**0.5))
    assert found.shown and found.questions is None


def test_no_discordant_answer_among_few_proves_nothing() -> None:
    found = compare_paired(np.ones(20), np.ones(20), 0.02)
    assert found is not None
    z2 = norm.ppf(0.975) ** 2
    assert found.ci95 == pytest.approx((-z2 / (20 + z2), z2 / (20 + z2)))  # as Wilson's interval of 0 of 20
    assert not found.shown
    assert found.questions == 189  # z2 * 0.98 / 0.02 = 188.2
    later = compare_paired(np.ones(189), np.ones(189), 0.02)
    assert later is not None and later.shown
    assert compare_paired(np.ones(3), np.full(3, np.nan)) is None


def test_the_number_of_questions_is_nams_and_without_a_margin_miettinens() -> None:
    assert questions_to_settle(0.1, 0.3, 50) == 234  # (1.9600 sqrt(0.3) + 0.8416 sqrt(0.29))^2 / 0.01 = 233.1
    assert questions_to_settle(0.1, 0.3, 50, power=0.9) == 312  # (1.9600 sqrt(0.3) + 1.2816 sqrt(0.29))^2 / 0.01
    # Under a difference of -0.02 the second is right alone in (0.14 + sqrt(0.14^2 - 8 * 0.00102)) / 4 = 0.06174 of the
    # questions, and the variance is 2 * 0.06174 - 0.02 - 0.0004 = 0.10308:
    # (1.9600 sqrt(0.10308) + 0.8416 sqrt(0.1))^2 / 0.0004 = 2004.4
    assert questions_to_settle(0.0, 0.1, 50, 0.02) == 2005
    assert questions_to_settle(0.0, 0.3, 50) is None
    assert questions_to_settle(-0.03, 0.3, 50, 0.02) is None
    assert questions_to_settle(0.5, 0.5, 50) == 51


def test_as_many_questions_as_it_says_show_it_four_times_in_five() -> None:
    shares = (0.5, 0.18, 0.12, 0.2)
    n = questions_to_settle(0.06, 0.3, 50, 0.02)
    assert n is not None
    rng = np.random.default_rng(0)
    found = [compare_paired(*drawn(rng, shares, n), 0.02) for _ in range(300)]
    assert 0.74 < np.mean([one is not None and one.shown for one in found]) < 0.86


@pytest.mark.parametrize(("n", "shares"), [(30, (0.85, 0.05, 0.05, 0.05)), (100, (0.4, 0.1, 0.2, 0.3))])
def test_paired_intervals_cover_and_the_test_errs_as_rarely_as_they_say(n: int, shares: tuple[float, ...]) -> None:
    rng = np.random.default_rng(1)
    truth, share = shares[1] - shares[2], (shares[0] + shares[1]) / (shares[0] + shares[2])
    covered, kept, shown = [], [], []
    for _ in range(400):
        one, two = drawn(rng, shares, n)
        found, ratio = compare_paired(one, two, -truth if truth < 0 else 0.0), retained(one, two)
        assert found is not None and ratio is not None
        covered.append(found.ci95[0] <= truth <= found.ci95[1])
        kept.append(ratio.ci95[0] <= share <= (ratio.ci95[1] or np.inf))
        shown.append(found.shown)
    assert 0.925 <= np.mean(covered) <= 0.995
    assert 0.925 <= np.mean(kept) <= 0.995
    assert np.mean(shown) <= 0.045


def test_an_arm_that_lacks_a_seed_gives_no_narrower_interval() -> None:
    """The seeds of both rise alike. Where one is missing they can't be paired, and each arm's variation counts."""
    drawn = np.random.default_rng(1).random(400)
    one, other = (
        np.stack([(drawn < share).astype(float) for share in shares]) for shares in ((0.45, 0.6, 0.75), (0.4, 0.5, 0.6))
    )
    paired, apart = compare_paired(one, other), compare_paired(one, other[:2])
    assert paired is not None and apart is not None
    assert paired.ci95[0] > 0 > apart.ci95[0]
    assert apart.ci95[1] > paired.ci95[1]
    kept, less = retained(one, other), retained(one, other[:2])
    assert kept is not None and less is not None
    assert less.ci95[0] < kept.ci95[0]


def test_no_number_of_questions_settles_what_differs_between_trainings() -> None:
    draw = np.random.default_rng(1)
    teacher = (draw.random(400) < 0.5).astype(float)
    apart, alike = (
        compare_paired(np.stack([(draw.random(400) < share).astype(float) for share in shares]), teacher)
        for shares in ((0.50, 0.58, 0.62), (0.55, 0.55, 0.55))
    )
    assert apart is not None and alike is not None
    assert not apart.shown and apart.questions is None
    assert not alike.shown and alike.questions is not None and alike.questions > 400


def test_more_seeds_with_the_same_answers_are_no_more_questions() -> None:
    one, two = pairs(20, 9, 4, 17)
    once, thrice = compare_paired(one, two, 0.02), compare_paired(np.tile(one, (3, 1)), two, 0.02)
    assert once is not None and thrice is not None
    assert thrice.ci95 == pytest.approx(once.ci95)
    assert (thrice.n, thrice.questions) == (once.n, once.questions)
    apart = compare_paired(np.stack([one, np.ones(50), np.zeros(50)]), two)
    assert apart is not None
    assert np.diff(apart.ci95)[0] > 1.5 * np.diff(once.ci95)[0]


def test_a_ratios_interval_is_fiellers() -> None:
    # 3 / 2 with variances 0.09 and 0.04, two standard errors: (6 +- sqrt(36 - 3.84 * 8.64)) / 3.84
    assert ratio_interval(3, 2, np.diag([0.09, 0.04]), 2.0) == pytest.approx((1.125, 2.0))
    covariances = np.array([[0.09, 0.03], [0.03, 0.04]])
    for limit in ratio_interval(3, 2, covariances, 2.0):
        assert limit is not None
        aside = np.array([1, -limit])
        assert abs(3 - 2 * limit) == pytest.approx(2 * (aside @ covariances @ aside) ** 0.5)


def test_a_teacher_that_may_have_nothing_right_bounds_nothing() -> None:
    assert ratio_interval(3, 2, np.diag([0.09, 4.0]), 2.0) == (pytest.approx(0.4849, abs=1e-4), None)
    assert ratio_interval(1, 1, np.eye(2), 2.0) == (0.0, None)
    assert ratio_interval(0, 2, np.diag([0.09, 0.04]), 2.0)[0] == 0.0
    kept = retained(*pairs(1, 9, 1, 9))
    assert kept is not None
    assert (kept.share, kept.ci95[1]) == (5.0, None)


def test_a_student_keeps_its_accuracy_over_the_teachers_on_the_questions_of_both() -> None:
    one, two = pairs(60, 6, 20, 14)
    kept = retained(one, two)
    assert kept is not None
    assert (kept.share, kept.n) == (pytest.approx(66 / 80), 100)
    low, high = kept.ci95
    assert high is not None and 0.70 < low < 0.75 < 0.90 < high < 0.96
    failed = np.array([1.0, 0.0, np.nan])
    assert retained(np.append(one, [1, 1, 1]), np.append(two, failed)) == retained(
        np.append(one, [1, 1]), np.append(two, [1, 0])
    )
    assert retained(one, np.zeros(100)) is None


def test_a_students_line_says_what_it_keeps_of_the_teachers() -> None:
    teacher = [records("right", "right", "right", "wrong")]
    student = [records("right", "right", "wrong", "wrong"), records("right", "wrong", "right", "right")]
    line = summarize_arm(arm_named("sd-r", local=("decomposer",)), student, 200, teacher=teacher)
    assert (line["retained"]["share"], line["retained"]["n"]) == (pytest.approx(5 / 6), 4)
    assert summarize_arm(arm_named("sd-r", local=("decomposer",)), student, 200)["retained"] is None
    assert "retained" not in summarize_arm(arm_named("cot"), student, 200, teacher=teacher)
    failed = [records("right", "failed", "failed", "failed")]
    assert summarize_arm(arm_named("sd-r", local=("decomposer",)), student, 200, teacher=failed)["retained"] is None


def test_costs_that_differ_have_an_interval() -> None:
    price = {"solver": {"input": 1e6, "output": 0.0}}
    used = {"calls": 1, "cached_tokens": 0, "output_tokens": 0, "cost": None, "unpriced_calls": 1}
    found = {str(n): {"outcome": "right", "usage": {"solver": {**used, "input_tokens": n}}} for n in (1, 3, 1, 3)}
    found |= {f"{n}b": {"outcome": "right", "usage": {"solver": {**used, "input_tokens": n}}} for n in (1, 3)}
    bill = summarize_arm(arm_named("cot", prices=price), [found], 200)["bill"]
    assert bill["cost"] == pytest.approx(2)
    assert bill["cost_ci95"] == pytest.approx([2 - 1.96 / 2, 2 + 1.96 / 2], abs=1e-3)  # a deviation of 1 over sqrt(4)
    assert summarize_arm(arm_named("cot"), [found], 200)["bill"]["cost_ci95"] is None
    # The order in which a seed's answers came in tells nothing.
    seeds = [found, dict(reversed(found.items()))]
    again = summarize_arm(arm_named("cot", prices=price), seeds, 200)["bill"]
    assert again["cost_ci95"] == pytest.approx(bill["cost_ci95"])
