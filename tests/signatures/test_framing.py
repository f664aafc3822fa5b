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
