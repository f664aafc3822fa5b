"""The estimate of a run: calls, tokens, money and time that are missing, from the prompts of a few of its questions.

A precheck has measured lengths and speeds, and gives these.
"""

from __future__ import annotations

import contextlib
import json
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
from divcon.distill.serving.embedded import Precision, precision, speed
from divcon.distill.serving.server import ServedModel
from divcon.pipeline._arms import arm_parts
from divcon.pipeline._context import Context
from divcon.pipeline._programs import compiled_prompt
from divcon.pipeline._status import run_status
from divcon.programs import Counters, Item, Meter
from divcon.programs._baselines import DIRECT_TOKENS
from divcon.signatures import Subquestions

_ASKED = 5  # questions whose prompts are made
_BYTES_A_TOKEN = 4.0  # of English text, with the tokenizers in use
_TOKENS_A_MESSAGE = 5  # of a chat template
_SOLUTION, _ANSWER = 200, 8  # tokens of a solver's reply, and of one that is an answer alone, until replies are stored
_SECONDS_A_CALL, _TOKENS_A_SECOND = 0.5, 50.0  # of a server, until replies are stored
_ROWS = 64  # of a batch on this machine
_SECONDS_A_STEP = 0.02  # of a batch on this machine, beside what it computes
# What a model takes in this process and on a server, beside its layers' products in torch: a server has faster ones.
_HERE, _SERVED = 1.5, 0.6
_LONGEST = 3.0  # the longest reply of a batch, beside the usual one
_SECONDS_TO_START = 75.0  # of a server on a CPU
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
        base: What this machine computes for it; None where another machine does, or nothing is computed.
        server: The server of ours that has to start for it; None for others. Roles may share one.
        recorded: Whether its replies were written elsewhere, so that it uses no tokens.
        asked: Whether it is a model, so that its replies take time.
        precision: What this machine computes in.
    """

    role: str
    meter: Meter
    base: Base | None = None
    server: object | None = None
    recorded: bool = False
    asked: bool = True
    precision: Precision = "float32"


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

    def seconds(self, concurrency: float, rounds: int, calls: float) -> float:
        """The time that it adds to a station, as long as nothing was measured.

        Args:
            concurrency: Calls at a time.
            rounds: How often everything waits for the longest reply.
            calls: Calls that are made in all rounds, also for other stations at the same time.
        """
        model = self.model
        if not model.asked:
            return 0.0
        if model.base is None:
            return (_SECONDS_A_CALL + self.written / _TOKENS_A_SECOND) / concurrency
        longest = max(self.written, min(self.most_written, _LONGEST * self.written))
        steps = self.written / min(concurrency, _ROWS) + (longest - self.written) * rounds / calls
        computed = speed(model.precision).seconds_of(weights_of(model.base), self.read, self.written, steps)
        return computed * (_HERE if model.server is None else _SERVED) + steps * _SECONDS_A_STEP


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
        given = request.config.max_tokens
        solved = _ANSWER if given is not None and given <= 2 * DIRECT_TOKENS else _SOLUTION
        likely = float(solved) if self._model.role == "solver" else len(said.encode()) / _BYTES_A_TOKEN
        most = float(given or likely)
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
        # A recorded plan has been paid for elsewhere.
        price = None if endpoint.recorded else endpoint.price
        meter, asked = _meter(price, not endpoint.asked or endpoint.ours), endpoint.asked
        base, server = None, None
        if asked and endpoint.ours:
            # A model of the embedded engine by its name is the embedded base, or an adapter of it.
            base, server = self._base(endpoint.base or "embedded"), self._started(self.served(role, endpoint))
        if base is not None and endpoint.serve != "embedded" and server is None:
            base = None  # a GPU or another machine computes it
        model = _Model(role, meter, base, server, endpoint.recorded, asked, self._precision)
        most = endpoint.max_tokens or (None if base else usual_limit(endpoint.model or "hosted_vllm/base"))
        return self._planned(model, endpoint.temperature, most)

    def _started(self, served: object) -> ServedModel | None:
        """A server of ours that has to start, and computes on this processor; None for anything else."""
        return served if isinstance(served, ServedModel) and served.on_cpu else None

    @property
    def _precision(self) -> Precision:
        return precision(self.pipeline.roles.precision)

    def student(self, adapter: Path | None, role: str = "decomposer") -> dspy.LM:
        student = self.pipeline.roles.decomposer
        server: object | None = self._started(self.student_model)
        if isinstance(server, ServedModel) and server.merges:
            server = object()  # each student has a server of its own
        model = _Model(role, _meter(student.price, True), self.base, server, precision=self._precision)
        return self._planned(model, student.temperature, self.longest_of_student(role))

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
        beside: Jobs of all stations that are done at the same time as this one, its own among them.
    """

    shown: str
    station: str
    items: Sequence[Item]
    ask: Callable[[Item], Any]
    jobs: float
    concurrency: int
    beside: float


def _meter(price: Price | None, here: bool) -> Meter:
    """The meter of a model; one on this machine costs nothing unless the file says otherwise."""
    if price is not None:
        return Meter(price.model_dump(exclude_none=True))
    return Meter({"input": 0.0, "output": 0.0} if here else None)


def weights_of(base: Base) -> float:
    """The number of weights that a base computes with, by the size of its files. Embeddings are only looked up."""
    stored = sum(file.stat().st_size for file in base.path.glob("*.safetensors"))
    told = json.loads((base.path / "config.json").read_text(encoding="utf-8"))
    apart = not told.get("tie_word_embeddings", True)
    looked_up = told.get("vocab_size", 0) * told.get("hidden_size", 0) if apart else 0
    return stored / (4 if base.dtype == "float32" else 2) - looked_up


def estimate(context: Context, measured: Measured | None = None, rounds: int = 1) -> list[StationEstimate]:
    """What the stations that are missing will take. No model is called.

    Lengths of replies and seconds a call are those that were measured, or else those of the replies in the run folder,
    where there are any. The time of training isn't in it, and neither are the calls of a teleprompter.

    Args:
        context: The run's context.
        measured: What was measured on other questions.
        rounds: In how many parts the test questions are asked, each of which waits for its longest reply.
    """
    calls: list[_Call] = []
    models = _planned_models(context, calls)
    planned = Context(context.pipeline, context.folder, shared=context.store, loaded=context.task)
    planned.models = models
    found: list[StationEstimate] = []
    started: set[object] = set()
    for plan in _plans(context, planned, models):
        calls.clear()
        for item in plan.items:
            # A program of another package may not read the reply; what it asked until then counts.
            with contextlib.suppress(AdapterParseError, LMError):
                plan.ask(item)
        used = measured.used.get(plan.shown) if measured else None
        at_a_time = min(plan.concurrency, measured.concurrency) if measured and used else plan.concurrency
        one = _summed(plan, calls, used or context.store.paid(plan.station), at_a_time, rounds)
        new = {call.model.server for call in calls if call.model.server is not None} - started
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
    stations = list(run_status(context))
    answered = sum(
        one.total - one.done
        for one in stations
        if one.station.startswith("evaluate ") and one.station.partition(" ")[2] not in pipeline.evaluate.recorded
    )
    for status in stations:
        station, _, what = status.station.partition(" ")
        if what in pipeline.evaluate.recorded:
            continue  # it ran elsewhere
        missing = status.total - status.done
        if not missing:
            continue
        if station == "collect":
            yield _Plan(status.station, station, train, plans, missing, pipeline.collect.concurrency, missing)
        elif station == "screen" and RULES[what].asks_solver:
            tries = (1 + pipeline.screen.samples) / 2  # the first right answer is enough
            jobs = missing * tries
            yield _Plan(status.station, station, train, solves, jobs, pipeline.screen.concurrency, jobs)
        elif station == "export" and what in solver_students:
            traces = len(task.train) * pipeline.collect.samples
            yield _Plan(status.station, "screen", train, solves, traces, pipeline.screen.concurrency, traces)
        elif station == "evaluate":
            concurrency = pipeline.evaluate.concurrency
            yield _Plan(status.station, station, test, answers(what), missing, concurrency, answered)


def _planned_models(context: Context, calls: list[_Call]) -> _PlannedModels:
    of = context.models
    made = _PlannedModels(of.pipeline, of.store, of.items, of.log, of.report)
    made.calls = calls
    return made


def _summed(
    plan: _Plan, seen: Sequence[_Call], paid: dict[str, dict[str, Any]], at_a_time: int, rounds: int
) -> StationEstimate:
    """The estimate of a station from the calls of a few of its jobs, and from what was paid at it before."""
    scale = plan.jobs / max(1, len(plan.items))
    read = written = most = seconds = 0.0
    rounds = rounds if plan.station == "evaluate" else 1
    jobs = max(1.0, plan.beside)
    together = max(1.0, min(plan.concurrency, jobs / rounds))
    usd: float | None = 0.0
    most_usd: float | None = 0.0
    for call in seen:
        known, meter = paid.get(call.model.role), call.model.meter
        if known is not None and (counted := known["calls"] - known["unknown_calls"]):
            call = replace(call, read=known["input_tokens"] / counted, written=known["output_tokens"] / counted)
        read, written, most = read + call.read, written + call.written, most + max(call.written, call.most_written)
        measured = known["seconds"] / known["calls"] / at_a_time if known else None
        seconds += call.seconds(together, rounds, jobs) if measured is None else measured
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
