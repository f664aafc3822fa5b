"""The advice: which program, and whether the answers settle it."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.arms import arm_named

from divcon.benchmarks import advise, compare_costs, evidence, summarize_arm
from divcon.benchmarks._advice import advice

PRICE = {"solver": {"input": 1.0, "output": 1.0}}


def answered(right: str, tokens: int) -> dict[str, dict[str, Any]]:
    """Outcomes by a text of 1 (right) and 0 (wrong); each answer costs `tokens` millionths of a dollar."""
    used = {"calls": 1, "input_tokens": tokens, "cached_tokens": 0, "output_tokens": 0, "unpriced_calls": 0}
    return {
        str(n): {"outcome": "right" if one == "1" else "wrong", "usage": {"solver": used}}
        for n, one in enumerate(right)
    }


def judged(**arms: tuple[str, int]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The comparison of costs with its evidence, and the card."""
    records = {name.replace("_", "-"): [answered(*given)] for name, given in arms.items()}
    lines = [summarize_arm(arm_named(name, prices=PRICE), found, 200) for name, found in records.items()]
    costs = compare_costs(lines, {})
    costs["evidence"] = evidence(costs, records)
    return costs, advice("t", lines, costs)


def test_a_cheaper_program_that_isnt_shown_to_be_worse_is_named_and_the_choice_isnt_settled() -> None:
    # 8 questions are right with the teacher alone, 4 with chain of thought alone: +11.1 points of 36
    costs, card = judged(
        teacher=("1" * 20 + "1" * 8 + "0" * 4 + "0" * 4, 300), cot=("1" * 20 + "0" * 8 + "1" * 4 + "0" * 4, 100)
    )
    assert costs["choice"] == "teacher"
    found = costs["evidence"]
    assert (found["settled"], found["alternatives"]) == (False, ["cot"])
    [test] = found["tests"]
    assert (test["cheaper"], test["margin"], test["shown"], test["n"]) == (True, 0.0, False, 36)
    assert test["difference"] == pytest.approx(4 / 36)
    assert test["p"] == pytest.approx(0.1241, abs=1e-4)  # McNemar's (8 - 4) / sqrt(12) = 1.155
    assert test["ci95"][0] < 0 < test["ci95"][1]
    # (1.96 sqrt(1/3) + 0.842 sqrt(1/3 - 1/81))^2 * 81 = 209.5
    assert found["questions"] == test["questions"] == 210
    assert (card["status"], card["headline"]) == ("not settled", "Not settled: TEACHER for now, or the cheaper COT")
    said = " ".join(card["tested"])
    assert "Not shown to be more accurate than the cheaper COT (+11.1 points, 95 % interval -8" in said
    assert "COT costs 67 % less and isn't shown to be less accurate." in said
    assert "About 210 questions would settle it; there were 36." in said
    assert "1,000 questions cost 0.3000 US dollars." in card["sentences"]


def test_a_choice_is_settled_where_every_test_shows_it() -> None:
    right = "1" * 300 + "0" * 100
    costs, card = judged(
        teacher=(right[:-1] + "1", 900), sd_r=(right, 300), cot=("0" * 100 + "1" * 150 + "0" * 150, 100)
    )
    assert costs["choice"] == "sd-r"
    found = costs["evidence"]
    assert (found["settled"], found["alternatives"], found["questions"]) == (True, [], None)
    by_other = {test["other"]: test for test in found["tests"]}
    # It is a question of 400 worse than the teacher, which is dearer: no more than two points are lost.
    assert by_other["teacher"]["margin"] == 0.02 and by_other["teacher"]["ci95"][0] > -0.02
    assert by_other["cot"]["margin"] == 0 and by_other["cot"]["ci95"][0] > 0
    assert (card["status"], card["headline"]) == ("settled", "Settled: choose SD-R")
    assert not [sentence for sentence in card["tested"] if "Not shown" in sentence]


def test_few_questions_without_a_difference_settle_nothing() -> None:
    costs, card = judged(teacher=("1" * 20, 900), cot=("1" * 20, 100))
    assert (costs["choice"], costs["evidence"]["settled"], costs["evidence"]["questions"]) == ("cot", False, 189)
    assert "Whether decomposing gains anything here isn't settled." in card["sentences"]


def test_splitting_is_advised_against_where_it_was_tested() -> None:
    """Whether another program that doesn't split is as good has nothing to do with it."""
    right = "1" * 300 + "0" * 100
    none = "0" * 400
    _, card = judged(teacher=(right, 900), cot=(right, 100), direct=(none, 50))
    assert "Don't decompose here: the solver alone does as well." in card["sentences"]
    nearly = "0" * 60 + "1" * 290 + "0" * 50
    _, card = judged(teacher=(none, 900), cot=(right, 100), direct=(nearly, 50))
    assert card["status"] == "not settled"
    assert "Don't decompose here: the solver alone does as well." in card["sentences"]
    _, card = judged(cot=(right, 100), direct=(none, 50))
    assert not [one for one in card["sentences"] if "ecompos" in one]


def test_a_program_whose_tokens_were_not_counted_leaves_it_open() -> None:
    records = {"teacher": [answered("1" * 90 + "0" * 10, 0)], "cot": [answered("1" * 50 + "0" * 50, 100)]}
    records["teacher"][0]["0"]["usage"]["solver"] |= {"unknown_calls": 1, "unpriced_calls": 1}
    lines = [summarize_arm(arm_named(name), found, 200) for name, found in records.items()]
    costs = compare_costs(lines, {})
    costs["evidence"] = evidence(costs, records)
    card = advice("t", lines, costs)
    assert (card["status"], card["headline"]) == ("not settled", "Not settled: COT for now")
    assert any("TEACHER (90.0 % right) isn't compared" in one for one in card["warnings"]), card["warnings"]


def test_where_there_is_one_program_nothing_was_tested() -> None:
    costs, card = judged(cot=("10" * 5, 100))
    assert not [one for one in card["sentences"] if "ecompos" in one]
    assert costs["evidence"] == {"settled": None, "questions": None, "alternatives": [], "tests": []}
    assert (card["status"], card["headline"], card["tested"]) == (None, "Choose COT", [])


def test_results_of_before_the_tests_get_advice_without_them(root: Path) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / "demo.json").read_text())
    lines = [{"splits": True, "student": arm["name"], **arm} for arm in recorded["arms"]]
    card = advice("demo", lines, {"unscored": [], **recorded["costs"]})
    assert (card["status"], card["headline"], card["tested"]) == (None, "Choose Two-stage, teacher (scripted)", [])


def test_a_teacher_whose_plans_nobody_counted_is_said_to_be_left_out(root: Path) -> None:
    record = root / "benchmarks" / "results" / "real" / "gsm8k-05b.json"
    [card] = advise(json.loads(record.read_text(encoding="utf-8")))
    assert [warning for warning in card["warnings"] if "doesn't say what they took" in warning] == [
        "Two-stage, teacher, gpt-3.5-turbo (recorded) (21.1 % right) isn't compared: the file of its plans doesn't say "
        "what they took. Add input_tokens and output_tokens to its rows."
    ]
