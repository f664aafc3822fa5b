from pathlib import Path

import pytest
from support.training_rows import training_rows

from divcon.distill import Base, TrainSettings
from divcon.distill.training import METHODS, TrainerParts, preflight
from divcon.distill.training._lora import completion_loss
from divcon.distill.training._preflight import IGNORED

pytestmark = pytest.mark.model


def test_the_batches_that_the_trainer_sees_hold_these_labels(tiny_base: Base, tokenizer, tmp_path: Path) -> None:
    """pad is the end token in this tokenizer, and a collator that masks pads would unlearn how to stop."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    ready = preflight(training_rows(6), tokenizer, TrainSettings())
    arguments = {
        "output_dir": str(tmp_path),
        "max_steps": 1,
        "per_device_train_batch_size": 6,
        "use_cpu": True,
        "bf16": True,
        "report_to": [],
        "dataloader_pin_memory": False,
    }
    model = AutoModelForCausalLM.from_pretrained(tiny_base.path)
    lora = LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    trainer = METHODS["lora"].trainer(TrainerParts(model, lora, tokenizer, ready.rows, arguments, []))
    batch = next(iter(trainer.get_train_dataloader()))
    found = []
    for ids, mask, labels in zip(batch["input_ids"], batch["attention_mask"], batch["labels"], strict=True):
        length = int(mask.sum())
        found.append((ids[:length].tolist(), labels[:length].tolist()))
        assert labels[length - 1] == tokenizer.eos_token_id
        assert (labels[length:] == IGNORED).all()
    assert sorted(found) == sorted((row["input_ids"], row["labels"]) for row in ready.rows)
    assert not any("lm_head" in name for name, p in trainer.model.named_parameters() if p.requires_grad)


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
    ready = preflight(training_rows(4), tokenizer, TrainSettings()).rows
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
