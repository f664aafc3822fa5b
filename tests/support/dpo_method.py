"""A training method of another package: Direct Preference Optimization, with TRL's DPOTrainer on LoRA.

The package makes it known by an entry point of the group `divcon.methods`: `dpo = dpo_method:DPO`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from divcon.distill.training import (
    Preflight,
    TrainerParts,
    TrainingError,
    TrainSettings,
    require_usable,
    tokenized,
    within_length,
)
from divcon.signatures import Subquestions


class DPOMethod:
    """Prefers a kept list to every rejected one of the same question; the reference is the base without adapter."""

    suffix = "-dpo"

    def rows(self, role: Any, screened: Any, items: Sequence[Any]) -> list[dict[str, Any]]:
        by_id = {item.id: item for item in items}
        pairs = dict.fromkeys(
            (good.item, good.subquestions, bad.subquestions)
            for good in screened.kept
            for bad in screened.rejected
            if bad.item == good.item and bad.subquestions and bad.subquestions != good.subquestions
        )

        def row(item: Any, asked: tuple[str, ...]) -> dict[str, Any]:
            inputs = {"question": item.question, "context": item.context}
            return role.training_row(inputs, {"subquestions": Subquestions(asked)})

        return [
            {**row(by_id[item], good or ()), "rejected": row(by_id[item], bad)["completion"]}
            for item, good, bad in pairs
        ]

    def prepare(self, rows: Sequence[dict[str, Any]], tokenizer: Any, settings: TrainSettings) -> Preflight:
        require_usable(tokenizer)
        made = []
        for number, row in enumerate(rows, 1):
            if "rejected" not in row:
                raise TrainingError(f"Training row {number} has no rejected reply.", "Export again for the method dpo.")
            prompt, chosen = tokenized(row, tokenizer, number)
            _, rejected = tokenized({**row, "completion": row["rejected"]}, tokenizer, number)
            made.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
        longest = [len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"])) for row in made]
        kept = within_length(made, longest, settings)
        labels = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in kept)
        prompts = sum(2 * len(row["prompt_ids"]) for row in kept)
        return Preflight(kept, len(made) - len(kept), tokens=prompts + labels, label_tokens=labels)

    def trainer(self, parts: TrainerParts) -> Any:
        from datasets import Dataset
        from trl import DPOConfig, DPOTrainer

        class Tokenized(DPOTrainer):
            def _prepare_dataset(self, dataset: Any, *more: Any) -> Any:
                return dataset  # `prepare` has made the token ids

        return Tokenized(
            model=parts.model, args=DPOConfig(**parts.arguments, max_length=None), processing_class=parts.tokenizer,
            train_dataset=Dataset.from_list(parts.rows), peft_config=parts.lora, callbacks=parts.callbacks,
        )  # fmt: skip


DPO = DPOMethod()
