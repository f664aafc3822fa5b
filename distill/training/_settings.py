"""The settings of a training, and which of them decide what comes out."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from divcon.distill._table import Choices
from divcon.distill.serving.embedded import WantedPrecision
from divcon.distill.training._errors import TrainingError, in_file
from divcon.distill.training._methods import METHODS

FORM_STEPS = 24
"""With fewer steps, a student rarely learns the form of a plan, so that its replies can't be read."""

MethodName = Annotated[str, Choices(lambda: METHODS.own)]


class TrainSettings(BaseModel):
    """How an adapter is trained.

    Attributes:
        method: A training method, or several, each of which trains a student of its own.
        rank: The rank of LoRA.
        alpha: LoRA's scale; twice the rank by default.
        epochs: Passes over the rows.
        batch_size: The number of rows in a step.
        learning_rate: The highest learning rate. It rises over the first 5 % of the steps and then falls to zero.
        max_length: The longest row in tokens.
        over_length: What happens to longer rows: `drop` leaves them out and counts them, `raise` ends the training. No
            row is cut.
        save_every: Steps between checkpoints.
        seed: Seeds the adapter's first weights and the order of the rows.
        precision: The precision of the computation. `auto` is bfloat16 where the processor is fast at it, else float32.
    """

    model_config = ConfigDict(extra="forbid")

    method: MethodName | list[MethodName] = "lora"
    rank: int = Field(8, ge=1, le=256)
    alpha: int | None = Field(None, ge=1)
    epochs: float = Field(2.0, gt=0, le=1000, allow_inf_nan=False)
    batch_size: int = Field(16, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
    max_length: int = Field(1024, ge=16)
    over_length: Literal["drop", "raise"] = "drop"
    save_every: int = Field(10, ge=1)
    seed: int = 0
    precision: WantedPrecision = "auto"

    @field_validator("method")
    @classmethod
    def _of_the_table(cls, given: str | list[str]) -> str | list[str]:
        names = [given] if isinstance(given, str) else given
        if not names:
            raise ValueError("it names no training method")
        if len(set(names)) < len(names):
            raise ValueError("it names a training method twice")
        known = [METHODS.known(name) for name in names]
        return known if len(known) > 1 else known[0]

    def steps_a_pass(self, rows: int) -> int:
        """The number of steps that one pass over so many rows takes. The last one may have fewer rows."""
        return math.ceil(rows / self.batch_size)

    def steps(self, rows: int) -> int:
        """The number of steps that a training on so many rows takes."""
        return max(1, math.ceil(round(self.epochs * self.steps_a_pass(rows), 6)))

    @property
    def methods(self) -> list[str]:
        """The methods, each of which trains an adapter."""
        return [self.method] if isinstance(self.method, str) else self.method

    def with_method(self, method: str) -> TrainSettings:
        """The same settings for the adapter that one of the methods trains."""
        return self.model_copy(update={"method": method})

    @property
    def only_method(self) -> str:
        """The method of a single adapter.

        Raises:
            TrainingError: The settings name several.
        """
        if isinstance(self.method, str):
            return self.method
        raise TrainingError(
            f"An adapter is trained by one method, and the settings name {', '.join(self.method)}.",
            f"Name one as {in_file('method')}, or train an adapter with each: settings.with_method(name).",
        )

    def deciding(self) -> dict[str, Any]:
        """What of them decides the adapter, for a key; without a precision that wasn't chosen."""
        return self.model_dump(exclude={"precision"} if self.precision == "auto" else None)
