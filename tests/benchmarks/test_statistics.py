import numpy as np
import pytest
from scipy.stats import binomtest
from support.arms import arm_named

from divcon.benchmarks import differences, holm, mean_interval, paired_p_value, summarize_arm


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
