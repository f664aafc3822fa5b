"""vLLM as the table of engines has it, and its served model by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from divcon.distill.serving import AdapterMode
from divcon.distill.serving.embedded import Base, WantedPrecision
from divcon.distill.serving.server import ServedModel, ServerEngine
from divcon.distill.serving.vllm._software import VLLM, ServerSettings

ENGINE = ServerEngine(VLLM())


class VLLMModel(ServedModel):
    """A base, and any number of its adapters, served by vLLM; see `ServedModel`.

    Args:
        base: The base model.
        settings: The server to start, or the running one to use.
        adapter: `auto`, `lora` or `merged`.
        precision: What a server of ours computes in.
        log: Where a server's output goes.
        told: Told in one line what happens.
    """

    def __init__(
        self,
        base: Base,
        settings: ServerSettings | None = None,
        *,
        adapter: AdapterMode = "auto",
        precision: WantedPrecision = "auto",
        log: Path | None = None,
        told: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(ENGINE.software, base, settings, adapter=adapter, precision=precision, log=log, told=told)
