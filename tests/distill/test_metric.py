import dspy
import pytest

from divcon.distill import DecompositionMetric
from divcon.signatures import Subquestions

GOLD = dspy.Example(
    question="Ada has 3 bags of 4 plums and eats 2. How many are left?",
    answer="10",
    reference_subquestions=["How many plums are in the bags?", "How many plums are left?"],
    reference_sub_answers=["12", "10"],
)
metric = DecompositionMetric(lambda example, answer: answer == example.answer)


def prediction(answer: str, asked: list[str], sub_answers: str, status: str = "decomposed") -> dspy.Prediction:
    return dspy.Prediction(
        answer=answer, subquestions=Subquestions(asked), sub_answers=sub_answers, status=status, reason="cut_off"
    )


BOTH = ["How many plums are in the bags?", "How many plums are left?"]


def test_plainly_it_is_accuracy_with_a_trace_it_wants_a_split() -> None:
    whole = prediction("10", [], "", "whole")
    assert metric(GOLD, whole) == 1.0
    assert metric(GOLD, whole, trace=[]) is False
    split = prediction("10", BOTH, "1. 12\n2. 10")
    assert metric(GOLD, split, trace=[]) is True
    assert metric(GOLD, prediction("9", BOTH, "1. 12\n2. 9")) == 0.0


def test_gepa_gets_one_score_whatever_the_predictor() -> None:
    split = prediction("10", BOTH, "1. 12\n2. 10")
    scores = {metric(GOLD, split, [], name, []).score for name in ("decompose", "inner.decompose", "solve")}
    assert scores == {1.0} == {float(metric(GOLD, split, []))}


@pytest.mark.parametrize(
    ("pred", "says"),
    [
        (prediction("10", BOTH, "1. 12\n2. 10"), ["is right", "Every subquestion was answered."]),
        (
            prediction("7", [BOTH[0], "How old is Ada?"], "1. 12\n2. Unknown."),
            ["should be '10'", "Subquestion 2 ('How old is Ada?') was unanswerable: the solver wrote 'Unknown.'"],
        ),
        (prediction("7", BOTH, "1. 12"), ["Subquestion 2 ('How many plums are left?') was unanswerable", "skipped"]),
        (
            prediction("5", BOTH, "1. 3 + 4 = 7\n2. 7 - 2 = 5"),
            ["Subquestion 1 ('How many plums are in the bags?') was misleading", "where '12' is true"],
        ),
        (prediction("12", [BOTH[0]], "1. 12"), ["Missing: nothing asks 'How many plums are left?'"]),
        (
            prediction("12", [BOTH[0], "Why does Ada eat?"], "1. 12\n2. hunger"),
            ["'Why does Ada eat?') was misleading: it asks for nothing that the answer needs"],
        ),
        (prediction("12", [], "1. 12", "whole"), ["no split helps", "should be '10'"]),
        (prediction("12", [], "1. 12", "fell_back"), ["no usable list (cut_off)", "numbered"]),
    ],
)
def test_the_decomposer_hears_what_was_unanswerable_missing_or_misleading(
    pred: dspy.Prediction, says: list[str]
) -> None:
    feedback = metric.feedback(GOLD, pred)
    for text in says:
        assert text in feedback


def test_without_references_it_goes_by_what_the_solver_had_to_add() -> None:
    bare = dspy.Example(question="Q", answer="10")
    feedback = metric.feedback(bare, prediction("12", [BOTH[0]], "1. 12\n2. 12 - 1 = 11"))
    assert "Missing: the solver had to add '12 - 1 = 11'" in feedback


def test_the_solver_hears_of_its_answer_alone() -> None:
    assert metric.feedback(GOLD, prediction("9", BOTH, "1. 12\n2. 9"), "solve") == (
        "The answer '9' is wrong; it should be '10'."
    )
