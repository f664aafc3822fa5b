"""Methods: the ways to train an adapter by name, ours and what installed packages add.

A method is one object in one file. It says which rows it learns from, makes token ids of them and gives the trainer;
the thread, checkpoints, manifest and probe around it are the same for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from divcon.distill._table import Table

if TYPE_CHECKING:
    from divcon.distill.screening import Screened
    from divcon.distill.training._preflight import Preflight
    from divcon.distill.training._settings import TrainSettings
    from divcon.programs import Item, RolePredict


@dataclass(frozen=True)
class TrainerParts:
    """What a method makes its trainer of.

    Attributes:
        model: The base; with an adapter on it where the training goes on from one.
        lora: PEFT's configuration of the new adapter; None where the model has one.
        tokenizer: The base's.
        rows: As the method's `prepare` made them.
        arguments: What `transformers.TrainingArguments` takes, and every class that derives from it.
        callbacks: They count the steps, end the training when it is told to stop, and note when it saves.
    """

    model: Any
    lora: Any
    tokenizer: Any
    rows: list[dict[str, list[int]]]
    arguments: dict[str, Any]
    callbacks: list[Any]


class Method(Protocol):
    """A way to train an adapter.

    Attributes:
        suffix: What the name of its students ends with; empty for `lora`.
    """

    suffix: str

    def rows(self, role: RolePredict, screened: Screened, items: Sequence[Item]) -> list[dict[str, Any]]:
        """The training rows that are exported.

        Args:
            role: The predictor the student will answer for; it renders the rows.
            screened: What the screening rule kept and rejected.
            items: The items the traces belong to.

        Returns:
            One dict a row, with `prompt` and `completion` (the good reply), each a list of chat messages, and what the
            method needs besides. None where nothing can be learnt.
        """
        ...

    def prepare(self, rows: Sequence[dict[str, Any]], tokenizer: Any, settings: TrainSettings) -> Preflight:
        """Tokenize rows as they were exported; see `preflight`.

        Raises:
            TrainingError: They can't be trained on.
        """
        ...

    def trainer(self, parts: TrainerParts) -> Any:
        """A `transformers.Trainer` of these parts, before its first step."""
        ...


METHODS: Table[Method] = Table(
    "training method",
    "divcon.methods",
    {"lora": "divcon.distill.training._lora:LORA"},
    needs=("suffix", "rows", "prepare", "trainer"),
)
