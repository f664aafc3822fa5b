"""The estimate of a run: calls, tokens, money and time that are missing, from the prompts of a few of its questions.

A precheck has measured lengths and speeds, and gives these.
"""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from dspy.utils.exceptions import AdapterParseError, LMError

from divcon.benchmarks.arms import read_arm
from divcon.distill import RULES
from divcon.pipeline._arms import arm_parts
from divcon.pipeline._context import Context
from divcon.pipeline._planned import Call, PlannedModels, planned_models
from divcon.pipeline._programs import compiled_prompt
from divcon.pipeline._status import run_status
from divcon.programs import Counters, Item
from divcon.signatures import Subquestions

_ASKED = 5  # questions whose prompts are made
_SECONDS_TO_START = 75.0  # of a server on a CPU


@dataclass(frozen=True)
class StationEstimate:
    """What a station will take.

    Attributes:
        station: The station.
        calls: Calls of models.
        tokens: Input and output tokens.
        most_tokens: The same, where every reply is as long as it may be.
        usd: US dollars; None where a model's price is unknown.
        most_usd: The same, where every reply is as long as it may be.
        seconds: Seconds of waiting, at the station's concurrency.
    """

    station: str
    calls: int
    tokens: int
    most_tokens: int
    usd: float | None
    most_usd: float | None
    seconds: float


@dataclass(frozen=True)
class Measured:
    """Lengths and speeds that were measured on other questions of the task.

    Attributes:
        used: What was used, by station as `divcon status` names it, and by role as `RunStore.paid` has it.
        questions: Of how many questions.
        concurrency: How many questions were asked at a time.
    """

    used: Mapping[str, dict[str, dict[str, Any]]]
    questions: int
    concurrency: int


@dataclass(frozen=True)
class _Plan:
    """What is missing from a station.

    Attributes:
        shown: The station as `divcon status` names it.
        station: The station that its calls are recorded under.
        items: Some of the questions.
        ask: Makes the calls for a question.
        jobs: How often they are made.
        concurrency: Jobs at a time.
    """

    shown: str
    station: str
    items: Sequence[Item]
    ask: Callable[[Item], Any]
    jobs: float
    concurrency: int

    def made(self, calls: Sequence[Call]) -> Iterator[tuple[Hashable, float]]:
        """How many calls the station makes that may share a batch, by what these have in common.

        Args:
            calls: The calls for some of its questions.
        """
        for call in calls:
            # Arms are evaluated at the same time, and every other station for itself.
            yield (self.station == "evaluate" or self.shown, call.batch), self.jobs / max(1, len(self.items))


def estimate(context: Context, measured: Measured | None = None, rounds: int = 1) -> list[StationEstimate]:
    """What the stations that are missing will take. No model is called.

    Lengths of replies and seconds a call are those that were measured, or else those of the replies in the run folder,
    where there are any. The time of training isn't in it, and neither are the calls of a teleprompter.

    Args:
        context: The run's context.
        measured: What was measured on other questions.
        rounds: In how many parts the test questions are asked, each of which waits for its longest reply.
    """
    calls: list[Call] = []
    models = planned_models(context.models, calls)
    planned = Context(context.pipeline, context.folder, shared=context.store, loaded=context.task)
    planned.models = models
    asked: list[tuple[_Plan, list[Call]]] = []
    together: defaultdict[Hashable, float] = defaultdict(float)
    for plan in _plans(context, planned, models):
        calls.clear()
        for item in plan.items:
            # A program of another package may not read the reply; what it asked until then counts.
            with contextlib.suppress(AdapterParseError, LMError):
                plan.ask(item)
        asked.append((plan, list(calls)))
        for batch, count in plan.made(calls):
            together[batch] += count
    found: list[StationEstimate] = []
    started: set[object] = set()
    for plan, seen in asked:
        used = measured.used.get(plan.shown) if measured else None
        paid = used or context.store.paid(plan.station)
        one = _summed(plan, seen, paid, measured if used else None, rounds, together)
        new = {call.model.server for call in seen if call.model.server is not None} - started
        started |= new
        found.append(replace(one, seconds=one.seconds + _SECONDS_TO_START * len(new)))
    return found


def _plans(context: Context, planned: Context, models: PlannedModels) -> Iterator[_Plan]:
    pipeline, task = context.pipeline, context.task
    parts = arm_parts(planned, compiled_prompt(planned))
    train, test = task.train[:_ASKED], task.test[:_ASKED]

    def plans(item: Item) -> None:
        parts.planned_by_teacher().decompose(question=item.question, context=item.context)

    def solves(item: Item) -> None:
        steps = Subquestions(models.steps_of(item.question))
        parts.asking_solver().solve(question=item.question, context=item.context, subquestions=steps)

    def answers(arm: str) -> Callable[[Item], Any]:
        kind, solving = read_arm(arm)
        program = kind.build(parts, solving, None).program
        return lambda item: program(question=item.question, context=item.context)

    solver_students = {student.name for student in pipeline.solver_students}
    for status in run_status(context):
        station, _, what = status.station.partition(" ")
        if what in pipeline.evaluate.recorded:
            continue  # it ran elsewhere
        missing = status.total - status.done
        if not missing:
            continue
        if station == "collect":
            yield _Plan(status.station, station, train, plans, missing, pipeline.collect.concurrency)
        elif station == "screen" and RULES[what].asks_solver:
            tries = (1 + pipeline.screen.samples) / 2  # the first right answer is enough
            yield _Plan(status.station, station, train, solves, missing * tries, pipeline.screen.concurrency)
        elif station == "export" and what in solver_students:
            traces = len(context.to_collect)
            yield _Plan(status.station, "screen", train, solves, traces, pipeline.screen.concurrency)
        elif station == "evaluate":
            yield _Plan(status.station, station, test, answers(what), missing, pipeline.evaluate.concurrency)


def _summed(
    plan: _Plan,
    seen: Sequence[Call],
    paid: Mapping[str, dict[str, Any]],
    measured: Measured | None,
    rounds: int,
    together: Mapping[Hashable, float],
) -> StationEstimate:
    """The estimate of a station from the calls of a few of its jobs, and from what was paid at it before.

    Args:
        plan: The station.
        seen: The calls of a few of its jobs.
        paid: What calls of the station used, by role.
        measured: Where `paid` was measured; None where it is of this run.
        rounds: See `estimate`.
        together: The calls that may share a batch.
    """
    scale = plan.jobs / max(1, len(plan.items))
    planned = Counter(call.model.role for call in seen)
    at_a_time = min(plan.concurrency, measured.concurrency) if measured else plan.concurrency
    rounds = rounds if plan.station == "evaluate" else 1
    count = tokens = most_tokens = seconds = 0.0
    usd: float | None = 0.0
    most_usd: float | None = 0.0
    for call, (batch, _) in zip(seen, plan.made(seen), strict=True):
        calls = max(1.0, together[batch])
        known, meter, times = paid.get(call.model.role), call.model.meter, 1.0
        if known is not None and (counted := known["calls"] - known["unknown_calls"]):
            call = replace(call, read=known["input_tokens"] / counted, written=known["output_tokens"] / counted)
            likely = call.read, call.written
        else:
            likely = call.expected
        if known is not None and measured is not None:
            # More than one where a reply without an answer was followed by a question for it.
            times = known["calls"] / measured.questions / (planned[call.model.role] / len(plan.items))
        count, tokens = count + times, tokens + times * sum(likely)
        most_tokens += sum(call.most)
        seconds += (
            times * known["seconds"] / known["calls"] / at_a_time
            if known
            else call.seconds(plan.concurrency, rounds, calls)
        )
        likely_usd = meter.cost(Counters(*(round(times * used) for used in likely)))
        worst_usd = meter.cost(Counters(*map(round, call.most)))
        usd = None if usd is None or likely_usd is None else usd + likely_usd
        most_usd = None if most_usd is None or worst_usd is None else most_usd + worst_usd
    return StationEstimate(
        station=plan.shown,
        calls=round(count * scale),
        tokens=round(tokens * scale),
        most_tokens=round(most_tokens * scale),
        usd=None if usd is None else usd * scale,
        most_usd=None if most_usd is None else most_usd * scale,
        seconds=seconds * scale,
    )


def total_of(stations: Sequence[StationEstimate]) -> StationEstimate:
    """The sum of stations; money is unknown where one's is."""
    whole: dict[str, Any] = {"station": "all"}
    for field in fields(StationEstimate)[1:]:
        values = [asdict(one)[field.name] for one in stations]
        whole[field.name] = None if None in values else sum(values)
    return StationEstimate(**whole)


def compared(before: StationEstimate, calls: int, tokens: int, usd: float | None) -> Iterator[str]:
    """How far a run was off its estimate, as phrases."""
    for name, expected, got, form in (
        ("calls", before.calls, calls, "{:,}"),
        ("tokens", before.tokens, tokens, "{:,}"),
        ("dollars", before.usd, usd, "{:.4f}"),
    ):
        if expected is None or got is None or not (expected or got):
            continue
        off = f" ({100 * (got - expected) / expected:+.0f} %)" if expected else ""
        yield f"{form.format(got)} {name}, {form.format(expected)} expected{off}"
