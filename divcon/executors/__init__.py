"""Where jobs are done (being built)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from divcon.distill import Place, here

Placing = Callable[[Any], Place]


def placing_of(pipeline: Any) -> Placing:
    """How the jobs of a pipeline are placed."""
    return lambda context: here
