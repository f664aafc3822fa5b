import pytest

from divcon.signatures import Subquestions, SubquestionsError, thinks_still, without_thinking

DRAFT, LIST = "1. Is this a draft?\n2. Is it one still?", "1. How many bags?\n2. How many plums?"
THOUGHTS = [
    ("<think>{}</think>\n{}", True),
    ("{}</think>\n{}", True),  # opened in the prompt
    ("<thinking>\n{}\n</thinking>\n\n{}", True),
    ("<THINK>{}</THINK>{}", True),
    ("<thought>{}</thought>{}", True),
    ("<reasoning>{}</reasoning>{}", True),
    ("[THINK]{}[/THINK]{}", True),
    ("<|begin_of_thought|>{}<|end_of_thought|>{}", True),
    ("<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|>", True),
    ("<|start|>assistant<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}", True),
    ("<think>{}", False),
    ("<thinking>{}", False),
    ("[THINK]{}", False),
    ("<|channel|>analysis<|message|>{}", False),
    ("<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>commentary<|message|>", False),
    ("<think>{}</think><think>", False),
]


@pytest.mark.parametrize(("form", "ends"), THOUGHTS)
def test_a_draft_is_never_the_list_in_whatever_marks_it_stands(form: str, ends: bool) -> None:
    reply = form.format(DRAFT, LIST) if form.count("{}") == 2 else form.format(DRAFT)
    assert thinks_still(reply) != ends
    if ends:
        assert list(Subquestions.read(reply)) == ["How many bags?", "How many plums?"]
    else:
        with pytest.raises(SubquestionsError) as caught:
            Subquestions.read(reply)
        assert (caught.value.reason, caught.value.items) == ("cut_off", ())


def test_a_reply_without_thoughts_stays_as_it_is() -> None:
    assert without_thinking("a < b and b > c\n[1] think") == "a < b and b > c\n[1] think"


@pytest.mark.parametrize(
    ("reply", "reason", "items"),
    [
        ("1. How many?\n2. And then?\n3. How many?", "duplicate", ["How many?", "And then?"]),
        ("1. How many?\n2. how many", "duplicate", ["How many?"]),
        ("1. How many are there?\n2. How many ar", "cut_off", ["How many are there?"]),
        ("1. How many?\n2. And then?\n3.", "cut_off", ["How many?", "And then?"]),
        ("How many?\nAnd then?\nWhat is the to", "cut_off", ["How many?", "And then?"]),
        ("1. How many?\n2. The bags are red.", "unreadable", []),
        ("Q1: Q1: How many?\nQ2: And then?\nQ3: How many?", "duplicate", ["How many?", "And then?"]),
    ],
)
def test_a_refused_list_says_what_stands_whole_in_it(reply: str, reason: str, items: list[str]) -> None:
    with pytest.raises(SubquestionsError) as caught:
        Subquestions.read(reply)
    assert (caught.value.reason, list(caught.value.items)) == (reason, items)
