"""The model card, read back with the hub's own library."""

from huggingface_hub import ModelCard

from divcon.distill import Evaluated, Manifest, model_card, read_manifest
from divcon.distill._teacher import Author
from divcon.distill.serving.embedded import solver_adapter
from divcon.signatures import learn_secret


def planner(**given: object) -> Manifest:
    """The manifest of a shipped adapter, as if it were a planner's."""
    known = {
        "role": "decomposer",
        "student": "sd-r",
        "data": {"task": "gsm8k", "hub": "openai/gsm8k", "licence": "MIT"},
        "messages": [
            {"role": "system", "content": "Split the question.\n```\nWrite a list."},
            {"role": "user", "content": "Question: {question}"},
        ],
        "screening": {"collected": 200, "kept": 150, "lost": {"unsolved": 45, "cut_off": 5}},
        "teacher": Author(model="openai/gpt-4.1-mini"),
    }
    return read_manifest(solver_adapter()).model_copy(update={**known, **given})


def own(label: str = "SD-R") -> Evaluated:
    return Evaluated(label, 60, 40, 2, 0.6, (0.5, 0.7), own=True)


def test_the_hub_reads_its_metadata() -> None:
    data = ModelCard(model_card(planner(), [own()])).data
    assert data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert (data.library_name, data.pipeline_tag, data.datasets) == ("peft", "text-generation", ["openai/gsm8k"])
    assert {"divcon", "dspy", "lora", "decomposer"} <= set(data.tags)
    [found] = data.eval_results
    assert (found.dataset_type, found.metric_type, found.metric_value) == ("openai/gsm8k", "accuracy", 0.6)


def test_it_says_what_the_adapter_learnt_from_and_how_it_did() -> None:
    card = model_card(
        planner(), [Evaluated("CoT", 50, 50, 0, 0.5, (0.4, 0.6)), own(), Evaluated("T", 1, 0, 9, None, None)]
    )
    for part in (
        "Questions: `openai/gsm8k`, licence MIT.",
        "Rows: 3,200",
        "150 of 200 plans were kept (5 cut_off, 45 unsolved lost)",
        "Teacher: `openai/gpt-4.1-mini`.",
        "    Split the question.\n    ```\n    Write a list.",
        "    Question: {question}",
        "| CoT | 50.0 % (40.0 to 60.0) | 50 / 50 / 0 |",
        "| SD-R (this adapter) | 60.0 % (50.0 to 70.0) | 60 / 40 / 2 |",
        "| T | no score, too many failed |",
        "rank 8",
        "200 steps",
        "## Limits",
    ):
        assert part in card


def test_a_scripted_teacher_and_what_is_unknown_are_named_so() -> None:
    card = model_card(planner(teacher=Author(model="scripted/references", kind="scripted"), data={}, messages=[]))
    assert card.count("The teacher is scripted") == 2  # on top, and with the data
    assert "Prompt\n\nNot recorded" in card
    assert "No results yet" in card
    assert "datasets" not in card.partition("\n---\n")[0]
    assert "Teacher: not recorded." in model_card(planner(teacher=None))


def test_a_base_that_is_a_folder_is_no_model_of_a_hub() -> None:
    data = ModelCard(model_card(planner(base={"id": "my-llama", "revision": "r", "dtype": "auto"}))).data
    assert data.base_model is None


def test_labels_of_others_do_not_break_the_table_and_keys_are_masked() -> None:
    learn_secret("a-key-that-stands-in-a-label")
    card = model_card(planner(), [own("a | b\n# c"), own("a-key-that-stands-in-a-label")])
    assert "| a \\| b # c (this adapter) |" in card
    assert "a-key-that-stands" not in card
