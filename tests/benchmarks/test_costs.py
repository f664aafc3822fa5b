from typing import Any

import pytest
from support.arms import arm_named

from divcon.benchmarks import (
    bill,
    break_even,
    choose,
    compare_costs,
    dollars,
    mean_upfront,
    pareto_front,
    solver_share,
    upfront,
)
from divcon.benchmarks._advice import advice
from divcon.programs import Counters, Meter


def used(read: int, written: int, cost: float | None, cached: int = 0) -> dict[str, Any]:
    return {
        "calls": 10,
        "input_tokens": read,
        "cached_tokens": cached,
        "output_tokens": written,
        "cost": cost,
        "unpriced_calls": 0 if cost is not None else 10,
        "unknown_calls": 0,
    }


def line(name: str, accuracy: float, decomposer: dict | None, solver: dict, *local: str) -> dict[str, Any]:
    usage = {"solver": solver, **({"decomposer": decomposer} if decomposer else {})}
    arm = arm_named(name)
    facts = {"splits": arm.splits, "choosable": arm.choosable, "student": arm.student}
    return {"name": name, **facts, "accuracy": accuracy, "bill": bill(usage, 10, local)}


def test_both_stages_count_with_input_output_and_cached_apart() -> None:
    found = bill({"decomposer": used(1000, 200, 0.5, 400), "solver": used(3000, 100, 1.5)}, 10)
    assert found["cost"] == pytest.approx(0.2)
    assert found["by_role"]["decomposer"] == {
        "input_tokens": 100,
        "cached_tokens": 40,
        "output_tokens": 20,
        "cost": pytest.approx(0.05),
        "cost_per_1000": pytest.approx(50),
        "unknown_calls": 0,
    }
    assert found["cost_per_1000"] == pytest.approx(200)
    assert found["large_tokens"] == pytest.approx(430)


def test_cached_tokens_have_their_own_price() -> None:
    assert Meter({"input": 2.0, "output": 8.0, "cached": 0.5}).cost(Counters(1000, 100, 600)) == pytest.approx(
        (400 * 2 + 600 * 0.5 + 100 * 8) / 1e6
    )
    assert Meter({"input": 2.0, "output": 8.0}).cost(Counters(1000, 100, 600)) == pytest.approx(
        (1000 * 2 + 100 * 8) / 1e6
    )


def test_an_unknown_price_is_unknown_and_a_students_is_said_to_count_as_nothing() -> None:
    unknown = bill({"solver": used(10, 10, None)}, 10)
    assert (unknown["cost"], unknown["cost_per_1000"]) == (None, None)
    student = bill({"decomposer": used(10, 10, None), "solver": used(10, 10, 1.0)}, 10, ("decomposer",))
    assert (student["cost"], student["student_free"]) == (pytest.approx(0.1), True)
    assert student["large_tokens"] == pytest.approx(2)


def test_a_student_pays_for_itself_after_what_it_cost_over_what_it_saves() -> None:
    paid = [{"teacher": used(100, 100, 3.0)}, {"solver": used(100, 100, 1.0)}]
    before = upfront(paid, seconds=7200, hour=0.5)
    assert before["cost"] == pytest.approx(4.0 + 1.0)
    assert (before["calls"], before["tokens"]) == (20, 400)
    assert break_even(before["cost"], 0.03, 0.02) == 500
    assert break_even(before["cost"], 0.02, 0.03) is None
    assert break_even(None, 0.03, 0.02) is None
    assert upfront(paid, 7200, None)["cost"] is None
    assert upfront([{"teacher": used(1, 1, None)}], 7200, 1.0)["cost"] is None


def test_seeds_that_found_their_questions_paid_already_are_no_cheaper_students() -> None:
    """Three seeds draw 100 of 120 questions each, and 118 in all: the first pays for 100, the others for 18."""
    hour = 3600.0
    seeds = [upfront([{"teacher": used(n, n, n / 10)}], 2 * hour, 1.0) for n in (100, 14, 4)]
    found = mean_upfront([(seeds, 100 / 118)])
    assert (found["asked"], found["training"], found["cost"]) == (pytest.approx(10.0), 2.0, pytest.approx(12.0))
    assert (found["tokens"], found["seconds"]) == (pytest.approx(200), 2 * hour)
    side_by_side = [upfront([{"teacher": used(n, n, n / 10)}], hour, 0.0) for n in (40, 40, 38)]
    assert mean_upfront([(side_by_side, 100 / 118)])["asked"] == pytest.approx(10.0)
    assert mean_upfront([([upfront([], 100.0, 0.0)], 1.0)])["cost"] == 0
    disjoint = [upfront([{"teacher": used(n, n, n / 10)}], hour, 0.0) for n in (10, 14)]
    assert mean_upfront([(disjoint, 0.5)])["asked"] == pytest.approx(1.2)
    assert mean_upfront([([disjoint[0], upfront([], hour, 0.0)], 0.5)])["asked"] == pytest.approx(1.0)
    unknown = upfront([{"teacher": used(1, 1, None)}], 1.0, 0.0)
    assert mean_upfront([([seeds[0], unknown], 0.5)])["cost"] is None


def test_teachers_that_share_nothing_are_averaged() -> None:
    one, other = (upfront([{"teacher": used(n, n, n / 10)}], 100.0, 0.0) for n in (100, 50))
    assert mean_upfront([([one], 1.0), ([other], 1.0)])["asked"] == pytest.approx(7.5)


def test_the_front_holds_what_nothing_beats_in_both() -> None:
    points = {"cheap": (0.4, 1.0), "good": (0.6, 2.0), "bad": (0.5, 3.0), "best": (0.7, 9.0), "same": (0.6, 2.0)}
    assert pareto_front(points) == ["cheap", "good", "same", "best"]


def test_the_cheapest_within_two_points_is_chosen() -> None:
    assert choose({"teacher": (0.65, 9.0), "sd-r": (0.64, 2.0), "cot": (0.50, 1.0)}) == "sd-r"
    assert choose({"teacher": (0.65, 9.0), "sd-r": (0.60, 2.0)}) == "teacher"
    assert choose({}) is None


def test_a_comparison_says_what_is_saved_and_when_the_solver_dominates() -> None:
    lines = [
        line("cot", 0.5, None, used(1000, 1000, 1.0)),
        line("teacher", 0.65, used(500, 500, 0.5), used(3000, 1000, 4.5)),
        line("sd-r", 0.65, used(500, 500, None), used(3000, 1000, 4.5), "decomposer"),
        line("references", 0.9, used(500, 500, None), used(3000, 1000, 4.5)),
    ]
    before = {"sd-r": upfront([{"teacher": used(100, 100, 3.0)}], 0.0, 1.0)}
    found = compare_costs(lines, before)
    assert found["in_money"]
    assert found["choice"] == "sd-r"
    assert found["against_teacher"]["sd-r"]["saves"] == pytest.approx(0.1)
    assert found["against_teacher"]["sd-r"]["break_even"] == 60
    assert found["solver_share"] == pytest.approx(0.9)
    assert found["solver_dominates"]
    assert "references" not in found["points"]


def test_without_prices_tokens_of_models_other_than_students_are_compared() -> None:
    lines = [
        line("teacher", 0.65, used(500, 500, None), used(3000, 1000, None)),
        line("sd-r", 0.65, used(500, 500, None), used(3000, 1000, None), "decomposer"),
    ]
    found = compare_costs(lines, {})
    assert (found["in_money"], found["choice"]) == (False, "sd-r")
    assert found["points"] == {"teacher": [0.65, 500.0], "sd-r": [0.65, 400.0]}
    assert solver_share(lines[0]["bill"]) == pytest.approx(0.8)


def test_tokens_that_werent_counted_are_unknown_and_compared_with_nothing() -> None:
    uncounted = {**used(0, 0, None), "unknown_calls": 3}
    found = bill({"decomposer": uncounted, "solver": used(100, 10, None)}, 10)
    assert (found["large_tokens"], found["by_role"]["decomposer"]["unknown_calls"]) == (None, 3)
    lines = [line("teacher", 0.9, uncounted, used(100, 10, None)), line("cot", 0.5, None, used(50, 10, None))]
    costs = compare_costs(lines, {})
    assert (costs["points"], costs["choice"], costs["uncounted"]) == ({"cot": [0.5, 6.0]}, "cot", ["teacher"])
    assert upfront([{"teacher": uncounted}], 1.0, None)["tokens"] is None
    alone = compare_costs(lines[:1], {})
    assert (alone["choice"], advice("t", lines[:1], alone)["headline"]) == (
        None,
        "No program is advised: what they take is unknown, since tokens weren't counted",
    )


def test_a_cost_that_is_known_in_part_is_a_least_one() -> None:
    spent = {**used(80, 20, 0.5), "unpriced_calls": 3}
    assert dollars(bill({"solver": spent}, 10)) == "at least 50.00 (3 calls unpriced)"
    assert dollars(bill({"solver": {**spent, "cost": None}}, 10)) == "unknown"
    assert dollars(bill({"solver": {**spent, "unpriced_calls": 0}}, 10)) == "50.00"
    assert dollars(bill({"solver": {**spent, "cost": 0.0001, "unpriced_calls": 0}}, 10)) == "0.0100"
