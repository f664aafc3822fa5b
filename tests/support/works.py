"""What does jobs in a worker, without a run behind it: it answers, stores, fails or ends its process as it is told."""

import os
import signal
from collections.abc import Callable
from typing import Any

from dspy.utils.exceptions import LMRateLimitError

from divcon.distill import Job, RunStore, Trace
from divcon.distill.training import TrainingError


def keep(store: RunStore, key: str, text: str) -> None:
    """Keep a reply as an engine does."""
    response = {"text": text, "usage": {"input_tokens": 1, "output_tokens": 2}}
    store.keep_reply(
        key,
        role="teacher",
        station="collect",
        model="m",
        request={},
        rollout=0,
        response=response,
        seconds=0.1,
        cost=0.5,
    )


def make(arguments: dict[str, Any], store: RunStore) -> Callable[[Job], Trace]:
    """What does a job by what its question says."""

    def do(job: Job) -> Trace:
        said = job.item.question
        found = store.reply(f"{job.item.id}-1")
        keep(store, f"{job.item.id}-1", said)
        if said == "limited":
            raise LMRateLimitError("slow down", model="m", status=429, retry_after=7.0)
        if said == "refused":
            raise TrainingError("The row is empty.", "Export again.")
        if said == "ends" and found is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return Trace(job.item.id, job.sample, (said,), reply="there already" if found else "new")

    return do
