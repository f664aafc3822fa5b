"""The models of an estimate, none of which is called: each notes what it is asked, and what that would take."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import dspy
from dspy.lm15 import Message, Request, Response, TextPart, Usage

from divcon._models import Models, usual_limit
from divcon.config import Endpoint, Price
from divcon.distill import Base, StoredEngine, role_lm
from divcon.distill.serving.embedded import BUCKET, Precision, precision, speed
from divcon.distill.serving.server import ServedModel
from divcon.programs import Meter
from divcon.programs._baselines import DIRECT_TOKENS
from divcon.signatures import Subquestions

_BYTES_A_TOKEN = 4.0  # of English text, with the tokenizers in use
_TOKENS_A_MESSAGE = 5  # of a chat template
_SOLUTION, _ANSWER = 200, 8  # tokens of a solver's reply, and of one that is an answer alone, until replies are stored
_SECONDS_A_CALL, _TOKENS_A_SECOND = 0.5, 50.0  # of a server, until replies are stored
_ROWS = 64  # of a batch on this machine
_SECONDS_A_STEP = 0.02  # of a batch on this machine, beside what it computes
# What a model takes in this process and on a server, beside its layers' products in torch: a server has faster ones.
_HERE, _SERVED = 1.5, 0.6
_LONGEST = 3.0  # the longest reply of a batch, beside the usual one
_FIELD = re.compile(r"\[\[ ## (\w+) ## \]\]")


@dataclass(frozen=True)
class Model:
    """A model that would be called.

    Attributes:
        role: The role that it answers for.
        meter: Its meter; one at no price for a model on this machine.
        base: What this machine computes for it; None where another machine does, or nothing is computed.
        server: The server of ours that has to start for it; None for others. Roles may share one.
        recorded: Whether its replies were written elsewhere, so that it uses no tokens.
        asked: Whether it is a model, so that its replies take time.
        asked_again: Whether it is asked for the answer alone where its reply runs out of tokens.
        untrained: Whether it is a student's base, which solves without having learnt to: it writes on to its limit.
        precision: What this machine computes in.
    """

    role: str
    meter: Meter
    base: Base | None = None
    server: object | None = None
    recorded: bool = False
    asked: bool = True
    asked_again: bool = False
    untrained: bool = False
    precision: Precision = "float32"

    @functools.cached_property
    def weights(self) -> float:
        """The number of weights that this machine computes with."""
        return weights_of(self.base) if self.base is not None else 0.0


@dataclass(frozen=True)
class Call:
    """A call that would be made.

    Attributes:
        model: The model.
        read: The tokens that it reads.
        written: The tokens that it writes.
        limit: The most that it can write.
        again: The share of such calls whose reply runs out of tokens, and is asked about in another one.
    """

    model: Model
    read: float
    written: float
    limit: float
    again: float = 0.0

    @property
    def expected(self) -> tuple[float, float]:
        """The tokens that are read and written for it, on average."""
        more = self.limit if self.model.untrained else _ANSWER
        return self.read + self.again * (self.read + self.limit), self.written + self.again * more

    @property
    def most(self) -> tuple[float, float]:
        """The same where every reply is as long as it may be."""
        written = max(self.written, self.limit)
        return (2 * self.read + self.limit, 2 * written) if self.again else (self.read, written)

    @property
    def batch(self) -> Hashable:
        """What calls have in common that may share a batch: plans are written before the first of them is solved.

        In this process, prompts of a batch also have the same length, padded.
        """
        here = self.model.base is not None and self.model.server is None
        return self.model.base, self.model.server, self.model.role == "solver", here and self.read // BUCKET

    def seconds(self, concurrency: float, rounds: int, calls: float) -> float:
        """The time that it adds to a station, as long as nothing was measured.

        Args:
            concurrency: Calls at a time.
            rounds: How often everything waits for the longest reply.
            calls: Calls that share its batches, in all rounds.
        """
        concurrency, model = max(1.0, min(concurrency, calls / rounds)), self.model
        read, written = self.expected
        if not model.asked:
            return 0.0
        if model.base is None:
            return (_SECONDS_A_CALL + written / _TOKENS_A_SECOND) / concurrency
        longest = max(written, min(self.limit, _LONGEST * written))
        steps = written / min(concurrency, _ROWS) + (longest - written) * rounds / calls
        computed = speed(model.precision).seconds_of(model.weights, read, written, steps)
        return computed * (_HERE if model.server is None else _SERVED) + steps * _SECONDS_A_STEP


class _Planned:
    """Stands in for a model: it notes what it is asked, and replies in the form that is asked for.

    Args:
        model: The model.
        steps: Returns the subquestions for a prompt.
        calls: Gets a note of each call.
    """

    def __init__(self, model: Model, steps: Callable[[str], Sequence[str]], calls: list[Call]) -> None:
        self._model, self._steps, self._calls = model, steps, calls

    def complete(self, request: Request, rollout: int) -> Response:
        said = self._reply(str(request.messages[-1].text or ""))
        given = request.config.max_tokens
        solved = _ANSWER if given is not None and given <= 2 * DIRECT_TOKENS else _SOLUTION
        likely = float(solved) if self._model.role == "solver" else len(said.encode()) / _BYTES_A_TOKEN
        limit = float(given or likely)
        if self._model.untrained:
            likely = limit
        texts = [request.system, *(message.text for message in request.messages)]
        read = sum(len(str(text or "").encode()) / _BYTES_A_TOKEN + _TOKENS_A_MESSAGE for text in texts)
        again = 0.0
        if self._model.asked_again and given:
            # Lengths of replies are taken to be exponential, so this share of them has run out of tokens.
            again = 1.0 if self._model.untrained else math.exp(-limit / likely)
        used = 0 if self._model.recorded else 1
        self._calls.append(Call(self._model, used * read, used * min(likely, limit), used * limit, again))
        message = Message.assistant([TextPart(said)])
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=Usage())

    async def acomplete(self, request: Request, rollout: int) -> Response:
        return self.complete(request, rollout)

    def _reply(self, prompt: str) -> str:
        plan = Subquestions(self._steps(prompt)).render()
        text = f"{plan}\nFinal answer: 1" if self._model.role == "solver" else plan
        wanted = _FIELD.findall(prompt.rpartition("Respond with")[2])[:-1]  # of DSPy's ChatAdapter
        return "\n".join(f"[[ ## {name} ## ]]\n{'1' if name == 'answer' else plan}" for name in wanted) or text


class PlannedModels(Models):
    """The models of a run, none of which is called."""

    calls: list[Call]

    def _of_endpoint(self, role: str, endpoint: Endpoint) -> dspy.LM:
        # A recorded plan has been paid for elsewhere.
        price = None if endpoint.recorded else endpoint.price
        meter, asked = _meter(price, not endpoint.asked or endpoint.ours), endpoint.asked
        served = self.served(role, endpoint) if asked and endpoint.ours else None
        server = self._started(served)
        # A server on a GPU or on another machine computes nothing here.
        base = served.base if served is not None and (server is not None or endpoint.serve == "embedded") else None
        again = asked and self._asked_again(role)
        model = Model(role, meter, base, server, endpoint.recorded, asked, again, precision=self._precision)
        most = endpoint.max_tokens or (None if base else usual_limit(endpoint.model or "hosted_vllm/base"))
        return self._planned(model, endpoint.temperature, most)

    def _started(self, served: object) -> ServedModel | None:
        """A server of ours that has to start, and computes on this processor; None for anything else."""
        return served if isinstance(served, ServedModel) and served.on_cpu else None

    def _asked_again(self, role: str) -> bool:
        return role == "solver" and self.pipeline.program.reask > 0

    @property
    def _precision(self) -> Precision:
        return precision(self.pipeline.roles.precision)

    def student(self, adapter: Path | None, role: str = "decomposer") -> dspy.LM:
        student = self.pipeline.roles.decomposer
        server: object | None = self._started(self.student_model)
        if isinstance(server, ServedModel) and server.merges:
            server = object()  # each student has a server of its own
        model = Model(
            role,
            _meter(student.price, True),
            self.base,
            server,
            asked_again=self._asked_again(role),
            untrained=adapter is None and role == "solver",
            precision=self._precision,
        )
        return self._planned(model, student.temperature, self.longest_of_student(role))

    def _planned(self, model: Model, temperature: float | None, max_tokens: int | None) -> dspy.LM:
        backend = _Planned(model, self.steps_of, self.calls)
        engine = StoredEngine(backend, model.role, f"openai/planned-{model.role}", None)
        return role_lm(engine, temperature=temperature, max_tokens=max_tokens)

    def steps_of(self, prompt: str) -> Sequence[str]:
        """The reference subquestions of the question in a prompt, or as many others as a plan may have."""
        known = [item.subquestions for item in self.items() if item.subquestions and item.question in prompt]
        cap = self.pipeline.program.max_subquestions
        return known[0][:cap] if known else [f"What has to be known about the question, part {n}?" for n in range(cap)]


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


def planned_models(of: Models, calls: list[Call]) -> PlannedModels:
    """The same models for an estimate.

    Args:
        of: The models of a run.
        calls: Gets a note of each call.
    """
    made = PlannedModels(of.pipeline, of.store, of.items, of.log, of.report)
    made.calls = calls
    return made
