"""Export: kept traces as chat JSON Lines that TRL reads, with the counts behind them.

A row's prompt is what the student will be sent at inference, rendered by the predictor that will send it.
"""

from __future__ import annotations

from collections.abc import Sequence

from divcon.distill.screening import Screened
from divcon.distill.training import METHODS, Destination, Export, write_rows
from divcon.programs import Item, RolePredict
from divcon.signatures import DivconError


class NothingToLearn(DivconError):
    """A screen that kept no trace, or none that the training method can learn from."""


def export(decompose: RolePredict, screened: Screened, items: Sequence[Item], to: Destination) -> Export:
    """Write the training rows that a method makes of screened traces, and a manifest beside them.

    Args:
        decompose: The predictor the student will answer for; without demos, since the weights replace them.
        screened: What the rule kept.
        items: The items the traces belong to.
        to: Where to, for which student and method.

    Raises:
        NothingToLearn: Nothing was kept, or the method makes no row of it.
        UnknownName: There is no such method.
        StoreError: The files can't be written.
    """
    if not screened.kept:
        lost = ", ".join(f"{count} {reason}" for reason, count in sorted(screened.lost.items())) or "none collected"
        raise NothingToLearn(
            f"Of {screened.collected} traces the screen kept none ({lost}).",
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
