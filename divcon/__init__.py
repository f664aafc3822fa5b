"""Distil the planning half of a two-stage DSPy program into a small local model.

Names are loaded on first use, so that `import divcon` is fast: it imports neither DSPy nor torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from divcon.config import Pipeline, load_pipeline
    from divcon.distill import (
        DecompositionMetric,
        DistillDecomposer,
        EmbeddedProvider,
        TrainSettings,
        bind_adapter,
        embedded_lm,
    )
    from divcon.distill._vllm_provider import VLLMProvider, vllm_lm
    from divcon.distill.serving.vllm import ServerSettings
    from divcon.pipeline import Run
    from divcon.programs import (
        LEARNT,
        ChainOfThought,
        ChatAdapter,
        CompactAdapter,
        Direct,
        DivideAndConquer,
        FieldListener,
        Item,
        Ledger,
        OneRole,
        RolePredict,
        SelfAsk,
        Wording,
        as_tool,
        bind,
    )
    from divcon.signatures import Decompose, DivconError, Solve, SolveStep, Subquestions, read_answer

__version__ = "0.1.0"

_WHERE = {
    "Pipeline": "config",
    "load_pipeline": "config",
    "Run": "pipeline",
    "DecompositionMetric": "distill",
    "DistillDecomposer": "distill",
    "EmbeddedProvider": "distill",
    "TrainSettings": "distill",
    "bind_adapter": "distill",
    "embedded_lm": "distill",
    "ServerSettings": "distill.serving.vllm",
    "VLLMProvider": "distill._vllm_provider",
    "vllm_lm": "distill._vllm_provider",
    "LEARNT": "programs",
    "Wording": "programs",
    "ChainOfThought": "programs",
    "ChatAdapter": "programs",
    "CompactAdapter": "programs",
    "Direct": "programs",
    "DivideAndConquer": "programs",
    "FieldListener": "programs",
    "Item": "programs",
    "Ledger": "programs",
    "OneRole": "programs",
    "RolePredict": "programs",
    "SelfAsk": "programs",
    "as_tool": "programs",
    "bind": "programs",
    "Decompose": "signatures",
    "DivconError": "signatures",
    "Solve": "signatures",
    "SolveStep": "signatures",
    "Subquestions": "signatures",
    "read_answer": "signatures",
}
__all__ = [
    "LEARNT",
    "ChainOfThought",
    "ChatAdapter",
    "CompactAdapter",
    "Decompose",
    "DecompositionMetric",
    "Direct",
    "DistillDecomposer",
    "DivconError",
    "DivideAndConquer",
    "EmbeddedProvider",
    "FieldListener",
    "Item",
    "Ledger",
    "OneRole",
    "Pipeline",
    "RolePredict",
    "Run",
    "SelfAsk",
    "ServerSettings",
    "Solve",
    "SolveStep",
    "Subquestions",
    "TrainSettings",
    "VLLMProvider",
    "Wording",
    "__version__",
    "as_tool",
    "bind",
    "bind_adapter",
    "embedded_lm",
    "load_pipeline",
    "read_answer",
    "vllm_lm",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"divcon.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'divcon' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})
