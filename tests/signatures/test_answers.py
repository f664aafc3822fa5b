# ruff: noqa: E501 - replies stand on a line each
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divcon.signatures import Reading, read_answer


def found(reply: str, **how: bool) -> tuple[str, str] | None:
    reading = read_answer(reply, **how)
    return (reading.text, reading.rule) if reading else None


STEPS = "There are 3 bags of 4 plums each.\n3 * 4 = 12, less 2 is 10.\n"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (STEPS + "#### 10", ("10", "hashes")),
        (STEPS + "Final answer: 10", ("10", "final_answer")),
        (STEPS + "**Final Answer:** 10 plums", ("10 plums", "final_answer")),
        (STEPS + "### Final Answer\n\n10", ("10", "last_line")),
        (STEPS + "Final answer:\n10", ("10", "final_answer")),
        (STEPS + "So the final answer is 10.", ("10", "final_answer")),
        (STEPS + r"Therefore, \(\boxed{10}\).", ("10", "boxed")),
        (STEPS + r"\[ \boxed{10} \]", ("10", "boxed")),
        (STEPS + "Answer: 10", ("10", "answer_line")),
        (STEPS + "**Answer**: $10$", ("10", "answer_line")),
        (STEPS + "The answer is **10** plums.", ("10 plums", "answer_line")),
        (STEPS + "- Answer: 10", ("10", "answer_line")),
        (STEPS + "The correct answer is 10 plums.", ("10 plums", "answer_line")),
        (STEPS + "So we can say: Answer: 10", ("10", "answer_is")),
        (STEPS + "So the answer to the question is 10.", ("10", "answer_is")),
        (STEPS + "There are **10** plums left.", ("10", "bold")),
        (STEPS + "**Conclusion:** There are **10** plums left.", ("10", "bold")),
        ("10", ("10", "only_line")),
        ("Ten plums are left in the bags.", ("Ten plums are left in the bags", "only_line")),
        (STEPS + "10 plums", ("10 plums", "last_line")),
        (STEPS + "Therefore, Ada has 10 plums left in the bags at the end.", ("Therefore, Ada has 10 plums left in the bags at the end", "conclusion")),
        ("10\n" + STEPS + "That is what is left when she has given two of them away to Ben.", ("10", "first_line")),
        (STEPS + "She has 12 of them, and gives 2 of them to her brother Ben.", None),
        (STEPS + "1. 3 * 4 = 12", None),
        ("", None),
        ("   \n ", None),
        ("<think>Answer: 7", None),
        ("<think>Answer: 7</think>Answer: 10", ("10", "answer_line")),
    ],
)  # fmt: skip
def test_the_forms_in_which_models_answer(reply: str, expected: tuple[str, str] | None) -> None:
    assert found(reply) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        # Sub-answers carry the label too; the last one is the answer.
        ("Answer:\n1. How many in all? Answer: 12\n2. How many are left? Answer: 10\n\nAnswer: 10", ("10", "answer_line")),
        ("1. In all?\nAnswer: 12\n\n2. Left?\nAnswer: 10", ("10", "answer_line")),
        ("1. In all? **Answer:** 12\n2. Left? **Answer:** 10\n\n" + r"\boxed{10}", ("10", "boxed")),
        (r"\boxed{12} in all." + "\nAnswer: 10", ("10", "answer_line")),
        # An opening label with the steps below it is no answer.
        ("Answer:\nThere are 12 plums in all, of which two are given away.\nSo 10 are left.", ("So 10 are left", "last_line")),
        ("Answer: 10\nShe had 12 and gave away 2.", ("10", "answer_line")),
        ("Answer: Paris\n\nExplanation: it is the capital of France.", ("Paris", "answer_line")),
        # The label's own words once more, and a placeholder of the prompt written back.
        (STEPS + "Final answer: Final answer: 10", ("10", "final_answer")),
        (STEPS + "Final answer: ...\nAnswer: 10", ("10", "answer_line")),
        # A list of answers.
        ("Answer:\n- Ada\n- Grace", ("- Ada\n- Grace", "answer_line")),
        ("1. Ada\n2. Grace", ("1. Ada\n2. Grace", "list")),
        # #### as a heading is none.
        ("#### 1. Add the plums\n12\n\n#### 2. Take away\nAnswer: 10", ("10", "answer_line")),
    ],
)  # fmt: skip
def test_which_of_several_forms_counts(reply: str, expected: tuple[str, str]) -> None:
    assert found(reply) == expected


@pytest.mark.parametrize(
    "tail",
    [
        "\n\nQuestion: What is 3 + 4?\nAnswer: 7",
        "\n\nProblem: Tom has 3 pears and buys 4.\nAnswer: 7",
        "\n\nTom has 3 pears and buys 4. How many has he?\nAnswer: 7",
        "<|im_end|>\n<|im_start|>user\nAnswer: 7",
        "\nUser: and now?\nAssistant: Answer: 7",
        "</s> Answer: 7",
        "<|eot_id|>Answer: 7",
    ],
)
@pytest.mark.parametrize(
    "answer", ["Answer: 10", "The answer is 10.", r"It is \boxed{10}.", "#### 10", "Final answer: 10"]
)
def test_what_a_model_makes_up_behind_its_answer_is_not_the_answer(answer: str, tail: str) -> None:
    reading = read_answer(STEPS + answer + tail)
    assert reading is not None
    assert reading.text == "10"


def test_after_steps_a_list_or_a_step_alone_is_no_answer() -> None:
    assert found("1. 3 * 4 = 12\n2. 12 - 2 = 10", steps=True) is None
    assert found("1. 3 * 4 = 12", steps=True) is None
    assert found("1. 3 * 4 = 12\nAnswer: 10", steps=True) == ("10", "answer_line")
    assert read_answer("1. 3 * 4 = 12\nAnswer: 10", steps=True) == Reading("10", "answer_line", "1. 3 * 4 = 12")


@given(st.text(max_size=300))
def test_any_text_is_read_or_refused_in_time(text: str) -> None:
    reading = read_answer(text)
    assert reading is None or reading.text


@given(st.integers(-(10**9), 10**9))
def test_a_number_comes_out_of_every_form(number: int) -> None:
    for form in (
        "#### {}",
        "Final answer: {}",
        "\\boxed{{{}}}",
        "Answer: {}",
        "The answer is {}.",
        "Steps.\nSo it is **{}**.",
        "{}",
    ):
        reading = read_answer(form.format(number))
        assert reading is not None
        assert reading.text == str(number)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        # A mark of another kind in a problem that the model has made up.
        ("Final answer: 96\n\nWhat is 3 + 4?\n#### 7", "96"),
        ("Answer: 96\n\nProblem 2: Tom has 3 pears.\nFinal answer: 7", "96"),
        ("#### 96\n\nTom has 3 pears. He buys 4. How many has he?\nFinal answer: 7", "96"),
        ("The answer is 96.\n\nTom has 3 pears. He buys 4. How many has he?\nFinal answer: 7", "96"),
        ("Answer: 96\n\n### Instruction:\nAdd 3 and 4.\n\n### Response:\nAnswer: 7", "96"),
        # Both marks of one answer.
        ("So the final answer is 3 * 40 = 120 pints\n#### 120", "120"),
        # A heading behind a word about answers begins no new problem.
        ("To answer is to count.\n\n### Steps:\n3 + 4\n\n### Answer: 7", "7"),
        # The first line of several alike stands for itself alone.
        ("First day: 18 tiles\nSecond day: 36 tiles\nThat makes 54 tiles in the two days together.", None),
        ("Ann has 3\nBen has 5\nTogether they have 8 pears in their two baskets.", None),
        ("A1: Dave has 14\nA2: The seagull takes half of them, which is 7 of the french fries.", None),
        # An answer in the first lines, explained below.
        ("Ada\nTom\n\nThese are the two who scored in the first half of the game.", "Ada\nTom"),
        # Words that only begin as a step or as an item of a list does.
        ("He wrote it in 1977.\nStephen King", "Stephen King"),
        ("It ended in 1945.\nSecond World War", "Second World War"),
        ("They scored twice.\nfirst half", "first half"),
        ("He lived in Baker Street.\nDr. Watson", "Dr. Watson"),
        ("It ends after noon.\n12:30", "12:30"),
        ("Add the bags.\n1. 3 + 4 is 7", None),
        ("Add the bags.\nStep 2: it is 7", None),
        ("Add the bags.\nFirst he buys 3", None),
        # A box is read to the brace that closes it, however deep, and an open one hides no other.
        (r"\boxed{\text{a}^{b^{c^{d}}}}", "a^{b^{c^{d}}}"),
        (r"\boxed{3 and then \boxed{7}", "7"),
    ],
)
def test_where_a_reply_has_answered(reply: str, answer: str | None) -> None:
    reading = read_answer(reply)
    assert (reading and reading.text) == answer


def test_a_longer_reply_is_read_at_both_ends() -> None:
    steps = "Then she counts the plums in the next bag.\n" * 1000
    assert found(steps + "Final answer: 10") == ("10", "final_answer")
    assert found("#### 10\n\n" + steps) == ("10", "hashes")
