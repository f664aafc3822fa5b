"""Arms without a run behind them."""

from __future__ import annotations

from typing import Any

import dspy

from divcon.benchmarks import Arm
from divcon.benchmarks.arms import read_arm
from divcon.distill import Key


def arm_named(name: str, program: dspy.Module | None = None, label: str = "", **given: Any) -> Arm:
    """An arm as the table has it, with any program in it."""
    kind = read_arm(name)[0]
    return Arm(
        name,
        program or dspy.Module(),
        Key({"arm": name}),
        label or name.upper(),
        splits=kind.splits,
        choosable=kind.choosable,
        student=kind.student.name if kind.student else None,
        **given,
    )
