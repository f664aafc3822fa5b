"""Readers and graders under replies that no one has foreseen: each is read, graded or refused, in time.

A run takes seconds. `DIVCON_FUZZ_SECONDS=600` runs every target for so long.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from dspy.utils.exceptions import AdapterParseError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support.fuzzing import Tries

from divcon.benchmarks import grade, grade_as_paper
from divcon.programs import ChatAdapter, CompactAdapter, Item
from divcon.signatures import (
    Decompose,
    FollowUp,
    Solve,
    SolveDirect,
    Subquestions,
    SubquestionsError,
    plain,
    read_answer,
    thinks_still,
)

TOO_LONG = 10  # seconds; a reply of 100,000 characters takes a twentieth of one
LENGTH = 100_000  # characters of a reply of a model that loops

# What replies are made of. Thoughts and turns are apart, since some properties hold without them only.
WORDS = [
    "7", "96", "1,200", "3.5", "1/2", "2 1/2", "½", "1e9", "10^6", "× 10^2", "-", "−8", "$5", "5kg", "50%", "9" * 400,
    "٣", "yes", "No", "not ", "n't", "true", "no other", "(B)", "A. ", "Ada", "the ", "and ", ", ", "; ", "> ) ]",
    "J. R.", "answer", "Answer: ", "the answer is ", "Final answer: ", "final answer to ", "#### ", "So ", "Step 1: ",
    "Q1: ", "1. ", "2. ", "- ", "* ", "How many bags? ", "Find the bags.", "No decomposition.", "Question: ", "---",
    "Tom has 3. ", "\n", "\n\n", "\r", "\r\n", "\t", "  ", "\u2028", "\u00a0", "\x00", "\x1c", "\ud83d", "\ude00",
    "\u200b", "\ufeff", "é", "你好？", "**", "*", "_", "__", "`", "```\n", "```json\n", "> ", "#", "|", "<q>", "</q>",
    "<li>", "<answer>", "</answer>", "\\boxed{", "\\text{", "\\frac{1}{2}", "\\frac", "\\,", "\\!", "\\(", "\\)", "\\[",
    "$", "$$", "{", "}", "\\times", "^{", "\\", "[", "]", '["', '"]', '", "', "'", '"', '{"subquestions": ["', ":", "=",
    '"question": "', ".", "?", "!", "…", "...",
]  # fmt: skip
TURNS = [
    "<|im_end|>", "<|im_start|>", "<|eot_id|>", "</s>", "<｜end▁of▁sentence｜>", "[INST]", "\nUser: ", "assistant\n",
    "<|start|>", "<|end|>", "<|return|>", "<|", "|>", "[[ ## answer ## ]]\n", "[[ ## subquestions ## ]]\n",
    "[[ ## completed ## ]]",
]  # fmt: skip
THOUGHTS = [
    ("<think>", "</think>"), ("<thinking>", "</thinking>"), ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<reasoning>", "</reasoning>"), ("<seed:think>", "</seed:think>"), ("<|channel>thought\n", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    ("analysis<|message|>", "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>"),
    ("analysisWe ", "assistantfinal"),
]  # fmt: skip
MARKS = [mark for marks in THOUGHTS for mark in marks]


def _joined(fragments: list[str], most: int = 14) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(fragments), max_size=most).map("".join)


def _looped(piece: str) -> str:
    return (piece * (LENGTH // max(len(piece), 1) + 1))[:LENGTH]


OWN = _joined(WORDS)
FREE = st.lists(st.one_of(st.text(max_size=20), st.sampled_from(WORDS)), max_size=8).map("".join)
REPLIES = st.one_of(_joined(WORDS), _joined([*WORDS, *TURNS, *MARKS], 20), FREE)
LOOPS = st.tuples(
    _joined([*WORDS, *TURNS, *MARKS], 3), _joined([*WORDS, *TURNS, *MARKS], 4).map(_looped), _joined(WORDS, 3)
).map("".join)

ITEMS = [
    Item("number", "Q?", "7"), Item("percent", "Q?", "50%", grader="percent"), Item("alias", "Q?", "12", ("twelve",)),
    Item("text", "Q?", "Ada"), Item("signs", "Q?", "> ) ]"), Item("truth", "Q?", "yes", grader="yes_no"),
    Item("choice", "Which?\n(A) red\n(B) blue", "(B)", grader="choice"),
    Item("span", "Q?", "-", references=(("10 men",),), grader="drop"),
    Item("spans", "Q?", "-", references=(("Ada", "Grace"), ("x",)), grader="drop"),
]  # fmt: skip


class Hangs(Exception):
    """A reply takes far too long."""


@contextmanager
def in_time() -> Iterator[None]:
    """Raise `Hangs` where what is inside takes far too long."""

    def stop(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, TOO_LONG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def fuzz(texts: st.SearchStrategy[Any], check: Callable[[Any], None], examples: int) -> None:
    """Check texts: so many, or for as long as `DIVCON_FUZZ_SECONDS` says."""

    tries = Tries()

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(texts)
    def run(text: Any) -> None:
        tries.examples += 1
        with in_time():
            check(text)

    for _ in tries:
        run()


def reads(text: str) -> None:
    for steps in (False, True):
        reading = read_answer(text, steps=steps)
        if reading is not None:
            assert reading.text.strip()
            (reading.text + reading.before).encode()
    plain(text)
    thinks_still(text)


def lists(text: str) -> None:
    try:
        found = tuple(Subquestions.read(text))
    except SubquestionsError as error:
        assert error.reason in ("empty", "cut_off", "duplicate", "unreadable")
        found = error.items
    for item in found:
        assert item.strip() == item != ""
        assert len(item.splitlines()) == 1
        item.encode()


def grades(text: str) -> None:
    for item in ITEMS:
        for grader in (grade, grade_as_paper):
            verdict = grader(item, text)
            assert 0 <= verdict.score <= 1
            assert verdict.right <= (verdict.score == 1)
            if grader is grade:
                (verdict.extracted or "").encode()


def parses(text: str) -> None:
    for adapter in (CompactAdapter(), ChatAdapter()):
        for signature in (Decompose, Solve, SolveDirect, FollowUp):
            try:
                adapter.parse(signature, text)
            except AdapterParseError:
                continue
    CompactAdapter().partial(Solve, text, "answer")


TARGETS = {"answers": reads, "lists": lists, "grades": grades, "adapters": parses}


@pytest.mark.parametrize("target", TARGETS)
def test_any_reply_is_read_or_refused(target: str) -> None:
    fuzz(REPLIES, TARGETS[target], 150)


@pytest.mark.parametrize("target", ["answers", "lists", "grades"])
def test_a_reply_that_loops_is_read_or_refused_in_time(target: str) -> None:
    fuzz(LOOPS, TARGETS[target], 15)


def test_a_draft_is_never_the_answer_nor_the_list() -> None:
    def check(drawn: tuple[tuple[str, str], str, str, bool, bool]) -> None:
        (opens, closes), draft, words, opened, closed = drawn
        draft = f"{draft}31337\nFinal answer: 31337\n1. How many 31337 are there?\n"
        if not closed:
            assert thinks_still(opens + draft)
            assert read_answer(opens + draft) is None
            with pytest.raises(SubquestionsError):
                Subquestions.read(opens + draft)
            return
        reply = (opens if opened else "") + draft + closes + words
        reading = read_answer(reply)
        assert reading is None or "31337" not in reading.text + reading.before
        assert not any("31337" in str(verdict.extracted) for verdict in (grade(item, reply) for item in ITEMS))
        try:
            assert not any("31337" in item for item in Subquestions.read(reply))
        except SubquestionsError as error:
            assert not any("31337" in item for item in error.items)

    fuzz(st.tuples(st.sampled_from(THOUGHTS), OWN, OWN, st.booleans(), st.booleans()), check, 150)


def test_what_stands_behind_the_end_of_a_turn_changes_nothing() -> None:
    ends = st.sampled_from(["<|im_end|>", "<|eot_id|>", "</s>", "<｜end▁of▁sentence｜>", "<|return|>", "<end_of_turn>"])

    def check(drawn: tuple[str, str, str]) -> None:
        words, end, tail = drawn
        if words.strip():
            assert read_answer(words + end + tail) == read_answer(words)
            assert [grade(item, words + end + tail) for item in ITEMS] == [grade(item, words) for item in ITEMS]

    fuzz(st.tuples(OWN, ends, _joined([*WORDS, *TURNS])), check, 100)


def test_any_data_is_a_list_or_refused() -> None:
    leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), _joined(WORDS, 5))
    keys = st.sampled_from(["subquestions", "questions", "question", "q1", "q2", "text", "", "Sub-Questions", "1"])
    data = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))

    def check(value: Any) -> None:
        try:
            Subquestions.model_validate(value)
        except ValidationError:
            return

    fuzz(data, check, 100)
