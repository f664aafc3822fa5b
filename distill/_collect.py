"""Collect: ask the teacher for decompositions, many at a time, and keep every reply."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dspy.utils.exceptions import AdapterParseError

from divcon.distill._engine import at_station
from divcon.distill._overlap import overlapped
from divcon.distill._store import RunStore, Trace
from divcon.programs import Item, ReplyCutOff, RolePredict, why_refused

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Collected:
    """What a collection holds.

    Attributes:
        asked: Samples asked for, in this run or an earlier one.
        failed: Samples that got no reply, with the first error's text; they are asked again next time.
    """

    asked: int
    failed: int
    first_error: str | None = None


def collect(
    decompose: RolePredict,
    items: Sequence[Item],
    store: RunStore,
    collection: str,
    *,
    samples: int = 1,
    temperature: float | None = 0.7,
    concurrency: int = 16,
    progress: Progress | None = None,
) -> Collected:
    """Ask for `samples` decompositions of every item, and store each as a trace.

    A trace that is in the store is not asked for again. A reply that can't be used is a trace too, with the reason;
    a call that failed is not, so the next run repeats it.

    Args:
        decompose: The teacher's predictor, bound to the teacher's LM.
        items: The training questions.
        store: Where traces go.
        collection: The name traces are stored under; another teacher or prompt needs another name.
        samples: Decompositions an item.
        temperature: Where there are several samples; None leaves it to the LM.
        concurrency: Calls at a time.
        progress: Called with (done, in all).

    Raises:
        dspy.LMError: The teacher refuses the key or can't be reached.
    """
    there = store.trace_keys(collection)
    wanted = [(position, item, sample) for position, item in enumerate(items) for sample in range(samples)]
    missing = [job for job in wanted if (job[1].id, job[2]) not in there]
    done, failed, first_error = len(wanted) - len(missing), 0, None
    if progress:
        progress(done, len(wanted))

    def ask(job: tuple[int, Item, int]) -> Trace:
        _, item, sample = job
        config: dict[str, Any] = {"rollout_id": sample} if samples > 1 else {}
        if samples > 1 and temperature is not None:
            config["temperature"] = temperature
        try:
            prediction = decompose(question=item.question, context=item.context, config=config)
        except AdapterParseError as error:
            reason = "cut_off" if isinstance(error, ReplyCutOff) else why_refused(error)
            return Trace(item.id, sample, None, lost=reason, detail=str(error)[:500], reply=error.lm_response)
        asked = tuple(prediction.subquestions)
        return Trace(item.id, sample, asked, reply=prediction.subquestions.render())

    with at_station("collect"):
        for (position, _, _), trace, error in overlapped(ask, missing, concurrency):
            if trace is None:
                failed += 1
                first_error = first_error or f"{type(error).__name__}: {error}"
            else:
                store.keep_trace(collection, position, trace)
            done += 1
            if progress:
                progress(done, len(wanted))
    return Collected(asked=len(wanted), failed=failed, first_error=first_error)
