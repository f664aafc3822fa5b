"""Collect: ask the teacher for decompositions, many at a time, and keep every reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dspy.utils.exceptions import AdapterParseError

from divcon.distill._booking import at_station
from divcon.distill._jobs import Job, Place, Progress, Tally, here, run_jobs
from divcon.distill._store import RunStore, Trace
from divcon.programs import Item, RolePredict, why_refused
from divcon.signatures import masked


@dataclass(frozen=True)
class Collected:
    """The result of a collection.

    Attributes:
        asked: Samples asked for, in this run or an earlier one.
        failed: Samples that got no reply; the next run asks for them again.
        first_error: The message of the first failure.
    """

    asked: int
    failed: int
    first_error: str | None = None


def collecting(decompose: RolePredict, samples: int, temperature: float | None) -> Callable[[Job], Trace]:
    """The function that does one collection job: it asks the teacher and returns the trace."""

    def ask(job: Job) -> Trace:
        item = job.item
        config: dict[str, Any] = {"rollout_id": job.sample} if samples > 1 else {}
        if samples > 1 and temperature is not None:
            config["temperature"] = temperature
        try:
            prediction = decompose(question=item.question, context=item.context, config=config)
        except AdapterParseError as error:
            detail = masked(str(error))[:500]
            return Trace(item.id, job.sample, None, lost=why_refused(error), detail=detail, reply=error.lm_response)
        asked = tuple(prediction.subquestions)
        return Trace(item.id, job.sample, asked, reply=prediction.subquestions.render())

    return ask


def collect(
    decompose: RolePredict,
    items: Sequence[Item],
    store: RunStore,
    key: str,
    *,
    samples: int = 1,
    temperature: float | None = 0.7,
    concurrency: int = 16,
    progress: Progress | None = None,
    place: Place = here,
) -> Collected:
    """Ask for `samples` decompositions of every item, and store each as a trace.

    A trace that is in the store is not asked for again. A reply that can't be used is stored as a trace with the
    reason. A failed call stores nothing, so the next run repeats it.

    Args:
        decompose: The teacher's predictor, bound to the teacher's LM.
        items: The training questions.
        store: The store that keeps the traces.
        key: The key that traces are stored under; another teacher or prompt needs another key.
        samples: Decompositions per item.
        temperature: The sampling temperature, used for several samples only; None leaves it to the LM.
        concurrency: Calls at a time.
        progress: Gets the number of samples that are done, and the total.
        place: Where the jobs are done.

    Raises:
        RoleWithoutEndpoint: The predictor has no LM.
        NotAnEndpoint: It has something that is no LM.
        dspy.LMError: The teacher refuses the key or can't be reached.
    """
    decompose.require_endpoint()
    there = store.trace_keys(key)
    wanted = [Job("collect", item, n, position=at) for at, item in enumerate(items) for n in range(samples)]
    jobs = [job for job in wanted if (job.item.id, job.sample) not in there]
    tally: Tally = Tally(len(wanted), done=len(wanted) - len(jobs))
    if progress:
        progress(tally.done, tally.total)

    def keep(job: Job, trace: Trace) -> None:
        store.keep_trace(key, job.position, trace)

    with at_station("collect"):
        ask = place(collecting(decompose, samples, temperature))
        run_jobs(ask, jobs, concurrency, keep, tally=tally, progress=progress)
    return Collected(asked=len(wanted), failed=tally.failed, first_error=tally.said)
