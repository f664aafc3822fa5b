"""What a shell completes: names of stations, experiments, programs and questions, and run folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

_MOST = 200  # names that are offered at once


def named(names: Callable[[], list[str]]) -> Callable[[str], list[str]]:
    """A completion of names. Where they can't be found out, nothing is completed."""

    def complete(incomplete: str) -> list[str]:
        from divcon.signatures import DivconError

        try:
            return [name for name in names() if name.startswith(incomplete)][:_MOST]
        except (DivconError, OSError):
            return []

    return complete


def complete_question(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids of the questions of the run folder that stands before it."""
    from divcon.distill import items_of

    folder = ctx.params.get("folder")
    return named(lambda: items_of(Path(folder)) if folder else [])(incomplete)
