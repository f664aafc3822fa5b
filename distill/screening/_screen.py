"""Screen: judge every trace by a rule, store the verdicts, and count the lost traces by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from dspy.utils.exceptions import LMError

from divcon.distill._booking import at_station
from divcon.distill._jobs import Job, Place, Progress, Tally, here, run_jobs
from divcon.distill._store import RunStore
from divcon.distill._stored import Trace
from divcon.distill._table import PluginError
from divcon.distill.screening._rule import RULES, Judgement, Rule, well_formed
from divcon.distill.screening._solver import Solver
from divcon.programs import Item
from divcon.signatures import DivconError, UnusableArgument

_CORRECT = "Correct the rule; what was answered is kept."


@dataclass(frozen=True)
class Screened:
    """The result of a screening.

    Attributes:
        kept: The traces that were kept, in the order of the items and samples.
        collected: The number of all traces.
        lost: Counts of the other traces by reason: `cut_off`, `empty`, `duplicate`, `unreadable`, `over_long`,
            `whole`, `unsolved`, and reasons of other packages' rules.
        rejected: Well-formed traces that the rule didn't keep, for methods that learn from these too.
        failed: Traces that couldn't be judged because a call failed; the next run tries them again.
        first_error: The message of the first failure.
        disputed: Items for which all solver samples agree on one answer that isn't the gold one. The gold one may be
            wrong.
    """

    kept: list[Trace]
    collected: int
    lost: dict[str, int]
    rejected: list[Trace] = field(default_factory=list)
    failed: int = 0
    first_error: str | None = None
    disputed: list[str] = field(default_factory=list)

    def counts(self) -> dict[str, Any]:
        """The counts for a manifest and a report."""
        return {
            "collected": self.collected,
            "kept": len(self.kept),
            "lost": dict(sorted(self.lost.items())),
            "failed": self.failed,
            "disputed": len(self.disputed),
        }


def judging(rule: Rule, solver: Solver | None) -> Callable[[Job], list[Judgement]]:
    """The function that does one screening job: it judges the job's traces."""

    def judge(job: Job) -> list[Judgement]:
        try:
            found = [Judgement(*one) for one in rule.judge(job.item, job.traces, solver)]
        except (LMError, DivconError):
            raise
        except Exception as error:
            raise PluginError(
                f"{job.work.capitalize()} failed on {job.item.id}: {type(error).__name__}: {error}.", _CORRECT
            ) from error
        if len(found) != len(job.traces):
            raise PluginError(
                f"{job.work.capitalize()} gave {len(found)} judgements for {len(job.traces)} traces of {job.item.id}.",
                _CORRECT,
            )
        return found

    return judge


def screen(
    rule: str,
    traces: Sequence[Trace],
    items: Sequence[Item],
    store: RunStore,
    key: str,
    *,
    solver: Solver | None = None,
    max_subquestions: int = 3,
    keep_whole: bool = False,
    concurrency: int = 64,
    progress: Progress | None = None,
    place: Place = here,
) -> Screened:
    """Judge every trace by a rule and store the verdicts.

    Args:
        rule: The rule's name.
        traces: The collected traces.
        items: The items that the traces belong to.
        store: The store that keeps the verdicts; a trace with a stored verdict isn't judged again.
        key: The key that verdicts are stored under.
        solver: The solver, for a rule that calls it.
        max_subquestions: The longest list; longer ones are lost as `over_long`.
        keep_whole: Whether to keep replies that say that no decomposition helps.
        concurrency: Jobs at a time.
        progress: Gets the number of traces that are judged, and the total.
        place: Where the jobs are done.

    Raises:
        UnknownName: There is no such rule.
        UnusableArgument: The rule calls the solver, and none was given.
        RoleWithoutEndpoint: The rule calls the solver, which has no LM.
        dspy.LMError: The solver refuses the key or can't be reached.
    """
    judge = RULES[rule]
    if judge.asks_solver and solver is None:
        raise UnusableArgument(f"The rule '{rule}' asks the solver, and none was given.", "Pass solver=Solver(...).")
    if judge.asks_solver and solver is not None:
        solver.solve.require_endpoint()
    verdicts = store.verdicts(key)
    usable: list[Trace] = []
    for trace in traces:
        reason = well_formed(trace, max_subquestions, keep_whole)
        if reason is None:
            usable.append(trace)
        elif (trace.item, trace.sample) not in verdicts:
            store.keep_verdict(key, trace, False, reason)
    by_id = {item.id: item for item in items}
    jobs = [
        Job(f"screen {rule}", by_id[group[0].item], group[0].sample, traces=tuple(group))
        for group in _groups(usable, judge.by_item)
        if any((trace.item, trace.sample) not in verdicts for trace in group)
    ]

    def keep(job: Job, judgements: list[Judgement]) -> None:
        for trace, judgement in zip(job.traces, judgements, strict=True):
            store.keep_verdict(key, trace, *judgement)

    with at_station("screen"):
        tally = Tally(len(traces), done=len(traces) - len(jobs))
        if progress:
            progress(tally.done, tally.total)
        run_jobs(place(judging(judge, solver)), jobs, concurrency, keep, tally=tally, progress=progress)
    verdicts = store.verdicts(key)
    judged = [(trace, *verdicts[at]) for trace in traces if (at := (trace.item, trace.sample)) in verdicts]
    well = {(trace.item, trace.sample) for trace in usable}
    # A disputed trace counts as unsolved. `disputed` lists it too.
    lost = Counter("unsolved" if reason == "disputed" else reason for _, kept, reason in judged if not kept)
    return Screened(
        kept=[trace for trace, kept, _ in judged if kept],
        collected=len(traces),
        lost=dict(lost),
        rejected=[trace for trace, kept, _ in judged if not kept and (trace.item, trace.sample) in well],
        failed=tally.failed,
        first_error=tally.said,
        disputed=[trace.item for trace, _, reason in judged if reason == "disputed"],
    )


def _groups(traces: Sequence[Trace], by_item: bool) -> Iterator[list[Trace]]:
    """Groups of one trace each, or of all traces of an item."""
    if not by_item:
        yield from ([trace] for trace in traces)
        return
    groups: dict[str, list[Trace]] = {}
    for trace in traces:
        groups.setdefault(trace.item, []).append(trace)
    yield from groups.values()
