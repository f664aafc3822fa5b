import itertools

import pytest

from divcon.signatures import Answer, Decompose, Reason, Solve, SolveStep, decompose_signature

ASKS = (Answer, Decompose, Reason, Solve, SolveStep)


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
