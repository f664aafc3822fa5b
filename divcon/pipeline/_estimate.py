"""The estimate of a run: calls, tokens, money and time that are missing, from the prompts of a few of its questions.

A precheck has measured lengths and speeds, and gives these.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage
from dspy.utils.exceptions import AdapterParseError, LMError

from divcon._models import Models, usual_limit
from divcon.benchmarks.arms import read_arm
from divcon.config import Endpoint, Price
from divcon.distill import RULES, Base, StoredEngine, role_lm
from divcon.distill.serving.embedded import usable_cores
from divcon.distill.serving.server import ServedModel, ServerError
from divcon.pipeline._arms import arm_parts
from divcon.pipeline._context import Context
from divcon.pipeline._programs import compiled_prompt
from divcon.pipeline._status import run_status
from divcon.programs import Counters, Item, Meter
from divcon.signatures import Subquestions

_ASKED = 5  # questions whose prompts are made
_BYTES_A_TOKEN = 4.0  # of English text, with the tokenizers in use
_TOKENS_A_MESSAGE = 5  # of a chat template
_SOLUTION = 160  # tokens of a solver's reply, until replies are stored
_SECONDS_A_CALL, _TOKENS_A_SECOND = 0.5, 50.0  # of a server, until replies are stored
# For a plan of the embedded base on two cores, whatever the concurrency; and the weights of that base.
_SECONDS_HERE, _PLAN_HERE, _WEIGHTS_HERE = 0.2, 60, 135e6
# A step of a batch and its part for each request, where vLLM serves a base of so many weights on two cores.
_SECONDS_A_STEP, _SECONDS_A_ROW, _WEIGHTS_SERVED = 0.05, 0.0018, 494e6
_SECONDS_TO_START = 30.0  # of a server on a CPU
_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")


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
        concurrency: How many questions were asked at a time.
    """

    used: Mapping[str, dict[str, dict[str, Any]]]
    concurrency: int


@dataclass(frozen=True)
class _Model:
    """A model that would be called.

    Attributes:
        role: The role that it answers for.
        meter: Its meter; one at no price for a model on this machine.
        here: Whether it runs in this process, or is a student on a server of ours.
        on_cpu: The server of ours that computes its base on this processor; None for others. Roles may share one.
        scripted: Whether it is no model.
        recorded: Whether its replies were written elsewhere, so that it uses no tokens.
        weights: The number of its weights, where it runs on this machine.
    """

    role: str
    meter: Meter
    here: bool = False
    on_cpu: object | None = None
    scripted: bool = False
    recorded: bool = False
    weights: float = _WEIGHTS_HERE


@dataclass(frozen=True)
class _Call:
    """A call that would be made.

    Attributes:
        model: The model.
        read: The tokens that it reads.
        written: The tokens that it writes.
        most_written: The most that it can write.
    """

    model: _Model
    read: float
    written: float
    most_written: float

    def seconds(self, concurrency: int) -> float:
        """The time that it adds to a station, as long as nothing was measured."""
        if self.model.here:
            size = self.model.weights / _WEIGHTS_HERE * max(1.0, self.written / _PLAN_HERE)
            return 0.0 if self.model.scripted else _SECONDS_HERE * size
        if self.model.on_cpu is not None:
            cores = usable_cores() / 2
            step = _SECONDS_A_STEP / concurrency + _SECONDS_A_ROW / cores
            return self.written * step * self.model.weights / _WEIGHTS_SERVED
        return (_SECONDS_A_CALL + self.written / _TOKENS_A_SECOND) / concurrency


class _Planned:
    """Stands in for a model: it notes what it is asked, and replies in the form that is asked for.

    Args:
        model: The model.
        steps: Returns the subquestions for a prompt.
        calls: Gets a note of each call.
    """

    def __init__(self, model: _Model, steps: Callable[[str], Sequence[str]], calls: list[_Call]) -> None:
        self._model, self._steps, self._calls = model, steps, calls

    def complete(self, request: Request, rollout: int) -> Response:
        said = self._reply(str(request.messages[-1].text or ""))
        solves = self._model.role == "solver"
        likely = float(_SOLUTION) if solves else len(said.encode()) / _BYTES_A_TOKEN
        most = float(request.config.max_tokens or likely)
        texts = [request.system, *(message.text for message in request.messages)]
        read = sum(len(str(text or "").encode()) / _BYTES_A_TOKEN + _TOKENS_A_MESSAGE for text in texts)
        used = 0 if self._model.recorded else 1
        self._calls.append(_Call(self._model, used * read, used * min(likely, most), used * most))
        message = Message.assistant([TextPart(said)])
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=Usage())

    async def acomplete(self, request: Request, rollout: int) -> Response:
        return self.complete(request, rollout)

    def _reply(self, prompt: str) -> str:
        plan = Subquestions(self._steps(prompt)).render()
        text = f"{plan}\nFinal answer: 1" if self._model.role == "solver" else plan
        wanted = _FIELD.findall(prompt.rpartition("Respond with")[2])[:-1]  # of DSPy's ChatAdapter
        return "\n".join(f"[[ ## {name} ## ]]\n{'1' if name == 'answer' else plan}" for name in wanted) or text


class _PlannedModels(Models):
    """The models of a run, none of which is called."""

    calls: list[_Call]

    def _of_endpoint(self, role: str, endpoint: Endpoint) -> dspy.LM:
        here = not endpoint.asked or (endpoint.ours and endpoint.serve == "embedded")
        # A recorded plan has been paid for elsewhere.
        price = None if endpoint.recorded else endpoint.price
        meter = _meter(price, not endpoint.asked or endpoint.ours)
        on_cpu = self._on_cpu(role, endpoint) if not here and endpoint.base is not None else None
        here_or_near = here or on_cpu is not None
        weights = weights_of(self._base(endpoint.base)) if here_or_near and endpoint.base else _WEIGHTS_HERE
        model = _Model(role, meter, here, on_cpu, not endpoint.asked, endpoint.recorded, weights)
        most = endpoint.max_tokens or (None if here else usual_limit(endpoint.model or "hosted_vllm/base"))
        return self._planned(model, endpoint.temperature, most)

    def _on_cpu(self, role: str, endpoint: Endpoint) -> object | None:
        """The server of ours that computes an endpoint's base on this processor; None where there is none."""
        served = self.served(role, endpoint)
        try:
            found = served.installation if isinstance(served, ServedModel) else None
        except ServerError:  # it isn't installed, as the doctor says
            return None
        return served if found is not None and found.on_cpu else None

    def student(self, adapter: Path | None, role: str = "decomposer") -> dspy.LM:
        student = self.pipeline.roles.decomposer
        model = _Model(role, _meter(student.price, True), here=True, weights=weights_of(self.base))
        return self._planned(model, student.temperature, student.max_tokens)

    def _planned(self, model: _Model, temperature: float | None, max_tokens: int | None) -> dspy.LM:
        backend = _Planned(model, self.steps_of, self.calls)
        engine = StoredEngine(backend, model.role, f"openai/planned-{model.role}", None)
        return role_lm(engine, temperature=temperature, max_tokens=max_tokens)

    def steps_of(self, prompt: str) -> Sequence[str]:
        """The reference subquestions of the question in a prompt, or as many others as a plan may have."""
        known = [item.subquestions for item in self.items() if item.subquestions and item.question in prompt]
        cap = self.pipeline.program.max_subquestions
        return known[0][:cap] if known else [f"What has to be known about the question, part {n}?" for n in range(cap)]


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


def _meter(price: Price | None, here: bool) -> Meter:
    """The meter of a model; one on this machine costs nothing unless the file says otherwise."""
    if price is not None:
        return Meter(price.model_dump(exclude_none=True))
    return Meter({"input": 0.0, "output": 0.0} if here else None)


def weights_of(base: Base) -> float:
    """The number of weights of a base, by the size of its files."""
    stored = sum(file.stat().st_size for file in base.path.glob("*.safetensors"))
    return stored / (4 if base.dtype == "float32" else 2)


def estimate(context: Context, measured: Measured | None = None) -> list[StationEstimate]:
    """What the stations that are missing will take. No model is called.

    Lengths of replies and seconds a call are those that were measured, or else those of the replies in the run folder,
    where there are any. The time of training isn't in it, and neither are the calls of a teleprompter.

    Args:
        context: The run's context.
        measured: What was measured on other questions.
    """
    calls: list[_Call] = []
    models = _planned_models(context, calls)
    planned = Context(context.pipeline, context.folder, shared=context.store, loaded=context.task)
    planned.models = models
    found: list[StationEstimate] = []
    started: set[int] = set()
    for plan in _plans(context, planned, models):
        calls.clear()
        for item in plan.items:
            # A program of another package may not read the reply; what it asked until then counts.
            with contextlib.suppress(AdapterParseError, LMError):
                plan.ask(item)
        used = measured.used.get(plan.shown) if measured else None
        at_a_time = min(plan.concurrency, measured.concurrency) if measured and used else plan.concurrency
        one = _summed(plan, calls, used or context.store.paid(plan.station), at_a_time)
        new = {id(call.model.on_cpu) for call in calls if call.model.on_cpu is not None} - started
        started |= new
        found.append(replace(one, seconds=one.seconds + _SECONDS_TO_START * len(new)))
    return found


def _plans(context: Context, planned: Context, models: _PlannedModels) -> Iterator[_Plan]:
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
            traces = len(task.train) * pipeline.collect.samples
            yield _Plan(status.station, "screen", train, solves, traces, pipeline.screen.concurrency)
        elif station == "evaluate":
            yield _Plan(status.station, station, test, answers(what), missing, pipeline.evaluate.concurrency)


def _planned_models(context: Context, calls: list[_Call]) -> _PlannedModels:
    of = context.models
    made = _PlannedModels(of.pipeline, of.store, of.items, of.log, of.report)
    made.calls = calls
    return made


def _summed(plan: _Plan, seen: Sequence[_Call], paid: dict[str, dict[str, Any]], at_a_time: int) -> StationEstimate:
    """The estimate of a station from the calls of a few of its jobs, and from what was paid at it before."""
    scale = plan.jobs / max(1, len(plan.items))
    read = written = most = seconds = 0.0
    usd: float | None = 0.0
    most_usd: float | None = 0.0
    for call in seen:
        known, meter = paid.get(call.model.role), call.model.meter
        if known is not None and (counted := known["calls"] - known["unknown_calls"]):
            call = replace(call, read=known["input_tokens"] / counted, written=known["output_tokens"] / counted)
        read, written, most = read + call.read, written + call.written, most + max(call.written, call.most_written)
        measured = known["seconds"] / known["calls"] / at_a_time if known else None
        seconds += call.seconds(max(1, min(plan.concurrency, round(plan.jobs)))) if measured is None else measured
        likely_usd = meter.cost(Counters(round(call.read), round(call.written)))
        worst_usd = meter.cost(Counters(round(call.read), round(call.most_written)))
        usd = None if usd is None or likely_usd is None else usd + likely_usd
        most_usd = None if most_usd is None or worst_usd is None else most_usd + worst_usd
    return StationEstimate(
        station=plan.shown,
        calls=round(len(seen) * scale),
        tokens=round((read + written) * scale),
        most_tokens=round((read + most) * scale),
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
