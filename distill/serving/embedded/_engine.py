"""The embedded engine, as the table of engines has it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from divcon.distill.serving._engine import Finding, ServingOptions
from divcon.distill.serving._settings import AnyServerSettings
from divcon.distill.serving.embedded._base import Base
from divcon.distill.serving.embedded._model import EmbeddedModel, shared_model


class Embedded:
    """Serves in this process; see `Engine`."""

    name = "embedded"
    where = "in this process"
    settings = AnyServerSettings
    takes: frozenset[str] = frozenset()

    def serves(self, base: Base, options: ServingOptions) -> EmbeddedModel:
        """The one model of this process for a base and a precision."""
        return shared_model(base, options.precision)

    def examine(self, settings: AnyServerSettings | None) -> Iterator[Finding]:
        """Nothing: all it needs is the base and torch, which is looked at in any case."""
        yield from ()

    def check_adapter(self, folder: Path, base: Base) -> None:
        """Nothing: it serves whatever PEFT merges."""


ENGINE = Embedded()
