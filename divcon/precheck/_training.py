"""What training will take: seconds a row, measured by three steps of the real base, or estimated from its size."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from divcon._watch import Silent
from divcon.benchmarks.tasks import LoadedTask
from divcon.distill import Base, Manifest, NothingToLearn, Provenance, Training, TrainSettings, train_adapter
from divcon.distill.serving.embedded import precision, speed
from divcon.pipeline import Run, weights_of
from divcon.programs import Item

# The steps that are trained, of which the first isn't counted, since it is slower; and the rows a step, at most.
STEPS, ROWS = 3, 4
_TOKENS_A_ROW = 256
_PASSES = 4  # operations for each weight and token: two forwards, two backwards, since the weights stay as they are
_REACHED = 0.5  # the share of the speed of a product of matrices that training reaches
_PATIENCE = 600.0  # seconds; steps that seem to take longer aren't trained

How = Literal["measured", "estimated"]


def seconds_a_row(run: Run, items: Sequence[Item], folder: Path) -> tuple[float, How]:
    """Seconds that training takes for each row and pass, and how that is known.

    A few steps are trained on the teacher's plans of some questions, which are in the run's store. Where nothing can be
    learnt from these, or the base is so large that the steps would take long, the time is estimated from its size.

    Args:
        run: The run whose teacher and base are used.
        items: The questions.
        folder: A folder for the rows and the adapter, which is removed in the end.

    Raises:
        TrainingError: The base can't be trained on the rows.
    """
    by_size = seconds_by_size(run.models.base, run.pipeline.train)
    if STEPS * ROWS * by_size > _PATIENCE:
        return by_size, "estimated"
    pipeline, settings = run.pipeline, run.pipeline.train
    screen = pipeline.screen.model_copy(update={"rule": "none"})
    method = settings.model_copy(update={"method": settings.methods[0]})
    small = pipeline.model_copy(update={"screen": screen, "train": method})
    shutil.rmtree(folder, ignore_errors=True)
    timed = Run(small, folder, Silent(), run.store, LoadedTask(list(items[: STEPS * ROWS]), []))
    timed.collect()
    try:
        [rows] = timed.export(timed.screen()).values()
    except NothingToLearn:
        return by_size, "estimated"
    batch = min(ROWS, settings.batch_size, rows.rows)
    steps = method.model_copy(update={"batch_size": batch})
    steps = steps.model_copy(update={"epochs": STEPS / steps.steps_a_pass(rows.rows)})
    at: list[float] = []
    train_adapter(
        Training(rows.file, run.models.base, folder / "adapter", steps),
        Provenance(),
        progress=lambda done, total, loss: at.append(time.perf_counter()),
    )
    shutil.rmtree(folder, ignore_errors=True)
    if len(at) < 2:  # rows that are too long are dropped when they are trained
        return by_size, "estimated"
    return (at[-1] - at[0]) / (batch * (len(at) - 1)), "measured"


def seconds_of(trained: Sequence[Manifest]) -> float:
    """Seconds that trainings took for each row and pass."""
    rows = sum(one.rows * one.settings["epochs"] for one in trained)
    return float(sum(one.result["seconds"] for one in trained) / rows)


def seconds_by_size(base: Base, settings: TrainSettings) -> float:
    """Seconds that training takes for each row and pass, from the size of the base and the speed of this machine."""
    fast = speed(precision(settings.precision))
    return _PASSES * weights_of(base) * _TOKENS_A_ROW / (_REACHED * fast.operations)
