import pytest
from dspy.utils.exceptions import AdapterParseError

from divcon.programs import ChatAdapter
from divcon.signatures import (
    Answer,
    Decompose,
    Subquestions,
    SubquestionsError,
    own_words,
    read_answer,
    thinks_still,
    without_thinking,
)

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
    ("<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>{}", True),
    ("analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}", True),  # opened in the prompt
    ("analysis(Hm.) {}assistantfinal{}", True),  # without the tokens
    ("<|START_THINKING|>{}<|END_THINKING|>{}", True),
    ("<seed:think>{}</seed:think>{}", True),
    ("<|channel>thought\n{}<channel|>{}", True),
    ('<think type="long">{}</think>{}', True),
    ("<think>{}</thinking>{}", True),
    ("<think>{}<|im_end|></think>{}", True),  # a token is quoted in the thoughts
    ("<think>a<think>b</think>{}</think>{}", True),
    ("<think/>{0:.0}{1}", True),
    ("<think>{}</think>{}<|im_end|>\n<|im_start|>assistant\n<think>And now?</think>1. What else?", True),
    ("<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>{}<|return|><|start|>user"
     "<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>1. What else?", True),
    ("<think>{}", False),
    ("analysis(Hm.) {}", False),
    ("<|START_THINKING|>{}", False),
    ("<seed:think>{}", False),
    ("Sure.<|begin_of_thought|>{}", False),
    ("<thinking>{}", False),
    ("[THINK]{}", False),
    ("<|channel|>analysis<|message|>{}", False),
    ("<|channel|>analysis<|message|>{}<|end|><|start|>assistant<|channel|>commentary<|message|>", False),
    ("<think>{}</think><think>", False),
]  # fmt: skip


@pytest.mark.parametrize(("form", "ends"), THOUGHTS)
def test_a_draft_is_never_the_list_in_whatever_marks_it_stands(form: str, ends: bool) -> None:
    reply = form.format(DRAFT, LIST)
    assert thinks_still(reply) != ends
    if ends:
        assert list(Subquestions.read(reply)) == ["How many bags?", "How many plums?"]
    else:
        with pytest.raises(SubquestionsError) as caught:
            Subquestions.read(reply)
        assert (caught.value.reason, caught.value.items) == ("cut_off", ())


def test_a_reply_without_thoughts_stays_as_it_is() -> None:
    assert without_thinking("a < b and b > c\n[1] think") == "a < b and b > c\n[1] think"


@pytest.mark.parametrize(("form", "ends"), THOUGHTS)
def test_a_draft_is_never_the_answer(form: str, ends: bool) -> None:
    reading = read_answer(form.format("Final answer: 96\n", "Final answer: 7"))
    assert (reading and reading.text) == ("7" if ends else None)


@pytest.mark.parametrize("draft", ["<think>{}</think>", "{}</think>", "[THINK]{}[/THINK]"])
def test_a_draft_between_dspys_markers_is_none_either(draft: str) -> None:
    section = "[[ ## {} ## ]]\n{}\n\n"
    listed = draft.format(section.format("subquestions", DRAFT)) + section.format("subquestions", LIST)
    assert ChatAdapter().parse(Decompose, listed)["subquestions"] == Subquestions.read(LIST)
    answered = draft.format(section.format("answer", "96")) + section.format("answer", "7")
    assert ChatAdapter().parse(Answer, answered)["answer"] == "7"
    with pytest.raises(AdapterParseError, match="inside its thoughts"):
        ChatAdapter().parse(Decompose, "<think>" + section.format("subquestions", DRAFT))


@pytest.mark.parametrize(
    "reply",
    [
        "7<|im_end|>96",
        "7<|eot_id|><|start_header_id|>user<|end_header_id|>",
        "7<｜end▁of▁sentence｜>96",
        "7</s><s>[INST] 96",
        "7<eos>96",
        "7<|endoftext|>96",
        "7\nUser: 96",
        "7\n### Human: 96",
        "<|im_start|>assistant\n7<|im_end|>",
        "<|start_header_id|>assistant<|end_header_id|>\n\n7<|eot_id|>",
        "Assistant: 7",
        "7<|im_end|>\n<|im_start|>assistant\n<think>Or 96?",
    ],
)
def test_a_turn_ends_at_its_token_or_at_another_speakers_label(reply: str) -> None:
    assert own_words(reply).strip() == "7"


def test_half_characters_are_replaced_in_words_and_in_data() -> None:
    assert own_words("7 \ud83d") == "7 \ufffd"
    assert list(Subquestions.read('["How many \\ud83d?", "And then?"]')) == ["How many \ufffd?", "And then?"]
    with pytest.raises(ValueError, match="not a subquestion"):
        Subquestions.model_validate(["\ud83d"])
