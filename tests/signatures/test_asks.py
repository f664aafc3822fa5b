import itertools
import re

import pytest

from divcon.signatures import (
    NO_DECOMPOSITION,
    Answer,
    Decompose,
    FollowUp,
    Reason,
    Solve,
    SolveDirect,
    SolveStep,
    Subquestions,
    decompose_signature,
    list_pattern,
)

ASKS = (Answer, Decompose, FollowUp, Reason, Solve, SolveDirect, SolveStep)


def test_no_two_signatures_are_equal() -> None:
    for a, b in itertools.combinations(ASKS, 2):
        assert (a.instructions, list(a.fields)) != (b.instructions, list(b.fields))


@pytest.mark.parametrize("signature", ASKS)
def test_context_is_optional_everywhere(signature: type) -> None:
    assert signature.input_fields["context"].default is None


def test_the_cap_is_written_into_the_instruction() -> None:
    assert "at most 3 subquestions" in Decompose.instructions
    assert "at most 5 subquestions" in decompose_signature(5).instructions
    with pytest.raises(ValueError, match="1 or more"):
        decompose_signature(0)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_what_the_pattern_of_lists_lets_through_is_a_list_that_can_be_read(count: int) -> None:
    items = [f"How many bags are in box {i}?" for i in range(count)]
    rendered = Subquestions(items).render()
    assert bool(re.fullmatch(list_pattern(3), rendered)) == (count <= 3)
    assert list(Subquestions.read(rendered)) == items
    assert re.fullmatch(list_pattern(3, allow_whole=True), NO_DECOMPOSITION)
    assert not re.fullmatch(list_pattern(3), NO_DECOMPOSITION)
    assert not re.fullmatch(list_pattern(3), f"Let's see.\n{rendered}")
    assert not re.fullmatch(list_pattern(3), rendered[:-1])
