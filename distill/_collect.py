"""Collect: ask the teacher for decompositions, many at a time, and keep every reply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dspy.utils.exceptions import AdapterParseError

from divcon.distill._booking import at_station
from divcon.distill._jobs import Job, Place, Progress, Tally, here, run_jobs
from divcon.distill._store import RunStore
from divcon.distill._stored import Trace
from divcon.distill._teacher import RECORDED_MODELS
from divcon.programs import Item, RolePredict, why_refused
from divcon.signatures import FatalError, masked

_UNREADABLE_LIMIT = 10
"""A teacher is given up after so many replies that can't be read, where none could."""
_QUOTED = 300  # characters


class UnreadablePlans(FatalError):
    """None of the teacher's first replies can be read as a plan."""


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
        samples: Decompositions per item; fewer where a recorded teacher has fewer plans of it.
        temperature: The sampling temperature, used for several samples only; None leaves it to the LM.
        concurrency: Calls at a time.
        progress: Gets the number of samples that are done, and the total.
        place: Where the jobs are done.

    Raises:
        RoleWithoutEndpoint: The predictor has no LM.
        NotAnEndpoint: It has something that is no LM.
        dspy.LMError: The teacher refuses the key or can't be reached.
        UnreadablePlans: The first ten replies can't be read, those of earlier runs included. They are kept.
    """
    decompose.require_endpoint()
    there = store.trace_keys(key)
    wanted = [Job("collect", item, n, position=at) for at, item in enumerate(items) for n in range(item.plans(samples))]
    jobs = [job for job in wanted if (job.item.id, job.sample) not in there]
    tally: Tally = Tally(len(wanted), done=len(wanted) - len(jobs))
    if progress:
        progress(tally.done, tally.total)

    recorded = str(getattr(decompose.lm, "model", "")).startswith(RECORDED_MODELS)
    first = _First(store.traces(key), recorded)
    if jobs and (error := first.unreadable()) is not None:
        raise error

    def keep(job: Job, trace: Trace) -> None:
        store.keep_trace(key, job.position, trace)
        first.add(trace)

    with at_station("collect"):
        ask = place(collecting(decompose, samples, temperature))
        run_jobs(ask, jobs, concurrency, keep, tally=tally, progress=progress, enough=first.unreadable)
    return Collected(asked=len(wanted), failed=tally.failed, first_error=tally.said)


class _First:
    """The first replies of a teacher: whether any of them can be read.

    Args:
        there: The traces that are there already.
        recorded: Whether the replies stand in a file.
    """

    def __init__(self, there: Iterable[Trace], recorded: bool = False) -> None:
        self._recorded = recorded
        self._readable = False
        self._lost: Counter[str] = Counter()
        self._quoted = ""
        for trace in there:
            self.add(trace)
            if self._readable:
                break

    def add(self, trace: Trace) -> None:
        if trace.lost is None:
            self._readable = True
        elif not self._readable:
            self._quoted = self._quoted or quoted_reply(trace.reply)
            self._lost[trace.lost] += 1

    def unreadable(self) -> UnreadablePlans | None:
        """The error, where so many replies were lost that the others would be too; else None."""
        if self._readable or self._lost.total() < _UNREADABLE_LIMIT:
            return None
        reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in self._lost.most_common())
        longer = "raise roles.teacher.max_tokens, " if self._lost["cut_off"] else ""
        remedy = (
            "name the field of the plans in roles.teacher.fields.subquestions."
            if self._recorded
            else f"{longer}take another roles.teacher.model or roles.teacher.adapter (compact, chat). "
            "All replies are kept; nothing more was asked."
        )
        return UnreadablePlans(
            f"collect: none of the teacher's first {self._lost.total()} replies can be read as a plan ({reasons}). "
            f"The first is: {self._quoted}",
            f"Look at it, and {remedy}",
        )


def quoted_reply(reply: str | None) -> str:
    """A reply on one line, quoted, and shortened in its middle where it is long."""
    text = " ".join((reply or "").split())
    if len(text) > _QUOTED:
        text = f"{text[: _QUOTED // 2]} [...] {text[-_QUOTED // 2 :]}"
    return repr(text) if text else "(empty)"
