import pytest
from support.training_rows import training_rows

from divcon.distill import TrainingError, TrainSettings
from divcon.distill.training import preflight
from divcon.distill.training._preflight import IGNORED
from divcon.programs import RolePredict
from divcon.signatures import Decompose, Subquestions

pytestmark = pytest.mark.model


def test_the_last_label_is_the_end_token_and_the_prompt_is_what_inference_sends(tokenizer) -> None:
    ready = preflight(training_rows(), tokenizer, TrainSettings())
    for row, source in zip(ready.rows, training_rows(), strict=True):
        prompt = tokenizer.apply_chat_template(source["prompt"], add_generation_prompt=True)["input_ids"]
        assert row["input_ids"][: len(prompt)] == prompt
        assert row["labels"][: len(prompt)] == [IGNORED] * len(prompt)
        assert row["labels"][-1] == row["input_ids"][-1] == tokenizer.eos_token_id
        learnt = [label for label in row["labels"] if label != IGNORED]
        assert tokenizer.decode(learnt[:-1]) == source["completion"][0]["content"]
    assert ready.label_tokens == sum(label != IGNORED for row in ready.rows for label in row["labels"])


def test_nothing_over_length_is_cut(tokenizer) -> None:
    long = RolePredict(Decompose, "decomposer").training_row(
        {"question": "Q?", "context": "word " * 900}, {"subquestions": Subquestions(["What is it?"])}
    )
    mixed = [*training_rows(3), long]
    ready = preflight(mixed, tokenizer, TrainSettings(max_length=512))
    assert (len(ready.rows), ready.dropped_over_length) == (3, 1)
    with pytest.raises(TrainingError, match="row 4 has 9"):
        preflight(mixed, tokenizer, TrainSettings(max_length=512, over_length="raise"))
    with pytest.raises(TrainingError, match="All 1 training rows"):
        preflight([long], tokenizer, TrainSettings(max_length=512))


def test_a_row_without_labels_and_a_base_without_a_template_are_refused(tokenizer) -> None:
    empty = training_rows(1)
    empty[0]["completion"][0]["content"] = ""
    with pytest.raises(TrainingError, match="row 1 has an empty completion"):
        preflight(empty, tokenizer, TrainSettings())
    tokenizer.chat_template = None
    with pytest.raises(TrainingError, match="chat template"):
        preflight(training_rows(1), tokenizer, TrainSettings())


def test_two_start_tokens_are_refused(tokenizer) -> None:
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = "{{ bos_token }}{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(TrainingError, match="two start tokens"):
        preflight(training_rows(1), tokenizer, TrainSettings())
