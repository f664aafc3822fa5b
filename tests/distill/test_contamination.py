import pytest

from divcon.distill import OverlapError, overlapping, refuse_overlap
from divcon.programs import Item

LONG = "Ann buys 3 red bags and 4 blue ones at the old market near the river, then gives 2 away. How many are left?"


@pytest.mark.parametrize(
    ("train", "why"),
    [
        ("What  is the CAPITAL of Tor", "same"),
        ("First of all, " + LONG.lower()[:-20] + " remain?", "13-gram"),
    ],
)
def test_a_test_question_in_training_is_refused_and_shown(train: str, why: str) -> None:
    test = [Item("t0", "What is the capital of Tor?", "Bel"), Item("t1", LONG, "5")]
    pairs, _ = overlapping([Item("a", train, "1")], test)
    assert [pair[2] for pair in pairs] == [why]
    with pytest.raises(OverlapError, match=r"a ~ t"):
        refuse_overlap([Item("a", train, "1")], test)


def test_numbers_changed_only_is_counted_not_refused() -> None:
    assert refuse_overlap([Item("a", "Has Ann 3 or 4?", "1")], [Item("t", "Has Ann 7 or 12?", "1")]) == 1


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Close the brackets. Input: [ { [", "Close the brackets. Input: < ( (", False),
        ("((-1 + 2) * 3) =", "((-1 - 2) * 3) =", False),
        ("((-1 + 2) * 3) =", "((1 + 2) * 3) =", False),
        ("How many (red) bags are there?", "how many red bags are there", True),
        ("Is it a well-known 'tree'?", "Is it a well known tree?", True),
    ],
)
def test_questions_that_differ_in_their_signs_alone_are_two(one: str, other: str, same: bool) -> None:
    pairs, _ = overlapping([Item("a", one, "1")], [Item("b", other, "1")])
    assert bool(pairs) == same
