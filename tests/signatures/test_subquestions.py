import re
from pathlib import Path
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from divcon.programs import ChatAdapter
from divcon.signatures import Decompose, Subquestions, SubquestionsError

REPLIES: list[dict[str, Any]] = YAML(typ="safe").load(Path(__file__).with_name("replies.yaml"))
READ = [entry for entry in REPLIES if "items" in entry]
REFUSED = [entry for entry in REPLIES if "refused" in entry]


def _name(entry: dict[str, Any]) -> str:
    return entry["name"]


@pytest.mark.parametrize("entry", READ, ids=_name)
def test_what_models_write_is_read(entry: dict[str, Any]) -> None:
    assert list(Subquestions.read(entry["reply"])) == entry["items"]


@pytest.mark.parametrize("entry", REFUSED, ids=_name)
def test_what_cannot_be_trusted_is_refused_with_its_reason(entry: dict[str, Any]) -> None:
    with pytest.raises(SubquestionsError) as caught:
        Subquestions.read(entry["reply"])
    assert caught.value.reason == entry["refused"]


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


def test_the_corpus_is_large_and_has_enough_replies_of_real_models() -> None:
    assert len(REPLIES) >= 80
    assert sum(entry.get("real", False) for entry in REPLIES) >= 20


def test_every_shape_of_the_corpus_is_there_once_with_one_verdict() -> None:
    assert len({entry["name"] for entry in REPLIES}) == len({entry["reply"] for entry in REPLIES}) == len(REPLIES)
    assert len(READ) + len(REFUSED) == len(REPLIES)
    assert {entry["refused"] for entry in REFUSED} == {"empty", "cut_off", "duplicate", "unreadable"}


@pytest.mark.parametrize("entry", READ, ids=_name)
def test_what_was_read_once_reads_the_same_once_rendered(entry: dict[str, Any]) -> None:
    once = Subquestions.read(entry["reply"])
    assert Subquestions.read(once.render()) == once


def test_brackets_beyond_any_depth_are_unreadable() -> None:
    with pytest.raises(SubquestionsError) as caught:
        Subquestions.read("[" * 5000 + "]")
    assert caught.value.reason == "unreadable"


def test_a_list_of_hundreds_reads_back() -> None:
    asked = [f"How many bags are in box {i}?" for i in range(300)]
    assert list(Subquestions.read(Subquestions(asked).render())) == asked


# Free text with what lists are made of: what a model writes, and what it writes around it.
_FRAGMENTS = st.one_of(
    st.sampled_from(
        ["1. ", "2. ", "1) ", "- ", "**", "*", "Q1: ", "a. ", "b. ", "#", "> ", "\n", "\n\n", "\r", "\t", "  "]
    ),
    st.sampled_from(
        ["How many bags", " are there", "?", "? ", ".", "Find the bags", "how many", "Ada has 3 bags.", "No"]
    ),
    st.sampled_from(
        ['"', "'", "[", "]", "{", "}", ", ", ": ", '["', '"]', '", "', "```\n", "\n```", "<q>", "</q>", "\\n"]
    ),
    st.sampled_from(
        ["<think>", "</think>", "<|im_end|>", "[[ ## subquestions ## ]]\n", "No decomposition", "Answer: 3"]
    ),
    st.sampled_from(
        ["(", ")", "=", "12", "？", "؟", "1、", "\u2028", "\u200b", "\u00a0", "\ud83c", "1️⃣", "Assistant: "]
    ),
)
_MARKERS = st.sampled_from(
    ["{}. ", "{}) ", "({}) ", "**{}.** ", "**{}. ", "Q{}: ", "Step {}: ", "- ", "* ", "", "  - ", "1. "]
)
_ENDS = st.sampled_from(["?", "?", "?", "？", ".", "", "? 3", "? (in euros)", "?**", '?"', "? And", "? 2. How?"])
_BODIES = st.sampled_from(
    ["How many bags are there", "How many\n  apples", "Find the pears", '"How much', "**Bags:** how many"]
)
_ITEMS = st.tuples(_BODIES, st.text(st.sampled_from("ab '\"()*:,"), max_size=4), _ENDS).map("".join)
_LISTS = st.tuples(
    st.sampled_from(["", "Here they are:\n", "Sure! ", "```\n", "<think></think>"]),
    st.tuples(_MARKERS, st.lists(_ITEMS, min_size=1, max_size=4, unique=True)).map(
        lambda list_: "\n".join(list_[0].format(i) + item for i, item in enumerate(list_[1], 1))
    ),
    st.sampled_from(["", "\n\nThat is all.", "\n```", "\n9", "<|im_end|>"]),
).map("".join)
_REPLIES = st.one_of(
    _LISTS,
    st.lists(_FRAGMENTS, max_size=14).map("".join),
    st.lists(st.text(st.characters(exclude_characters="\x00"), min_size=1), min_size=1, max_size=5).map("\n".join),
)


def _read(reply: str) -> Subquestions | None:
    try:
        return Subquestions.read(reply)
    except SubquestionsError as error:
        assert error.reason in ("empty", "cut_off", "duplicate", "unreadable")
        return None


@given(_REPLIES)
def test_reading_never_raises_anything_else_and_items_are_whole_lines(reply: str) -> None:
    for item in _read(reply) or ():
        assert item
        assert item.strip() == item
        assert len(item.splitlines()) == 1


@given(_REPLIES)
def test_what_is_read_reads_the_same_once_rendered(reply: str) -> None:
    once = _read(reply)
    if once is not None:
        assert _read(once.render()) == once


_LETTERS = "abcxyzABCXYZäßéñøαβγΩжЖяاكمאבשあア袋林한글नम"
_MARKS = ".,:;!'\"“”‘’«»„()[]{}<>/\\|*_+=#%&@$€~^`-–—…·"
_TEXT = st.text(st.sampled_from(_LETTERS + "0123456789" + "   " + _MARKS), min_size=1, max_size=40)
_WORDS = st.lists(st.sampled_from(["how", "many", "bags", "Tom's", "12", "1.", "2)", "-", "Answer:", "No"]), min_size=1)


def _asks(text: str) -> str:
    return " ".join(text.split()) + "?"


def _is_plain(question: str) -> bool:
    """As the docstring of `Subquestions` narrows its promise."""
    return (
        re.search(r"\w", question) is not None
        and not re.search(r"\*\*\S.*\*\*", question)
        and not re.search(r"\?[\s;,]*\(?\d+[.)]", question)
    )


def _same(question: str) -> str:
    return question.casefold().rstrip("?.! ")


_QUESTIONS = st.one_of(_TEXT, _WORDS.map(" ".join), st.tuples(_TEXT, _TEXT).map("? ".join)).map(_asks).filter(_is_plain)
_SENTENCES = _TEXT.map(lambda text: _asks(re.sub("[.!…]", "", text))).filter(_is_plain)  # one each, without full stops


@given(st.lists(_QUESTIONS, min_size=1, max_size=6, unique_by=_same))
def test_what_is_rendered_reads_back(asked: list[str]) -> None:
    assert list(Subquestions.read(Subquestions(asked).render())) == asked


@given(st.lists(_SENTENCES, min_size=2, max_size=4, unique_by=_same), st.data())
def test_a_list_cut_off_anywhere_is_refused_or_read_to_a_whole_item(asked: list[str], data: st.DataObject) -> None:
    rendered = Subquestions(asked).render()
    read = _read(rendered[: data.draw(st.integers(0, len(rendered) - 1))])
    assert read is None or list(read) == asked[: len(read)]


def test_an_empty_list_renders_as_a_sentence_that_reads_back() -> None:
    assert Subquestions.read(Subquestions().render()) == Subquestions()


@pytest.mark.parametrize("reply", ["['What is Tom's age?', 'What is it?']", "1. What is in [a box]?\n2. Is it big?"])
def test_our_chat_adapter_does_not_send_lists_through_json_repair(reply: str) -> None:
    text = f"[[ ## subquestions ## ]]\n{reply}\n\n[[ ## completed ## ]]"
    assert ChatAdapter().parse(Decompose, text)["subquestions"] == Subquestions.read(reply)


def test_dspys_own_adapter_refuses_shards_and_falls_back_to_the_raw_text() -> None:
    text = "[[ ## subquestions ## ]]\n1. What is in [a]?\n2. How many are there?\n\n[[ ## completed ## ]]"
    assert dspy.ChatAdapter().parse(Decompose, text)["subquestions"].items == ("What is in [a]?", "How many are there?")


_LOOPED = [
    "\n", " ", "1. ", "[", "**", "<q>", "```\n", "How many? ", "- ", "> ", "\\n", "= 1 ", "- \n", "_", "* ", "<|a|>",
    "<think></think>", "Answer:", "\u2028", "a\n\n",
]  # fmt: skip


def test_a_list_without_an_end_is_cut_off_and_says_what_stands_whole_in_it() -> None:
    asked = [f"How many bags are in box {i}?" for i in range(2000)]
    with pytest.raises(SubquestionsError) as caught:
        Subquestions.read("\n".join(f"{i}. {item}" for i, item in enumerate(asked, 1)))
    assert caught.value.reason == "cut_off"
    assert list(caught.value.items) == asked[: len(caught.value.items)]
    assert len(caught.value.items) > 400


def test_an_item_in_more_quotes_than_any_text_has_is_refused() -> None:
    with pytest.raises(SubquestionsError, match="pairs of quotes"):
        Subquestions.read("1. " + "*" * 40 + "How many?" + "*" * 40 + "\n2. And then?")


def test_no_reply_of_a_model_that_loops_is_read_in_more_than_one_pass() -> None:
    """Read in a process of its own, which ends where a pattern goes over the text again and again."""
    import subprocess
    import sys

    code = (
        "import signal\n"
        "from divcon.signatures import Subquestions\n"
        f"for piece in {_LOOPED!r}:\n"
        "    print(repr(piece), flush=True)\n"
        "    signal.setitimer(signal.ITIMER_PROF, 5)\n"  # seconds of computing; a single pass takes 0.1
        "    try: Subquestions.read(piece * 20_000 + 'x')\n"
        "    except ValueError: pass"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)
