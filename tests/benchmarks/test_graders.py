import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from divcon.benchmarks import grade, grade_as_paper, grade_number, grade_text, is_right
from divcon.programs import Item


@pytest.mark.parametrize(
    "reply", ["12,600", "12600", "12600.0", "The total comes to $12,600.", "$12,600.00", "12 600".replace(" ", "")]
)
def test_separators_currency_and_zeros_do_not_matter(reply: str) -> None:
    assert grade_number("12600", reply).right


@pytest.mark.parametrize(
    ("gold", "reply", "right", "rule"),
    [
        ("37", "#### $37.00.", True, "hashes"),
        ("-8", "#### −8", True, "hashes"),
        ("-8", "#### 8", False, "hashes"),
        ("8", "#### -8", False, "hashes"),
        ("14", "14\n\nPassage: Later that year, 20 more came", True, "only_line"),
        ("0.5", "1/2", True, "only_line"),
        ("7", "\\boxed{7}", True, "boxed"),
        ("7", "3 + 4 = 7", True, "equals"),
        ("7", "I see 3 and 4.\nAnswer: 7", True, "answer_line"),
        ("7", "The final answer is 7 apples.", True, "final_answer"),
        ("7", "3 or 7", False, "ambiguous"),
        ("7", "none at all", False, "none"),
        ("7", "", False, "none"),
        ("7", "7.5", False, "only_line"),
        ("5", "3-8", False, "ambiguous"),
        ("50", "50%", True, "only_line"),
        ("1000", "1,00", False, "none"),
        ("3", "3.5kg", False, "glued_unit"),
        ("12", "12.50USD", False, "glued_unit"),
        ("1", "1.2M", False, "none"),
        ("1", "1,00,000", False, "none"),
        ("3", "#### Step 3: add", True, "only_line"),
        ("10", "- 10", True, "only_line"),
        ("10", "Answer – 10", True, "answer_line"),
        ("-12", "-$12", True, "only_line"),
        ("-12", "$-12", True, "only_line"),
    ],
)
def test_numbers(gold: str, reply: str, right: bool, rule: str) -> None:
    verdict = grade_number(gold, reply)
    assert (verdict.right, verdict.rule) == (right, rule)


@pytest.mark.parametrize(
    ("golds", "reply", "right"),
    [
        (["Kessin"], "Kessin", True),
        (["Kessin"], "kessin.", True),
        (["the Orbex"], "Orbex", True),
        (["Orbex"], "The answer is Orbex", True),
        (["Orbex"], "It may be Orbex", False),
        (["NYC", "New York"], "New York", True),
        (["Zoë"], "Zoë", True),
        (["Orbex"], "", False),
        (["A"], "A", True),
        (["C++"], "C#", False),
        (["Paris"], "Answers: Paris", False),
        (["Orbex"], "Orbex\n\nPassage: more", True),
    ],
)
def test_text(golds: list[str], reply: str, right: bool) -> None:
    assert grade_text(golds, reply).right == right


@pytest.mark.parametrize(
    ("references", "reply", "right", "score"),
    [
        ([("Ada", "Grace")], "Grace, Ada", True, 1.0),
        ([("Ada", "Grace")], "1. Grace\n2. Ada", True, 1.0),
        ([("Ada", "Grace")], "Answer: Ada and Grace", True, 1.0),
        ([("Ada", "Grace")], "Ada", False, 0.5),
        ([("Ada", "Grace")], "Ada, Grace, Tom", False, 0.67),
        ([("Ada Lovelace",)], "Lovelace", False, 0.67),
        ([("the 10 men",)], "ten men", False, 0.0),  # a gold number has to be shared
        ([("10",)], "10.0", True, 1.0),
        ([("12,600",)], "12600", True, 1.0),
        ([("South and Southeast Asia",)], "south and southeast asia.", True, 1.0),
        ([("x",), ("y", "z")], "z; y", True, 1.0),
        ([("Ada",)], "", False, 0.0),
        ([("5-yard line",)], "5 yard line", True, 1.0),
        ([("Ada", "Grace")], "<think>Tom?</think>Grace\nAda", True, 1.0),
        ([("Ada", "Grace")], "Grace\nAda\n\nThese are the two who wrote programs for the first engines.", True, 1.0),
    ],
)
def test_drop(references: list[tuple[str, ...]], reply: str, right: bool, score: float) -> None:
    verdict = grade(Item("x", "Q?", "-", references=tuple(references), grader="drop"), reply)
    assert (verdict.right, verdict.score) == (right, score)


@pytest.mark.parametrize(
    ("gold", "reply", "right", "rule"),
    [
        ("yes", "Yes.", True, "only_line"),
        ("yes", "Yes, no doubt.", True, "only_line"),
        ("no", "False", True, "only_line"),
        ("True", "yes", True, "only_line"),
        ("no", "It isn't so.\nAnswer: no", True, "answer_line"),
        ("no", "I can't say yes or no", False, "ambiguous"),
        ("yes", "It is a yes", True, "only_line"),
        ("yes", "Nobody knows", False, "none"),
        ("yes", "No other tree in the park is older, so the claim is true.", True, "only_line"),
        ("no", "No other tree in the park is older, so the claim is true.", False, "only_line"),
        ("no", "No tree is older.", False, "none"),
        ("no", "No, it is not older.", True, "only_line"),
        ("no", "No because it is younger.", True, "only_line"),
        ("yes", "**No** other tree is older, so the claim is true.", True, "only_line"),
        ("yes", "No 2 trees are of one age, so it is true.", True, "only_line"),
        ("yes", "No evidence shows that it is true.", False, "ambiguous"),
        ("no", "No evidence shows that it is true.", False, "ambiguous"),
        ("yes", "There is no doubt that it is true.", True, "only_line"),
        ("yes", "not (not true)", True, "only_line"),
        ("no", "It is not true", True, "only_line"),
        ("yes", "", False, "none"),
    ],
)
def test_yes_and_no(gold: str, reply: str, right: bool, rule: str) -> None:
    verdict = grade(Item("x", "Q?", gold, grader="yes_no"), reply)
    assert (verdict.right, verdict.rule) == (right, rule)


@pytest.mark.parametrize(
    ("reply", "right", "rule"),
    [
        ("(B)", True, "only_line"),
        ("B", True, "only_line"),
        ("B)", True, "only_line"),
        ("(b)", True, "only_line"),
        ("B. blue", True, "only_line"),
        ("(A)", False, "only_line"),
        ("The answer is (B).", True, "answer_line"),
        ("blue", True, "option_text"),
        ("Answer: red", False, "option_text"),
        ("(A) or (B)", False, "ambiguous"),
        ("A bird", False, "none"),
        ("", False, "none"),
    ],
)
def test_choices(reply: str, right: bool, rule: str) -> None:
    item = Item("x", "Which?\nOptions:\n(A) red\n(B) blue", "(B)", grader="choice")
    verdict = grade(item, reply)
    assert (verdict.right, verdict.rule) == (right, rule)


@pytest.mark.parametrize(
    ("gold", "reply", "right", "rule"),
    [
        # What a model invents behind its answer isn't the answer.
        ("7", "#### 96\n\nTom has 3 pears and buys 4. How many has he?\n#### 7", False, "hashes"),
        ("96", "#### 96\n\nTom has 3 pears and buys 4. How many has he?\n#### 7", True, "hashes"),
        ("96", "#### 96<|im_end|>\n#### 7", True, "hashes"),
        ("96", "It is 96.\nAnswer: 96<|im_end|>\n<|im_start|>user\nAnswer: 7", True, "answer_line"),
        ("5", "Answer: 5\n\nQuestion: What is 3 + 4?\nAnswer: 7", True, "answer_line"),
        ("5", "Final answer: 5\n\nQ1: How many pears?\nFinal answer: 7", True, "final_answer"),
        # The first line doesn't stand for the whole reply.
        ("18", "First day: 6 * 3 = 18 tiles\nSecond day: 36 tiles\nSo the answer is 54.", False, "answer_is"),
        ("54", "First day: 6 * 3 = 18 tiles\nSecond day: 36 tiles\nSo the answer is 54.", True, "answer_is"),
        # LaTeX
        ("48250", r"\boxed{48\,250}", True, "boxed"),
        ("48", r"\boxed{48\,250}", False, "boxed"),
        ("2.5", r"\boxed{2\frac{1}{2}}", True, "boxed"),
        ("2.5", "Answer: 2 1/2", True, "answer_line"),
        ("0.5", "Answer: 2 1/2", False, "answer_line"),
        ("60", r"So she has \(\boxed{60}\) pears.", True, "boxed"),
        ("60", r"Answer: \[60\]", True, "answer_line"),
        ("2.5", r"\boxed{2\frac12}", True, "boxed"),
        ("48250", r"Answer: 48,\!250", True, "answer_line"),
        ("96", "Final answer: 96\n\nWhat is 3 + 4?\n#### 7", True, "final_answer"),
        ("18", "First day: 18 tiles\nSecond day: 36 tiles\nThat makes 54 tiles in the two days.", False, "none"),
        ("18", "18 tiles\n36 tiles\n\nThat makes 54 tiles in the two days together.", False, "ambiguous"),
        ("18", "- 18\n- 36", False, "ambiguous"),
        # units by a named rule
        ("12", "12cm²", True, "glued_unit"),
        ("30", "Answer: 30mph", True, "glued_unit"),
        ("10", "10a.m.", True, "glued_unit"),
        ("8", "8C", False, "none"),
        ("2600", "2600g", True, "glued_unit"),
        ("5", "Answer: 5kg", True, "glued_unit"),
        ("10", "He wakes at 10am", True, "glued_unit"),
        ("5", "5k", False, "none"),
        ("3", "the 3rd", False, "none"),
        # powers of ten
        ("1200000", "1.2e6", True, "only_line"),
        ("1200000", r"\boxed{1.2 \times 10^{6}}", True, "boxed"),
        ("1.2e6", "1,200,000", True, "only_line"),
        ("1.2", "1.2e6", False, "only_line"),
    ],
)
def test_replies_that_public_reports_tell_of(gold: str, reply: str, right: bool, rule: str) -> None:
    verdict = grade_number(gold, reply)
    assert (verdict.right, verdict.rule) == (right, rule)


@pytest.mark.parametrize(
    ("gold", "reply", "right"),
    [
        ("> ) ]", "> ) ]", True),
        ("> ) ]", "] ) >", False),
        ("> ) ]", "Answer: > ) ]", True),
        ("-3 degrees", "3 degrees", False),
        ("-3 degrees", "−3 degrees", True),
        ("x < 3", "x > 3", False),
        ("x < 3", "x<3", True),
        ("x <= 3", "x ≤ 3", True),
        ("x <= 3", "x < 3", False),
        ("x != 3", "x = 3", False),
        ("-x", "x", False),
        ("3.5 metres", "3 5 metres", False),
        ("1/2 mile", "1 2 mile", False),
        ("1,200 men", "1200 men", True),
        ("a well-known man", "well known man", True),
        ("B", r"\boxed{\text{B}}", True),
        ("Paris", r"\(\textbf{Paris}\)", True),
    ],
)
def test_signs_that_carry_meaning_count_in_a_text_answer(gold: str, reply: str, right: bool) -> None:
    assert grade_text([gold], reply).right == right


def test_a_choice_in_a_latex_wrapper_is_itself() -> None:
    item = Item("x", "Which?\n(A) red\n(B) blue", "(B)", grader="choice")
    assert grade(item, r"Answer: \boxed{\text{(B)}}").right
    assert grade(item, r"\(\mathrm{B}\)").right


def test_the_papers_lenient_graders_by_name() -> None:
    number = Item("x", "Q?", "7")
    assert grade_as_paper(number, "3 + 4 = 7, or 9?").right
    assert not grade(number, "3, or 7?").right
    assert grade_as_paper(number, "7.9").right
    spans = Item("x", "Q?", "Ada, Grace", references=(("Ada", "Grace"),), grader="drop")
    assert grade_as_paper(spans, "It was Ada who did").right
    assert not grade_as_paper(spans, "Grace").right


def test_the_gold_answers_kind_picks_the_grader() -> None:
    assert is_right(Item("a", "Q?", "1,200"), "1200")
    assert is_right(Item("a", "Q?", "1.2e6"), "1,200,000")
    assert is_right(Item("a", "Q?", "1.2 × 10^6"), "1200000")
    assert is_right(Item("a", "Q?", "Tor", aliases=("Thor",)), "thor")
    assert not is_right(Item("a", "Q?", "9th floor"), "9")
    assert is_right(Item("a", "Q?", "12", aliases=("twelve",)), "twelve")
    assert not is_right(Item("a", "Q?", "5/0"), "5")
    assert is_right(Item("a", "Q?", "yes"), "Yes, both are.")
    assert is_right(Item("a", "Which?\n(A) red\n(B) blue", "(B)"), "blue")


@pytest.mark.parametrize(
    ("gold", "reply"),
    [("1/2", r"So it is \boxed{\frac{1}{2}}."), ("1250", r"\boxed{1{,}250}"), ("0.5", r"\dfrac{1}{2}")],
)
def test_numbers_as_latex_writes_them(gold: str, reply: str) -> None:
    assert grade_number(gold, reply).right


def test_a_gold_answer_without_a_number_is_an_error() -> None:
    with pytest.raises(ValueError, match="no number"):
        grade_number("none", "7")


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_a_number_equals_itself_in_every_form_and_no_other(a: int, b: int) -> None:
    forms = [str(a), f"{a:,}", f"{a}.0", f"#### {a}", f"Answer: {a:,}", f"\\boxed{{{a}}}", str(a).replace("-", "−")]
    assert all(grade_number(str(a), form).right for form in forms)
    assert grade_number(str(b), str(a)).right == (a == b)


@pytest.mark.realdata
def test_every_gsm8k_gold_answer_is_right_against_itself_and_wrong_against_the_next(real_data: Path) -> None:
    lines = (real_data / "gsm8k" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    golds = [json.loads(line)["answer"].rpartition("####")[2].strip() for line in lines]
    for gold, other in zip(golds, golds[1:] + golds[:1], strict=True):
        item = Item("x", "Q?", gold)
        assert grade(item, gold).right
        assert grade(item, f"The result is ${gold}.").right
        same = gold.replace(",", "") == other.replace(",", "")
        assert grade(item, other).right == same


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ("It isn't true.", "no"),
        ("It cannot be true", "no"),
        ("(not True)", "no"),
        ("It is not false.", "yes"),
        ("That is not necessarily true.", None),
        ("It is not the case that this is true", None),
        ("No, it is not true", "no"),
        ("Yes. That isn't false.", "yes"),
    ],
)
def test_what_is_denied_is_no_yes(reply: str, says: str | None) -> None:
    for gold in ("yes", "no"):
        assert grade(Item(id="x", question="?", answer=gold, grader="yes_no"), reply).right == (gold == says)


# Replies of models that loop, each of which once was an error of grading, or kept a pattern busy for seconds or hours.
POISON = [
    "1", "9", "9.", "9,", "1/", "1e9", " ", "\t", "\u2028", "\n", "\n ", "a\n\n", "a.\n\n", "x. A\n\n", "not ", "no ",
    "n't ", "- ", "- a\n", ", ", "and ", "Answer:\n", "Answer: ", "Final answer: ", "the final answer to ", "#### ",
    "answer to the ", "\\boxed{", "\\text{", "\\frac{", "{", "$", "$a", "*", "* ", "_", "**", "(A) ", "=", "<think>",
    "</think>", "<|a|>", "<|channel|>", "\ud83d",
]  # fmt: skip
GRADED = """
import signal
from divcon.benchmarks import grade, grade_as_paper
from divcon.programs import Item
items = [
    Item("number", "Q?", "7"), Item("share", "Q?", "7%", grader="percent"), Item("text", "Q?", "Ada"),
    Item("truth", "Q?", "yes", grader="yes_no"), Item("choice", "Which?\\n(A) red", "(A)", grader="choice"),
    Item("span", "Q?", "-", references=(("Ada", "Grace"), ("x",)), grader="drop"),
]
for piece in POISON:
    print(repr(piece), flush=True)
    signal.setitimer(signal.ITIMER_PROF, 5)  # seconds of computing, after which it ends; a single pass takes 0.2
    reply = piece * (100_000 // len(piece)) + "x?"
    grade_as_paper(items[0], reply)
    for item in items:
        grade(item, reply)
"""


def test_no_reply_is_an_error_of_grading_or_keeps_a_grader_busy() -> None:
    """Graded in a process of its own, which ends where a pattern goes over a reply again and again."""
    code = GRADED.replace("POISON", ascii(POISON))
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.mark.parametrize(
    "reply", ["7" * 5000, "9" * 5000 + "/7", "9" * 400 + ".5", "1e999", "1/" + "9" * 5000, "٣" * 5000]
)
def test_numbers_beyond_any_size_are_wrong_and_no_error(reply: str) -> None:
    assert not grade_number("7", reply).right
    assert not grade_as_paper(Item("x", "Q?", "7"), reply).right
