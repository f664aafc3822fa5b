"""Distil the planning half of a two-stage DSPy program into a small local model.

Names are loaded on first use, so that `import divcon` costs nothing: neither DSPy nor torch is imported by it.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from divcon._config import Pipeline, load_pipeline
    from divcon._pipeline import Run
    from divcon.programs import (
        ChainOfThought,
        ChatAdapter,
        CompactAdapter,
        Direct,
        DivideAndConquer,
        Item,
        Ledger,
        RolePredict,
    )
    from divcon.signatures import Decompose, DivconError, Solve, SolveStep, Subquestions

__version__ = "0.1.0"

# Python started in the repository's root finds this folder before the installed package; the rooms stand beside it.
_checkout = Path(__file__).parent.parent
if (_checkout / "pyproject.toml").is_file():
    __path__.append(str(_checkout))

_WHERE = {
    "Pipeline": "_config",
    "load_pipeline": "_config",
    "Run": "_pipeline",
    "ChainOfThought": "programs",
    "ChatAdapter": "programs",
    "CompactAdapter": "programs",
    "Direct": "programs",
    "DivideAndConquer": "programs",
    "Item": "programs",
    "Ledger": "programs",
    "RolePredict": "programs",
    "Decompose": "signatures",
    "DivconError": "signatures",
    "Solve": "signatures",
    "SolveStep": "signatures",
    "Subquestions": "signatures",
}
__all__ = [
    "ChainOfThought",
    "ChatAdapter",
    "CompactAdapter",
    "Decompose",
    "Direct",
    "DivconError",
    "DivideAndConquer",
    "Item",
    "Ledger",
    "Pipeline",
    "RolePredict",
    "Run",
    "Solve",
    "SolveStep",
    "Subquestions",
    "__version__",
    "load_pipeline",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"divcon.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'divcon' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
