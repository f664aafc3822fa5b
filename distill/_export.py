"""Export: write kept traces as chat JSON Lines that TRL reads, with the counts of the screening.

A row's prompt is the prompt that the student will get at inference, rendered by the same predictor.
"""

from __future__ import annotations

from collections.abc import Sequence

from divcon.distill.screening import Screened
from divcon.distill.training import METHODS, Destination, Export, write_rows
from divcon.programs import Item, RolePredict
from divcon.signatures import DivconError


class NothingToLearn(DivconError):
    """The screen kept no trace, or no trace that the training method can learn from."""


def export(decompose: RolePredict, screened: Screened, items: Sequence[Item], to: Destination) -> Export:
    """Write the training rows that a method makes of screened traces, and a manifest beside them.

    Args:
        decompose: The predictor that the student will answer, without demos, since the weights replace them.
        screened: The traces that the rule kept.
        items: The items that the traces belong to.
        to: The files, student and training method to export for.

    Raises:
        NothingToLearn: No trace was kept, or the method makes no row of those that were.
        UnknownName: There is no such method.
        StoreError: The files can't be written.
    """
    if not screened.kept:
        lost = ", ".join(f"{count} {reason}" for reason, count in sorted(screened.lost.items())) or "none collected"
        raise NothingToLearn(
            f"The screen kept none of {screened.collected} traces ({lost}).",
            "Collect more, check the solver on a few items, or take the rule none (screen.rule in a pipeline file).",
        )
    rows = METHODS[to.method].rows(decompose, screened, items)
    if not rows:
        raise NothingToLearn(
            f"The method {to.method} finds nothing to learn in {screened.collected} traces, "
            f"of which the screen kept {len(screened.kept)}.",
            "Collect several samples a question, or take another method.",
        )
    return write_rows(rows, decompose, to, screened.counts())
