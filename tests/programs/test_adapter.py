import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError

from divcon.distill import Base
from divcon.programs import ChatAdapter, CompactAdapter, RolePredict
from divcon.signatures import Decompose, FollowUp, Reason, Solve, SolveDirect, Subquestions

QUESTION = "Ada has 3 bags of 4 apples and eats 2. How many are left?"
PASSAGE = "Ada lives in Tor. Tor lies in Bel."


@pytest.mark.model
@pytest.mark.parametrize("context", [None, PASSAGE])
def test_a_prompt_costs_at_most_half_of_dspys(base: Base, context: str | None) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base.path)

    def tokens(adapter: dspy.Adapter, signature: type[dspy.Signature], **inputs: object) -> int:
        messages = adapter.format(signature, [], inputs)
        return len(tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"])

    asked = Subquestions(["How many apples are in the bags?", "How many are left?"])
    for signature, inputs in ((Decompose, {}), (Solve, {"subquestions": asked})):
        ours = tokens(CompactAdapter(), signature, question=QUESTION, context=context, **inputs)
        theirs = tokens(dspy.ChatAdapter(), signature, question=QUESTION, context=context, **inputs)
        assert ours <= theirs / 2


def test_a_training_row_is_the_prompt_of_inference_byte_for_byte() -> None:
    decompose = RolePredict(Decompose, "decomposer")
    inputs = {"question": QUESTION, "context": PASSAGE}
    row = decompose.training_row(inputs, {"subquestions": Subquestions(["How many?", "And then?"])})
    assert row["prompt"] == decompose.prompt(**inputs)
    assert row["completion"] == [{"role": "assistant", "content": "1. How many?\n2. And then?"}]


@pytest.mark.parametrize("adapter", [CompactAdapter(), ChatAdapter()])
@pytest.mark.parametrize("context", [None, ""])
def test_a_missing_passage_is_left_out_and_never_called_none(adapter: dspy.Adapter, context: str | None) -> None:
    text = adapter.format(Decompose, [], {"question": QUESTION, "context": context})[-1]["content"]
    assert "None" not in text
    assert QUESTION in text
    if isinstance(adapter, CompactAdapter):
        assert text == f"Question: {QUESTION}"


def test_zero_subquestions_leave_the_field_out_of_the_solvers_prompt() -> None:
    text = CompactAdapter().format(Solve, [], {"question": QUESTION, "subquestions": Subquestions()})[-1]["content"]
    assert text == f"Question: {QUESTION}"
    whole = {"question": QUESTION, "subquestions": Subquestions(), "answer": "10"}
    for message in ChatAdapter().format(SolveDirect, [whole], whole)[1:]:
        assert "## subquestions ##" not in message["content"] and "No decomposition" not in message["content"]


def test_demos_are_rendered_as_turns() -> None:
    demo = {"question": "A?", "subquestions": Subquestions(["B is what?"])}
    messages = CompactAdapter().format(Decompose, [demo], {"question": QUESTION})
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert messages[2]["content"] == "1. B is what?"


@pytest.mark.parametrize("adapter", [CompactAdapter(), ChatAdapter()])
def test_a_demo_without_optional_inputs_is_whole_and_one_without_its_question_is_not(adapter: dspy.Adapter) -> None:
    demos = [{"question": "A?", "subquestions": Subquestions(["B is what?"])}, {"context": PASSAGE, "answer": "B"}]
    for context in (None, PASSAGE):
        whole = adapter.format(Decompose, demos[:1], {"question": QUESTION, "context": context})
        assert "not supplied" not in str(whole)
        assert "context" not in whole[1]["content"]
        assert "A?" in whole[1]["content"]
    lacking = adapter.format(Reason, demos[1:], {"question": QUESTION})
    assert lacking[1]["content"].startswith("This is an example of the task, though some input or output fields")


def test_the_chat_form_shows_subquestions_as_text_wherever_they_stand() -> None:
    asked = Subquestions(["How many?", "And then?"])
    system, user = ChatAdapter().format(Solve, [], {"question": QUESTION, "subquestions": asked})
    assert "Subquestions" not in system["content"]
    assert "No decomposition" not in system["content"]
    assert "[[ ## subquestions ## ]]\n1. How many?\n2. And then?\n" in user["content"]


@pytest.mark.parametrize(
    "reply",
    [
        "1. 3 * 4 = 12\n2. 12 - 2 = 10\nAnswer: 10",
        "Steps:\n1. 3 * 4 = 12\n2. 12 - 2 = 10\n\n**Answer:** 10",
        "<think>\n\n</think>\n\n1. 3 * 4 = 12\n2. 12 - 2 = 10\nAnswer: 10",
    ],
)
def test_two_outputs_are_read(reply: str) -> None:
    values = CompactAdapter().parse(Solve, reply)
    assert values == {"sub_answers": "1. 3 * 4 = 12\n2. 12 - 2 = 10", "answer": "10"}


def test_the_last_label_counts() -> None:
    values = CompactAdapter().parse(Reason, "First I thought\nAnswer: 9\nbut no.\nAnswer: 10")
    assert values["answer"] == "10"
    assert "Answer: 9" in values["reasoning"]


def test_a_reply_without_an_answer_is_refused_and_says_what_is_missing() -> None:
    with pytest.raises(AdapterParseError, match="gives no answer in a known form"):
        CompactAdapter().parse(Solve, "1. 3 * 4 = 12")


@pytest.mark.parametrize("adapter", [CompactAdapter(), ChatAdapter()])
@pytest.mark.parametrize(
    ("signature", "reply"),
    [
        (Reason, "1. 3 * 4 = 12\n2. 12 - 2 = 10"),
        (Decompose, "[[ ## subquestions ## ]]\nThe bags are red."),
        (FollowUp, "<think>"),
    ],
)
def test_an_error_names_the_adapter_that_raised_it(
    adapter: dspy.Adapter, signature: type[dspy.Signature], reply: str
) -> None:
    with pytest.raises(AdapterParseError) as caught:
        adapter.parse(signature, reply)
    assert caught.value.adapter_name == type(adapter).__name__


def test_an_instruction_at_the_end_lets_both_roles_share_the_passage() -> None:
    adapter = CompactAdapter(instruction="last")
    asked = {"question": QUESTION, "context": PASSAGE}
    [split] = adapter.format(Decompose, [], asked)
    [solved] = adapter.format(Solve, [], {**asked, "subquestions": Subquestions(["How many has she?"])})
    shared = f"Passage: {PASSAGE}\nQuestion: {QUESTION}\n"
    assert split["content"] == shared + " ".join(Decompose.instructions.split())
    assert solved["content"].startswith(shared)
    assert solved["content"].endswith(" ".join(Solve.instructions.split()))
    demo = {"question": "Why?", "subquestions": Subquestions(["What is it?"])}
    with_demo = adapter.format(Decompose, [demo], asked)
    assert [m["role"] for m in with_demo] == ["user", "assistant", "user"]
    assert sum("Split the question" in m["content"] for m in with_demo) == 1
    row = adapter.format_finetune_data(Decompose, [], asked, {"subquestions": Subquestions(["What is it?"])})
    assert row["messages"][:-1] == [split]
    with pytest.raises(ValueError, match="Take 'first' or 'last'"):
        CompactAdapter(instruction="middle")
