import json
import threading
from pathlib import Path

import pytest

from divcon.distill import (
    Base,
    ManifestError,
    TrainingError,
    TrainSettings,
    is_trained,
    prompt_hash,
    read_manifest,
    render_lines,
    train_adapter,
)
from divcon.distill._probe import read_probe
from divcon.distill._train import IGNORED, completion_loss, preflight, read_rows
from divcon.programs import RolePredict
from divcon.signatures import Decompose, Subquestions

pytestmark = pytest.mark.model


def rows(count: int = 12) -> list[dict]:
    decompose = RolePredict(Decompose, "decomposer")
    return [
        decompose.training_row(
            {"question": f"What is {i} plus {i + 1} after a walk of {'long ' * (i % 4)}hours?"},
            {"subquestions": Subquestions([f"What is {i}?", f"What is {i + 1} more?"])},
        )
        for i in range(count)
    ]


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text(render_lines(rows()), encoding="utf-8")
    return file


@pytest.fixture
def tokenizer(tiny_base: Base):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base.path)


def test_the_last_label_is_the_end_token_and_the_prompt_is_what_inference_sends(tokenizer) -> None:
    ready = preflight(rows(), tokenizer, TrainSettings())
    for row, source in zip(ready.rows, rows(), strict=True):
        prompt = tokenizer.apply_chat_template(source["prompt"], add_generation_prompt=True)["input_ids"]
        assert row["input_ids"][: len(prompt)] == prompt
        assert row["labels"][: len(prompt)] == [IGNORED] * len(prompt)
        assert row["labels"][-1] == row["input_ids"][-1] == tokenizer.eos_token_id
        learnt = [label for label in row["labels"] if label != IGNORED]
        assert tokenizer.decode(learnt[:-1]) == source["completion"][0]["content"]
    assert ready.label_tokens == sum(label != IGNORED for row in ready.rows for label in row["labels"])


def test_the_batches_that_the_trainer_sees_hold_these_labels(tiny_base: Base, tokenizer, tmp_path: Path) -> None:
    """pad is the end token in this tokenizer, and a collator that masks pads would unlearn how to stop."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM
    from trl import SFTConfig

    from divcon.distill._train import _trainer

    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    ready = preflight(rows(6), tokenizer, TrainSettings())
    arguments = SFTConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=6, use_cpu=True, bf16=True, report_to=[],
        max_length=None, dataloader_pin_memory=False,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(tiny_base.path)
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = _trainer(model, arguments, ready, tokenizer, lora, [], 1, None, threading.Event())
    batch = next(iter(trainer.get_train_dataloader()))
    found = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        length = int(mask.sum())
        found.append((ids[:length].tolist(), labels[:length].tolist()))
        assert labels[length - 1] == tokenizer.eos_token_id
        assert (labels[length:] == IGNORED).all()
    assert sorted(found) == sorted((row["input_ids"], row["labels"]) for row in ready.rows)
    assert not any("lm_head" in name for name, p in trainer.model.named_parameters() if p.requires_grad)


def test_nothing_over_length_is_cut(tokenizer) -> None:
    long = RolePredict(Decompose, "decomposer").training_row(
        {"question": "Q?", "context": "word " * 900}, {"subquestions": Subquestions(["What is it?"])}
    )
    mixed = [*rows(3), long]
    ready = preflight(mixed, tokenizer, TrainSettings(max_length=512))
    assert (len(ready.rows), ready.dropped_over_length) == (3, 1)
    with pytest.raises(TrainingError, match="row 4 has 9"):
        preflight(mixed, tokenizer, TrainSettings(max_length=512, over_length="raise"))
    with pytest.raises(TrainingError, match="All 1 training rows"):
        preflight([long], tokenizer, TrainSettings(max_length=512))


def test_a_row_without_labels_and_a_base_without_a_template_are_refused(tokenizer) -> None:
    empty = rows(1)
    empty[0]["completion"][0]["content"] = ""
    with pytest.raises(TrainingError, match="row 1 has an empty completion"):
        preflight(empty, tokenizer, TrainSettings())
    tokenizer.chat_template = None
    with pytest.raises(TrainingError, match="chat template"):
        preflight(rows(1), tokenizer, TrainSettings())


def test_two_start_tokens_are_refused(tokenizer) -> None:
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.chat_template = "{{ bos_token }}{{ bos_token }}" + tokenizer.chat_template
    with pytest.raises(TrainingError, match="two start tokens"):
        preflight(rows(1), tokenizer, TrainSettings())


def test_broken_and_missing_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="Run 'divcon export' first"):
        read_rows(tmp_path / "none.jsonl")
    (tmp_path / "a.jsonl").write_text('{"prompt": []}\n')
    with pytest.raises(TrainingError, match="Line 1 of"):
        read_rows(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(TrainingError, match="no training row"):
        read_rows(tmp_path / "b.jsonl")


def test_a_line_separator_in_a_row_does_not_split_it(tmp_path: Path) -> None:
    row = rows(1)[0]
    row["prompt"][1]["content"] += "\u2028more"
    (tmp_path / "a.jsonl").write_text(render_lines([row]), encoding="utf-8")
    assert read_rows(tmp_path / "a.jsonl") == [row]


def _trl_loss_and_gradients(model, batch) -> tuple[float, dict]:
    """The loss as TRL's own trainer computes it on the same model and batch."""
    from trl.trainer.utils import add_fused_lm_head

    inner = model.get_base_model()
    add_fused_lm_head(inner)
    model.zero_grad()
    loss = model(**batch, fused_lm_head=True).loss
    loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}


def test_our_loss_is_trls_loss_and_so_are_its_gradients(tiny_base: Base, tokenizer) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(tiny_base.path, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)  # zero at first, which would hide half of the gradients
    ready = preflight(rows(4), tokenizer, TrainSettings()).rows
    longest = max(len(row["input_ids"]) for row in ready)

    def padded(row: list[int], filler: int) -> list[int]:
        return row + [filler] * (longest - len(row))

    batch = {
        "input_ids": torch.tensor([padded(row["input_ids"], 0) for row in ready]),
        "attention_mask": torch.tensor([padded([1] * len(row["input_ids"]), 0) for row in ready]),
        "labels": torch.tensor([padded(row["labels"], IGNORED) for row in ready]),
    }
    loss = completion_loss(model, batch)
    loss.backward()
    ours = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
    theirs_loss, theirs = _trl_loss_and_gradients(model, batch)
    assert loss.item() == pytest.approx(theirs_loss, rel=1e-5)
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-6)


def test_training_changes_the_adapter_and_nothing_else_and_writes_a_whole_manifest(
    tiny_base: Base, rows_file: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    before = (tiny_base.path / "model.safetensors").read_bytes()
    seen: list[tuple[int, int, float]] = []
    manifest = train_adapter(
        rows_file, tiny_base, tmp_path / "adapter", TrainSettings(epochs=8, batch_size=4, learning_rate=0.02),
        student="sd-t", screening={"kept": 12}, scripted_teacher=True, progress=lambda *step: seen.append(step),
    )  # fmt: skip
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in name for name in weights)
    assert not any("lm_head" in name or "embed" in name for name in weights)
    assert all(weight.abs().sum() > 0 for name, weight in weights.items() if "lora_B" in name)
    assert (tiny_base.path / "model.safetensors").read_bytes() == before
    assert manifest.result["last_loss"] < manifest.result["first_loss"]
    assert manifest.result["steps"] == 24 == len(seen)
    assert manifest.prompt_hash == prompt_hash([row["prompt"] for row in rows()])
    assert (manifest.base["id"], manifest.rows, manifest.scripted_teacher) == ("tests/tiny-llama", 12, True)
    assert read_manifest(tmp_path / "adapter") == manifest
    assert not list(tmp_path.glob("adapter.*"))
    for file in (tmp_path / "adapter").iterdir():  # no path of this machine in it
        assert str(tiny_base.path).encode() not in file.read_bytes()


def test_precision_is_recorded_and_used_and_an_old_manifest_is_bfloat16(
    tiny_base: Base, rows_file: Path, tmp_path: Path
) -> None:
    made = {
        chosen: train_adapter(
            rows_file, tiny_base, tmp_path / chosen, TrainSettings(epochs=1, batch_size=6, precision=chosen)
        )
        for chosen in ("float32", "bfloat16")
    }
    assert {chosen: manifest.precision for chosen, manifest in made.items()} == {chosen: chosen for chosen in made}
    assert made["float32"].content_hash != made["bfloat16"].content_hash
    probes = [read_probe(tmp_path / chosen) for chosen in made]
    assert probes[0].base_logprob != probes[1].base_logprob
    assert probes[0].base_logprob == pytest.approx(probes[1].base_logprob, abs=0.5)
    file = tmp_path / "float32" / "manifest.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "precision"}))
    assert read_manifest(tmp_path / "float32").precision == "bfloat16"
    assert TrainSettings().deciding() == TrainSettings().model_dump(exclude={"precision"})
    assert TrainSettings(precision="float32").deciding()["precision"] == "float32"


def test_a_stopped_training_goes_on_from_its_checkpoint(tiny_base: Base, rows_file: Path, tmp_path: Path) -> None:
    settings = TrainSettings(epochs=8, batch_size=4, save_every=5)

    class Stop(Exception):
        pass

    def stop(done: int, total: int, loss: float) -> None:
        if done == 12:
            raise Stop

    with pytest.raises(Stop):
        train_adapter(rows_file, tiny_base, tmp_path / "adapter", settings, progress=stop)
    assert not is_trained(tmp_path / "adapter")
    seen: list[int] = []
    manifest = train_adapter(
        rows_file, tiny_base, tmp_path / "adapter", settings, progress=lambda done, *_: seen.append(done)
    )
    assert manifest.result["resumed_from"] == "checkpoint-10"
    assert seen == list(range(11, 25))


def test_checkpoints_of_other_rows_are_not_gone_on_from(tiny_base: Base, rows_file: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int, loss: float) -> None:
        if done == 6:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train_adapter(
            rows_file, tiny_base, tmp_path / "a", TrainSettings(epochs=8, batch_size=4, save_every=5), progress=stop
        )
    rows_file.write_text(render_lines(rows(8)), encoding="utf-8")
    manifest = train_adapter(rows_file, tiny_base, tmp_path / "a", TrainSettings(epochs=2, batch_size=4, save_every=5))
    assert manifest.result["resumed_from"] is None


def test_a_changed_adapter_is_not_what_its_manifest_describes(tiny_base: Base, rows_file: Path, tmp_path: Path) -> None:
    train_adapter(rows_file, tiny_base, tmp_path / "a", TrainSettings(epochs=1, batch_size=6))
    config = tmp_path / "a" / "adapter_config.json"
    changed = json.loads(config.read_text())
    changed["lora_alpha"] *= 2
    config.write_text(json.dumps(changed))
    with pytest.raises(ManifestError, match="isn't the one its manifest describes"):
        read_manifest(tmp_path / "a")
    (tmp_path / "a" / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ManifestError, match="pickle"):
        read_manifest(tmp_path / "a")
    with pytest.raises(ManifestError, match=r"no manifest\.json"):
        read_manifest(tmp_path)
