import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from support.arms import arm_named

from divcon.benchmarks import (
    Records,
    agreement,
    agreement_rows,
    agreements,
    arm_agreement,
    mean_agreement,
    summarize_arm,
)
from divcon.benchmarks.tasks import gsm8k_items
from divcon.programs import Item

PEOPLE = ["How many eggs does Janet eat?", "How many eggs does Janet sell?", "How much does she make?"]


def lists(items: list[Item], count: int = 2) -> dict[str, Any]:
    asked = {item.id: list(item.subquestions[:count]) for item in items}
    return {key: {"outcome": "right", "subquestions": found, "status": "decomposed"} for key, found in asked.items()}


def references(items: list[Item]) -> list[dict[str, tuple[str, ...]]]:
    return [{item.id: item.subquestions for item in items}]


@pytest.mark.parametrize(
    ("plan", "covered"),
    [
        (PEOPLE, 3),
        (PEOPLE[::-1], 3),
        (PEOPLE[:1], 1),
        (PEOPLE[2:] * 3, 1),  # a step covers one step of the reference, however often it is repeated
        (["How many eggs did Janet eat?", "How many eggs did Janet sell?", "How much did she make?"], 3),
        (["How tall is the tower?", "How tall is the church?", "How tall are both?"], 0),
        (["How much does she make in all from this?"], 1),
        ([], 0),
    ],
)
def test_a_step_is_covered_by_one_step_that_asks_it_in_about_the_same_words(plan: list[str], covered: int) -> None:
    found = agreement(plan, PEOPLE)
    assert found.covered == pytest.approx(covered / 3)
    assert found.steps == len(plan) - 3
    assert found.exact == (plan == PEOPLE)


def test_words_that_steps_share_dont_tell_them_apart() -> None:
    kinds = ["How many queens are there?", "How many drones are there?", "How many bees are there?"]
    plan = ["How many worker ants are there?", "How many bees are there?"]
    assert agreement(plan, kinds).covered == pytest.approx(1 / 3)
    assert agreement(plan[:1], kinds[:1]).covered == 1  # by all words, it is alike enough


def test_a_plan_without_words_covers_nothing_and_a_reference_needs_steps() -> None:
    assert agreement(["?", "…"], ["How many?"]).covered == agreement(["How many?"], ["?"]).covered == 0
    with pytest.raises(ValueError, match="no steps"):
        agreement(["How many?"], [])


def test_the_mean_agreement_of_plans() -> None:
    found = mean_agreement([(PEOPLE, PEOPLE), (PEOPLE[:1], PEOPLE), ([*PEOPLE, "Why?"], PEOPLE)])
    assert (found["n"], found["count_error"], found["count_bias"]) == (3, 1.0, pytest.approx(-1 / 3))
    assert found["covered"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    assert found["exact"] == pytest.approx(1 / 3)


def test_an_arms_agreement_with_references(items: list[Item]) -> None:
    same, people = lists(items), references(items)
    whole = {"n": 20, "count_error": 0, "count_bias": 0, "rouge_l": 1.0, "covered": 1.0, "exact": 1, "left_out": 0}
    assert arm_agreement([same], people) == whole
    found = arm_agreement([lists(items, 1)], people)
    assert (found["count_error"], found["count_bias"], found["covered"]) == (1, -1, 0.5)
    assert 0.3 < found["rouge_l"] < 0.9
    # Seeds are pooled, with references of their own if there are any.
    pooled = arm_agreement([same, lists(items, 1)], people)
    assert (pooled["n"], pooled["covered"]) == (40, 0.75)
    assert arm_agreement([same, lists(items, 1)], [*people, references(items[:5])[0]])["n"] == 25
    assert arm_agreement([same], [{}]) is arm_agreement([], people) is None
    # A list that is missing isn't one that agrees.
    del same["i3"]["subquestions"]
    assert arm_agreement([same], people) is None
    assert arm_agreement([same], people, 0.05) == {**whole, "n": 19, "left_out": 1}


def test_arms_are_compared_with_the_references_and_with_the_teachers_lists(items: list[Item]) -> None:
    short = lists(items, 1)
    short["i0"] = {"subquestions": [], "status": "fell_back"}
    assert set(agreements([short], items, None)) == {"agreement"}
    found = agreements([short, short], items, [lists(items, 1)])
    assert found["agreement_with_teacher"]["n"] == 40
    assert found["agreement_with_teacher"]["covered"] == pytest.approx(0.95)
    assert found["agreement"]["covered"] == pytest.approx(0.475)
    silent = {key: {"outcome": "failed"} if key == "i1" else record for key, record in lists(items).items()}
    assert agreements([short], items, [silent])["agreement_with_teacher"] is None
    assert agreements([short], items, [silent], 0.05)["agreement_with_teacher"]["n"] == 19
    unknown = agreements([short], [Item(id=item.id, question="Q?", answer="1") for item in items], [lists(items)])
    assert unknown["agreement"] is None
    rows = list(agreement_rows([{"label": "a", **found}, {"label": "b", "steps": 2, **found}, {"label": "c"}]))
    assert [(line["label"], whose) for line, whose, _ in rows] == [("a", "references"), ("a", "teacher")]


def test_a_list_is_usable_that_was_neither_refused_nor_over_the_cap() -> None:
    kinds = [
        {"status": "decomposed"},
        {"status": "whole"},
        {"status": "decomposed", "reason": "over_long"},
        {"status": "salvaged", "reason": "duplicate"},
        {"status": "fell_back", "reason": "unreadable"},
    ]
    records: Records = {str(n): {"outcome": "right", "subquestions": [], **kind} for n, kind in enumerate(kinds)}
    arm = arm_named("sd-r")
    assert summarize_arm(arm, [records], 100)["usable_rate"] == pytest.approx(2 / 5)
    records["5"] = {"outcome": "wrong", "status": "unreadable"}  # the solver's reply, so its list isn't known
    assert summarize_arm(arm, [records], 100)["usable_rate"] == pytest.approx(2 / 5)
    assert summarize_arm(arm, [{"5": records["5"]}], 100)["usable_rate"] is None


def test_chatgpts_steps_cover_seven_in_ten_of_peoples_and_those_of_other_questions_none(real_data: Path) -> None:
    people = [item.subquestions for item in gsm8k_items(real_data / "gsm8k" / "test_socratic.jsonl", None)]
    written = json.loads((real_data / "gsm8k_ai_subq" / "chatgpt_plans_test.json").read_text(encoding="utf-8"))
    plans = [[step.strip() for step in row["answers"]] for row in written]
    assert mean_agreement(zip(plans, people, strict=True))["covered"] == pytest.approx(0.722, abs=0.001)
    assert mean(agreement(plan, people[0]).covered for plan in plans[1:200]) < 0.02
