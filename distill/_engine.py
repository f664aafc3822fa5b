"""Role LMs: `dspy.LM` objects whose calls go through the run store, whatever serves them.

In DSPy 3.4 an LM may have an engine object (`complete(Request) -> Response`) in place of an HTTP endpoint. The engine
here masks each reply of secrets, and puts it on disk before it returns it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import dspy
from dspy._vendor.lm15.serde import request_to_dict, response_from_dict, response_to_dict
from dspy.lm15 import Request, Response, response_to_events

from divcon.distill._booking import booked_under, booking
from divcon.distill._budget import Budget, Reservation, worst_case
from divcon.distill._database import StoreError
from divcon.distill._reply import as_read, counters_of, why_unusable
from divcon.distill._rollouts import RolloutNote, next_rollout
from divcon.distill._store import RunStore, fingerprint
from divcon.distill._teacher import RecordedTeacher
from divcon.distill._traffic import Call, current_traffic
from divcon.distill._trouble import UnusableReplyError
from divcon.programs import Meter, Usage
from divcon.programs._ledger import record_call
from divcon.signatures import errors_masked, masked_values


class Backend(Protocol):
    """What answers a request: an in-process model, a script, or an LM over HTTP."""

    def complete(self, request: Request, rollout: int) -> Response: ...

    async def acomplete(self, request: Request, rollout: int) -> Response: ...


@dataclass
class _Flight:
    """A call on its way.

    Attributes:
        call: Its state, as users see it.
        started: When it was sent, in seconds of a monotonic clock.
        used: What it has used; None before it is answered.
    """

    call: Call
    started: float
    used: Usage | None = None


class StoredEngine:
    """An engine that answers from the run store, and asks the backend for what is not there.

    Equal requests that are in flight at the same time become one call. Copies of an LM share the engine.

    Args:
        backend: Answers the requests that aren't in the store.
        role: The role that makes the calls.
        model: The public name of the model.
        identity: What decides the model's answers, such as the server and the weights. It is part of every key. The
            model's name by default.
        store: The store that keeps the replies; None keeps nothing.
        price: US dollars per million tokens, by `input` and `output`; None where the price is unknown or there is none.
        accepts_empty: Whether an empty reply is an answer. It is where the model runs under our control: it would say
            nothing again. From a server of others it is a failure.
    """

    def __init__(
        self,
        backend: Backend,
        role: str,
        model: str,
        store: RunStore | None,
        price: Mapping[str, float] | None = None,
        identity: str | None = None,
        accepts_empty: bool = False,
    ) -> None:
        self.accepts_empty = accepts_empty
        self.identity = identity or model
        self._broken: StoreError | None = None
        self.backend = backend
        self.role = role
        self.model = model
        self.store = store
        self.meter = Meter(price)
        self._lock = threading.Lock()
        self._flying: dict[str, Future[Response | None]] = {}
        self._loops: dict[str, asyncio.AbstractEventLoop | None] = {}

    def __deepcopy__(self, memo: dict[int, Any]) -> StoredEngine:
        return self

    def complete(self, request: Request) -> Response:
        key, asked, rollout = self._key(request)
        record_call(key)
        while True:
            if stored := self._stored(key):
                return stored
            flight, mine = self._claim(key)
            if mine:
                break
            if self._loops.get(key) is _running_loop() is not None:
                # The event loop that fetches the reply can't run while this call blocks its thread. Waiting would
                # be a deadlock, so the request is sent a second time.
                return self._fetch(fingerprint(key, "again"), request, asked, rollout)
            if landed := flight.result():
                return landed
        try:
            # The reply may have been stored between the lookup and the claim, so it is looked up again.
            response = self._stored(key) or self._fetch(key, request, asked, rollout)
        except BaseException as error:
            error.add_note(f"role: {self.role}")
            self._land(key, flight, error)
            raise
        self._land(key, flight, response)
        return response

    def _fetch(self, key: str, request: Request, asked: dict[str, Any], rollout: int) -> Response:
        """The backend's reply, stored before it is returned."""
        budget = self._budget
        hold = budget.admit(booking()[0], self._worst_case(request, asked)) if budget is not None else None
        with self._flight(hold) as flight:
            sent = self.backend.complete(request, rollout)
            return self._received(flight, key, asked, rollout, sent)

    async def _afetch(self, key: str, request: Request, asked: dict[str, Any], rollout: int) -> Response:
        """`_fetch`, awaited."""
        budget = self._budget
        hold = await budget.aadmit(booking()[0], self._worst_case(request, asked)) if budget is not None else None
        with self._flight(hold) as flight:
            sent = await self.backend.acomplete(request, rollout)
            return self._received(flight, key, asked, rollout, sent)

    @property
    def _budget(self) -> Budget | None:
        return self.store.budget if self.store is not None and not self._unpaid else None

    @property
    def _unpaid(self) -> bool:
        """Whether nobody is asked, so that a price is what the plans have cost elsewhere."""
        return isinstance(self.backend, RecordedTeacher)

    def _worst_case(self, request: Request, asked: dict[str, Any]) -> Usage:
        return worst_case(self.meter, len(json.dumps(asked, ensure_ascii=False).encode()), request.config.max_tokens)

    @contextlib.contextmanager
    def _flight(self, hold: Reservation | None) -> Iterator[_Flight]:
        """Track a call, and tell the budget at its end what it has used."""
        with current_traffic().call() as call, errors_masked():
            flight = _Flight(call, time.perf_counter())
            try:
                yield flight
            finally:
                if hold is not None and (budget := self._budget) is not None:
                    budget.settle(hold, flight.used)

    def _received(self, flight: _Flight, key: str, asked: dict[str, Any], rollout: int, sent: Response) -> Response:
        """Store a reply that has just come, and count it.

        Raises:
            UnusableReplyError: It holds no answer. It is on the bill, under a key that no request has.
        """
        seconds, response = time.perf_counter() - flight.started, _masked(as_read(sent))
        flight.used = self.meter.measured(counters_of(response.usage))
        cost = None if flight.used.unpriced_calls else flight.used.cost
        why = self._unusable(sent)
        self._keep(key if why is None else _aside(key), asked, rollout, response, seconds, cost)
        current_traffic().ended(flight.call, response.usage.output_tokens, None if self._unpaid else cost)
        if why is not None:
            raise UnusableReplyError(f"{why}.", model=self.model)
        return response

    def _unusable(self, response: Response) -> str | None:
        return why_unusable(response, empty=self.accepts_empty)

    def stream(self, request: Request) -> Iterator[Any]:
        yield from response_to_events(self.complete(request))

    def close(self) -> None:
        """Nothing to release: backends are shared by the copies of an LM."""

    def _key(self, request: Request) -> tuple[str, dict[str, Any], int]:
        """The reply's key, the request in JSON, and the rollout that tells samples of one prompt apart."""
        asked = {name: value for name, value in request_to_dict(request).items() if name != "model"}
        rollout = next_rollout(fingerprint(asked))
        return fingerprint(self.identity, asked, rollout), asked, rollout

    def _stored(self, key: str) -> Response | None:
        if self._broken is not None:
            raise self._broken  # don't pay for a reply that can't be stored
        stored = self.store.reply(key) if self.store is not None else None
        if stored is None:
            return None
        response = response_from_dict(stored.response)
        if self._unusable(response) is not None:  # older versions kept such replies
            assert self.store is not None
            self.store.set_aside(key, _aside(key))
            return None
        return response

    def _claim(self, key: str) -> tuple[Future[Response | None], bool]:
        """The future of the reply, and whether this caller has to fetch it.

        The future's result is None where the caller that was fetching was cancelled; then another caller has to fetch.
        """
        with self._lock:
            if flight := self._flying.get(key):
                return flight, False
            flight = self._flying[key] = Future()
            self._loops[key] = _running_loop()
            flight.set_running_or_notify_cancel()  # so that one cancelled waiter doesn't cancel it for the others
            return flight, True

    def _land(self, key: str, flight: Future[Response | None], outcome: Response | BaseException) -> None:
        with self._lock:
            self._flying.pop(key, None)
            self._loops.pop(key, None)
        if isinstance(outcome, Exception):
            flight.set_exception(outcome)
        else:
            flight.set_result(None if isinstance(outcome, BaseException) else outcome)

    def _keep(
        self, key: str, asked: dict[str, Any], rollout: int, response: Response, seconds: float, cost: float | None
    ) -> None:
        """Put a reply into the store."""
        store = self.store
        if store is None:
            return
        try:
            store.keep_reply(
                key,
                role=self.role,
                station=booked_under(),
                model=self.model,
                request=asked,
                rollout=rollout,
                response=response_to_dict(response),
                seconds=seconds,
                cost=cost,
            )
        except StoreError as error:
            self._broken = error
            raise


def _aside(key: str) -> str:
    """A key for a reply that is no answer: no request has it."""
    return fingerprint(key, "unusable", time.time_ns())


def _masked(response: Response) -> Response:
    """The reply without the secrets that a server has echoed."""
    said = response_to_dict(response)
    return response if (kept := masked_values(said)) == said else response_from_dict(kept)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class AsyncStoredEngine:
    """The async half of `StoredEngine`, over the same backend and store."""

    def __init__(self, sync: StoredEngine) -> None:
        self.sync = sync

    def __deepcopy__(self, memo: dict[int, Any]) -> AsyncStoredEngine:
        return self

    async def complete(self, request: Request) -> Response:
        key, asked, rollout = self.sync._key(request)
        record_call(key)
        while True:
            if stored := self.sync._stored(key):
                return stored
            flight, mine = self.sync._claim(key)
            if mine:
                break
            if landed := await asyncio.wrap_future(flight):
                return landed
        try:
            response = self.sync._stored(key) or await self.sync._afetch(key, request, asked, rollout)
        except BaseException as error:
            error.add_note(f"role: {self.sync.role}")
            self.sync._land(key, flight, error)
            raise
        self.sync._land(key, flight, response)
        return response

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        for event in response_to_events(await self.complete(request)):
            yield event

    async def aclose(self) -> None:
        """See `StoredEngine.close`."""


def role_lm(engine: StoredEngine, *, temperature: float | None, max_tokens: int | None, **asked: Any) -> dspy.LM:
    """The `dspy.LM` of a role, on a stored engine.

    DSPy's own cache is off: its key ignores the endpoint, and its entries are pickles. DSPy's retries are off, because
    the backend retries.
    """
    lm = dspy.LM(
        engine.model,
        engine=engine,
        async_engine=AsyncStoredEngine(engine),
        cache=False,
        num_retries=0,
        temperature=temperature,
        max_tokens=max_tokens,
        callbacks=[RolloutNote()],
        **asked,
    )
    lm.divcon_meter = engine.meter
    return lm
