"""Preflight: rows become token ids before the first step, and what would train badly in silence is refused.

Rows are tokenized here rather than by TRL, so that a row's prompt has exactly the token ids that inference sends and
its last label is the token that ends a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from divcon.distill._control import without_control_tokens
from divcon.distill.training._errors import TrainingError, in_file
from divcon.distill.training._settings import TrainSettings

IGNORED = -100  # the label that cross-entropy skips


@dataclass(frozen=True)
class Preflight:
    """Tokenized rows and what was found while making them.

    Attributes:
        rows: One dict of token ids a row, as the method's trainer takes it. Of `preflight`: `input_ids` and `labels`,
            equally long.
        dropped_over_length: Rows longer than the limit that were left out.
        tokens: Tokens in all rows; `label_tokens` of them count in the loss.
    """

    rows: list[dict[str, list[int]]] = field(repr=False)
    dropped_over_length: int
    tokens: int
    label_tokens: int

    @property
    def longest(self) -> int:
        """The tokens of the longest sequence in a row."""
        return max(len(ids) for row in self.rows for ids in row.values())


def preflight(rows: Sequence[dict[str, Any]], tokenizer: Any, settings: TrainSettings) -> Preflight:
    """Tokenize rows of prompt and completion, with labels on the completion alone.

    Every row must begin with the ids that inference sends, hold at least one label, and end in an end-of-turn token
    that counts in the loss. No row is cut.

    Args:
        rows: As `read_rows` gives them.
        tokenizer: A transformers tokenizer with a chat template.

    Raises:
        TrainingError: The tokenizer has no chat template or end token, a row is empty, or (with `over_length: raise`)
            too long; or nothing is left.
    """
    require_usable(tokenizer)
    made: list[dict[str, list[int]]] = []
    for number, row in enumerate(rows, 1):
        prompt, reply = tokenized(row, tokenizer, number)
        made.append({"input_ids": prompt + reply, "labels": [IGNORED] * len(prompt) + reply})
    kept = within_length(made, [len(row["input_ids"]) for row in made], settings)
    return Preflight(
        rows=kept,
        dropped_over_length=len(made) - len(kept),
        tokens=sum(len(row["input_ids"]) for row in kept),
        label_tokens=sum(label != IGNORED for row in kept for label in row["labels"]),
    )


def within_length(
    rows: Sequence[dict[str, list[int]]], lengths: Sequence[int], settings: TrainSettings
) -> list[dict[str, list[int]]]:
    """The rows that are no longer than the settings allow.

    Args:
        rows: Tokenized.
        lengths: The tokens of each; of the longest sequence where a row holds several.
        settings: Say what happens to longer ones.

    Raises:
        TrainingError: A row is too long (with `over_length: raise`), or all are.
    """
    limit = settings.max_length
    over = [number for number, length in enumerate(lengths, 1) if length > limit]
    if over and settings.over_length == "raise":
        raise TrainingError(
            f"Training row {over[0]} has {lengths[over[0] - 1]} tokens, over max_length {limit}.",
            f"Raise {in_file('max_length')}, or set {in_file('over_length')} to drop.",
        )
    if len(over) == len(rows):
        raise TrainingError(
            f"All {len(rows)} training rows are longer than max_length {limit}.", f"Raise {in_file('max_length')}."
        )
    return [row for row, length in zip(rows, lengths, strict=True) if length <= limit]


def require_usable(tokenizer: Any) -> None:
    """Refuse a base that can't be trained to answer chats.

    Raises:
        TrainingError: Its tokenizer has no chat template or no end token.
    """
    if not tokenizer.chat_template:
        raise TrainingError("The base's tokenizer has no chat template.", "Use an instruction-tuned base.")
    if tokenizer.eos_token_id is None:
        raise TrainingError("The base's tokenizer has no end token.", "Use a base that can end its turn.")


def tokenized(row: dict[str, Any], tokenizer: Any, number: int) -> tuple[list[int], list[int]]:
    """The token ids of a row's prompt, up to where the reply begins, and of its reply, with the token that ends it.

    Args:
        row: With `prompt` and `completion`.
        tokenizer: See `preflight`.
        number: The row's, for messages.

    Raises:
        TrainingError: The completion is empty, or the prompt begins with two start tokens.
    """
    asked = without_control_tokens(row["prompt"], tokenizer)
    [said] = without_control_tokens(row["completion"][:1], tokenizer)
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    reply = tokenizer(said["content"], add_special_tokens=False)["input_ids"]
    if not reply:
        raise TrainingError(f"Training row {number} has an empty completion.", "Screen and export again.")
    bos = tokenizer.bos_token_id
    if bos is not None and bos != tokenizer.eos_token_id and prompt[:2] == [bos, bos]:
        raise TrainingError(f"Training row {number} begins with two start tokens.", "Check the chat template.")
    return prompt, [*reply, tokenizer.eos_token_id]
