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
    pairs = overlapping([Item("a", train, "1")], test).pairs
    assert [pair[2] for pair in pairs] == [why]
    with pytest.raises(OverlapError, match=r"a ~ t") as caught:
        refuse_overlap([Item("a", train, "1")], test)
    assert ("task.overlap: same" in caught.value.remedy) == (why != "same"), "equal questions overlap in any case"


def test_numbers_changed_only_is_counted_not_refused() -> None:
    assert refuse_overlap([Item("a", "Has Ann 3 or 4?", "1")], [Item("t", "Has Ann 7 or 12?", "1")]).twins == 1


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
    assert bool(overlapping([Item("a", one, "1")], [Item("b", other, "1")]).pairs) == same


OTHER = LONG.replace("Ann", "Mia").replace("red", "green").replace("blue", "white").replace("river", "sea")
CLOSE = "Every morning the baker carries six trays of warm bread to the small shop. How many trays are there in a week?"


def items(prefix: str, *questions: str) -> list[Item]:
    return [Item(f"{prefix}{number}", question, "1") for number, question in enumerate(questions)]


@pytest.mark.parametrize(
    ("train", "similar"),
    [
        (CLOSE.replace("small", "corner"), True),
        (CLOSE.replace("Every morning the", "Each morning the"), True),
        (CLOSE.replace("baker", "cook").replace("warm", "fresh").replace("week", "month"), False),
        (CLOSE.split(". ")[1], False),
    ],
)
def test_near_duplicates_are_found_whatever_runs_of_thirteen_they_share(train: str, similar: bool) -> None:
    found = overlapping(items("a", train), items("t", CLOSE, OTHER), common=0, near=0.7)
    assert found.pairs == []  # whole questions only
    pairs = overlapping(items("a", train), items("t", CLOSE, OTHER), near=0.7).pairs
    assert [pair[1].id for pair in pairs] == ["t0"] * similar
    exact = overlapping(items("a", train), items("t", CLOSE, OTHER), near=1.0).pairs
    assert all(pair[2] == "13-gram" for pair in exact)


def test_a_question_that_differs_in_two_places_is_near_and_the_share_is_shown() -> None:
    words = [f"w{number}" for number in range(30)]
    changed = [word if number not in (9, 19) else "x" for number, word in enumerate(words)]
    (pair,) = overlapping(items("a", " ".join(changed)), items("t", " ".join(words)), near=0.6).pairs
    assert pair[2] == "near, 0.65"  # 22 of 34 runs of three
    assert not overlapping(items("a", " ".join(changed)), items("t", " ".join(words)), near=0.7).pairs


def test_a_template_that_many_share_makes_no_near_duplicates() -> None:
    told = "{} guests sit at a table, and each of them orders {}. Who pays for the {} if nobody leaves before dessert?"
    names = [chr(97 + n // 20) + chr(97 + n % 20) for n in range(40)]
    asked = [told.format(f"n{n}", f"dish{n}", f"cup{n}") for n in names]
    train, test = items("a", *asked[:20]), items("t", *asked[20:])
    assert not overlapping(train, test, common=10, near=0.4).pairs
    assert overlapping(train[:1], test[:1], near=0.4).pairs  # two alone can't be told from near duplicates


def test_questions_that_differ_in_numbers_alone_stay_twins_and_no_near_duplicates() -> None:
    found = overlapping(items("a", CLOSE.replace("small", "6")), items("t", CLOSE.replace("small", "7")), near=0.5)
    assert (found.pairs, found.twins) == ([], 1)


def test_what_is_allowed_is_let_through_with_its_reason_and_nothing_else() -> None:
    train, test = items("a", LONG, CLOSE), items("t", LONG, CLOSE, CLOSE)

    def pair(one: str, other: str) -> str | None:
        return "a classic" if (one, other) == ("a1", "t1") else None

    found = overlapping(train, test, allowing=pair)
    assert [(a.id, b.id) for a, b, _ in found.pairs] == [("a0", "t0"), ("a1", "t2")]
    assert found.allowed == [("a1", "t1", "same", "a classic")]
    found = refuse_overlap(train, test, allowing=lambda one, other: "all of them")
    assert [(one.train, one.test) for one in found.allowed] == [("a0", "t0"), ("a1", "t1"), ("a1", "t2")]
