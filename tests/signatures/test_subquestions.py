import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from divcon.programs import ChatAdapter
from divcon.signatures import Decompose, Subquestions, SubquestionsError

TWO = ("How many bags are there?", "How many apples in all?")

READ = {
    "numbered": "1. How many bags are there?\n2. How many apples in all?",
    "numbered with brackets": "1) How many bags are there?\n2) How many apples in all?",
    "numbered in brackets": "(1) How many bags are there?\n(2) How many apples in all?",
    "bulleted": "- How many bags are there?\n- How many apples in all?",
    "stars": "* How many bags are there?\n* How many apples in all?",
    "plain lines": "How many bags are there?\nHow many apples in all?",
    "preamble": "Here are the subquestions:\n\n1. How many bags are there?\n2. How many apples in all?",
    "postscript": "1. How many bags are there?\n2. How many apples in all?\n\nLet me know if you need more!",
    "labelled": "Subquestion 1: How many bags are there?\nSubquestion 2: How many apples in all?",
    "bold": "**1.** How many bags are there?\n**2.** How many apples in all?",
    "json list": '["How many bags are there?", "How many apples in all?"]',
    "json object": '{"subquestions": ["How many bags are there?", "How many apples in all?"]}',
    "json of objects": '[{"question": "How many bags are there?"}, {"question": "How many apples in all?"}]',
    "python list": "['How many bags are there?', 'How many apples in all?']",
    "fenced": "```json\n[\"How many bags are there?\", \"How many apples in all?\"]\n```",
    "fenced lines": "```\n1. How many bags are there?\n2. How many apples in all?\n```",
    "think block": "<think>\n1. A wrong draft?\n</think>\n1. How many bags are there?\n2. How many apples in all?",
    "empty think block": "<think>\n\n</think>\n\n1. How many bags are there?\n2. How many apples in all?",
    "think block opened before": "1. Draft?\n</think>\n\n1. How many bags are there?\n2. How many apples in all?",
    "answers added": "1. How many bags are there? 3\n2. How many apples in all? = 12",
    "quoted items": '1. "How many bags are there?"\n2. "How many apples in all?"',
    "broken over lines": "1. How many bags\n   are there?\n2. How many apples in all?",
    "line separator inside": "1. How many bags\u2028are there?\n2. How many apples in all?",
}  # fmt: skip


@pytest.mark.parametrize("reply", READ.values(), ids=READ.keys())
def test_what_models_write_is_read(reply: str) -> None:
    assert Subquestions.read(reply).items == TWO


def test_apostrophes_inside_a_python_list_are_kept() -> None:
    reply = "['What is Tom's age?', 'What is Ann's age?']"
    assert Subquestions.read(reply).items == ("What is Tom's age?", "What is Ann's age?")


def test_brackets_inside_a_line_are_not_a_list() -> None:
    assert Subquestions.read("1. What is in [a]?\n2. How many?").items == ("What is in [a]?", "How many?")


@pytest.mark.parametrize(
    "reply",
    [
        "No decomposition.",
        "1. No decomposition.",
        "no decomposition needed",
        "None",
        "N/A",
        "No subquestions are needed.",
        "[]",
    ],
)
def test_no_decomposition_is_an_empty_list(reply: str) -> None:
    assert len(Subquestions.read(reply)) == 0


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("", "empty"),
        ("   \n ", "empty"),
        ("<think>\nFirst I", "cut_off"),
        ("['How many bags are there?', 'How ma", "cut_off"),
        ("1. How many bags are there?\n2. How many app", "cut_off"),
        ("1. How many bags?\n2. How many bags?", "duplicate"),
        ("1. How many bags?\n2. how many  BAGS?", "duplicate"),
        ("The total is 12.", "unreadable"),
        ('{"plan": "think"}', "unreadable"),
        ("[1, 2]", "unreadable"),
        ("['Who said 'a', 'b' or 'c' first?']", "unreadable"),
        ('["What is it?" "What else is it?"]', "unreadable"),
        ("Facts:\n1. Ada has 3 bags.\n2. Each holds 4.\n\n1. How many?\n2. And then?", "unreadable"),
        ("I cannot split this. Could you give more detail?", "unreadable"),
        ("[" * 5000 + "]", "unreadable"),
    ],
)
def test_what_cannot_be_trusted_is_refused_with_its_reason(reply: str, reason: str) -> None:
    with pytest.raises(SubquestionsError) as caught:
        Subquestions.read(reply)
    assert caught.value.reason == reason


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1), min_size=1, max_size=5))
def test_reading_never_raises_anything_else(lines: list[str]) -> None:
    try:
        read = Subquestions.read("\n".join(lines))
    except SubquestionsError:
        return
    assert all(item.strip() == item and "\n" not in item for item in read)


_WORDS = st.lists(st.sampled_from(["how", "many", "red", "bags", "does", "Tom's", "12"]), min_size=2, max_size=8)


@given(st.lists(_WORDS.map(lambda words: " ".join(words) + "?"), min_size=1, max_size=6, unique_by=str.casefold))
def test_what_is_rendered_reads_back(asked: list[str]) -> None:
    assert list(Subquestions.read(Subquestions(asked).render())) == asked


def test_an_empty_list_renders_as_a_sentence_that_reads_back() -> None:
    assert Subquestions.read(Subquestions().render()) == Subquestions()


@pytest.mark.parametrize("reply", ["['What is Tom's age?', 'What is it?']", "1. What is in [a box]?\n2. Is it big?"])
def test_our_chat_adapter_does_not_send_lists_through_json_repair(reply: str) -> None:
    text = f"[[ ## subquestions ## ]]\n{reply}\n\n[[ ## completed ## ]]"
    assert ChatAdapter().parse(Decompose, text)["subquestions"] == Subquestions.read(reply)


def test_dspys_own_adapter_refuses_shards_and_falls_back_to_the_raw_text() -> None:
    text = "[[ ## subquestions ## ]]\n1. What is in [a]?\n2. How many are there?\n\n[[ ## completed ## ]]"
    assert dspy.ChatAdapter().parse(Decompose, text)["subquestions"].items == ("What is in [a]?", "How many are there?")
