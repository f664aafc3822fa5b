"""The method `lora`: TRL's SFTTrainer with PEFT LoRA, on the kept traces, the loss on the completion alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from divcon.distill.training._methods import TrainerParts
from divcon.distill.training._preflight import IGNORED, Preflight, preflight
from divcon.distill.training._settings import TrainSettings
from divcon.signatures import Subquestions

if TYPE_CHECKING:
    from divcon.distill.screening import Screened
    from divcon.programs import Item, RolePredict


class LoRA:
    """See `divcon.distill.training.Method`."""

    suffix = ""

    def rows(self, role: RolePredict, screened: Screened, items: Sequence[Item]) -> list[dict[str, Any]]:
        """A row for every kept trace, in their order; two samples of an item with the same list are one row."""
        by_id = {item.id: item for item in items}
        distinct = dict.fromkeys((trace.item, trace.subquestions or ()) for trace in screened.kept)
        return [
            role.training_row(
                {"question": by_id[item].question, "context": by_id[item].context},
                {"subquestions": Subquestions(asked)},
            )
            for item, asked in distinct
        ]

    def prepare(self, rows: Sequence[dict[str, Any]], tokenizer: Any, settings: TrainSettings) -> Preflight:
        """See `preflight`."""
        return preflight(rows, tokenizer, settings)

    def trainer(self, parts: TrainerParts) -> Any:
        """TRL's trainer with the output layer applied where there is a label."""
        import datasets
        import torch
        from trl import SFTConfig, SFTTrainer

        class CompletionTrainer(SFTTrainer):
            """Without Triton, TRL 1.16 projects every position of a batch onto the vocabulary and masks afterwards.

            The embedded base has 49,152 words, and the prompt is most of a row. The loss is the same, which a test
            holds it to.
            """

            def compute_loss(
                self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
            ) -> Any:
                if torch.cuda.is_available() or return_outputs:
                    return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
                # Accelerate wraps autocast around `model.forward`, which is not what is called here.
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.args.bf16):
                    return completion_loss(model, inputs, num_items_in_batch)

        arguments = SFTConfig(
            **parts.arguments,
            max_length=None,  # rows were measured; nothing is cut
            packing=False,
            train_sampling_strategy="group_by_length",
        )
        return CompletionTrainer(
            model=parts.model,
            args=arguments,
            train_dataset=datasets.Dataset.from_list(parts.rows),
            processing_class=parts.tokenizer,
            peft_config=parts.lora,
            callbacks=parts.callbacks,
        )


LORA = LoRA()


def completion_loss(model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
    """Mean cross-entropy over the labelled positions of a batch, as SFTTrainer defines it.

    Args:
        model: A causal language model, wrapped by PEFT or not.
        inputs: `input_ids`, `attention_mask` and `labels`, each of shape (rows, tokens).
        num_items_in_batch: Labels in the whole step, where a step is several batches.

    Returns:
        A scalar tensor.
    """
    import torch

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    hidden = inner.base_model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    ).last_hidden_state
    labels = inputs["labels"][:, 1:]
    chosen = labels != IGNORED
    logits = inner.get_output_embeddings()(hidden[:, :-1][chosen]).float()
    total = torch.nn.functional.cross_entropy(logits, labels[chosen], reduction="sum")
    return total / (num_items_in_batch if num_items_in_batch is not None else chosen.sum())
