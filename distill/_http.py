"""An LM over HTTP, asked with patience: replies are streamed inside where the server can.

Time limits are limits on silence, not on a reply as a whole, so that a slow server is slow and not unreachable.
"""

from __future__ import annotations

import asyncio
import functools
import random
from dataclasses import replace
from typing import Any

import dspy
import httpx
from dspy.clients.backend_selection import select_backend
from dspy.clients.call_result import usage_dict
from dspy.clients.capabilities import resolve
from dspy.lm15 import Request, Response
from dspy.utils.exceptions import (
    ContextWindowExceededError,
    LMError,
    LMInvalidRequestError,
    LMStreamAssemblyError,
    LMTimeoutError,
    LMTransportError,
    LMUnsupportedFeatureError,
    LMUnsupportedModelError,
    is_retryable_lm_error,
)
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt

from divcon.distill._engine import as_inner_call
from divcon.distill._loop import on_the_loop
from divcon.distill._pace import Turn, pace_of
from divcon.distill._traffic import Call, current_call
from divcon.distill._trouble import (
    LONGEST_WAIT,
    Limit,
    Patience,
    SlowServerError,
    asks_for_too_long,
    in_words,
    overload,
)

# Until the first request has shown whether a server streams, others wait this long for it to show.
_FINDING_OUT = 10.0
_CONNECT = 10.0  # as DSPy's native client has it


class LMBackend:
    """A `dspy.LM` over HTTP, on DSPy's native client or LiteLLM.

    Replies are streamed where the native client is used and the server can, and come out whole; a server that refuses
    is asked for whole ones from then on, and so is one that is quick, while it is: a stream costs a millisecond.
    LiteLLM's streams aren't used: where a server doesn't tell what a reply used it makes that up, and an answer that is
    no stream comes out empty. All calls to one server share a pace, and a call is repeated `lm.num_retries` times at
    most.

    Args:
        lm: The LM; its own cache is off, since the run store is the cache. One with an engine of its own, or of a
            class of its own, is called as it is.
        patience: How long replies are waited for. By default a `timeout` that the LM has is its limit for everything.
    """

    def __init__(self, lm: dspy.LM, patience: Patience | None = None) -> None:
        self.lm = lm
        given = lm.kwargs.get("timeout")
        if patience is None:
            patience = Patience(given, given, given) if isinstance(given, (int, float)) else Patience()
        self.patience = patience
        self._as_it_is = type(lm) is not dspy.LM or not isinstance(lm.engine, str)
        self._address = lm.kwargs.get("api_base") or lm.kwargs.get("base_url")
        self.pace = pace_of(self._address or lm.model)
        # The limits are ours; the client's own must not be met before them.
        limit = httpx.Timeout(patience.longest + _CONNECT, connect=_CONNECT)
        self._once = lm if self._as_it_is else lm.copy(num_retries=0, timeout=limit)
        native = not self._as_it_is and select_backend(self._once).native
        # What the native client can't carry it refuses before it sends anything, instead of handing it to LiteLLM.
        self._streaming = self._once.copy(engine="lm15") if native else None

    def __deepcopy__(self, memo: dict[int, Any]) -> LMBackend:
        return self

    def complete(self, request: Request, rollout: int) -> Response:
        """The reply to a request.

        Raises:
            SlowServerError: The server was silent for too long.
            dspy.LMError: It had too much, can't be reached, or failed otherwise.
        """
        if self._as_it_is:
            with as_inner_call(rollout):
                return self._counted(self.lm(request))
        flight = on_the_loop(self._reply(request, rollout))
        try:
            return flight.result()
        except BaseException:
            flight.cancel()  # Ctrl-C; otherwise it has ended
            raise

    async def acomplete(self, request: Request, rollout: int) -> Response:
        """`complete`, awaited."""
        if self._as_it_is:
            with as_inner_call(rollout):
                return self._counted(await self.lm.acall(request))
        return await asyncio.wrap_future(on_the_loop(self._reply(request, rollout)))

    # -- on the loop -----------------------------------------------------------------------------------------------

    async def _reply(self, request: Request, rollout: int) -> Response:
        call = current_call()
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.lm.num_retries + 1),
            retry=retry_if_exception(lambda error: is_retryable_lm_error(error) and not asks_for_too_long(error)),
            wait=functools.partial(self._pause, call),
            sleep=asyncio.sleep,
            reraise=True,
        )
        again = False

        async def attempt() -> Response:
            nonlocal again
            before, again = again, True
            finding_out = await self._let_one_find_out(request, call)
            try:
                async with self.pace.turn(call, before) as turn:
                    return await self._asked(request, rollout, call, turn)
            finally:
                if finding_out is not None and not finding_out.done():
                    finding_out.set_result(None)

        try:
            return self._counted(await retrying(attempt))
        except LMError as error:
            if (worded := in_words(error)) is None:
                raise
            raise worded from error

    def _pause(self, call: Call, state: RetryCallState) -> float:
        """Seconds until a failed request is asked again; where the server said how long, the pace waits for all."""
        assert state.outcome is not None
        error = state.outcome.exception()
        assert isinstance(error, LMError)  # nothing else is asked again
        why = overload(error)
        if why and error.retry_after:
            return 0.0
        seconds = error.retry_after or 2.0 ** (state.attempt_number - 1) * random.uniform(0.5, 1.0)
        seconds = min(60.0, seconds)
        why = why or ("a time-out" if isinstance(error, LMTimeoutError) else "a failed request")
        call.holds(f"{why}, asked again within {max(1, round(seconds))} s")
        return seconds

    async def _asked(self, request: Request, rollout: int, call: Call, turn: Turn) -> Response:
        """One request, with what its outcome says about the pace."""
        started = asyncio.get_running_loop().time()
        try:
            response = await self._streamed_or_whole(request, rollout, call)
        except LMError as error:
            wait = error.retry_after
            if (why := overload(error)) is not None:
                turn.too_much(why, wait if wait is None or wait <= LONGEST_WAIT else None)
            elif isinstance(error, LMTimeoutError):
                turn.too_much("a time-out")
            raise
        turn.answered()
        self.pace.took(asyncio.get_running_loop().time() - started)
        self.pace.heard = True
        return response

    async def _streamed_or_whole(self, request: Request, rollout: int, call: Call) -> Response:
        pace = self.pace
        call.waits()
        if pace.streams is False or pace.quick or not self._may_stream(request):
            return await self._heard(request, rollout, call, None)
        listener = _Listener(self, call)
        try:
            response = await self._heard(request, rollout, call, listener)
        except LMUnsupportedFeatureError:
            # The native client can't carry this request. Nothing was sent.
            return await self._heard(request, rollout, call, None)
        except LMStreamAssemblyError as error:
            if pace.streams or listener.tokens:
                if not listener.tokens:
                    pace.streams = None  # perhaps another server has its address now: found out again
                raise LMTransportError(f"the reply broke off: {error.message}", model=self.lm.model) from error
        except LMInvalidRequestError as error:
            about_it = isinstance(error, (ContextWindowExceededError, LMUnsupportedModelError))
            if pace.streams or listener.tokens or about_it:
                raise
        else:
            pace.streams = True
            return _as_if_whole(response)
        # Refused, or answered with one object that has no piece of a stream in it.
        pace.streams = False
        listener.found_out()
        try:
            return await self._heard(request, rollout, call, None)
        except LMInvalidRequestError:
            pace.streams = None  # it wasn't for the stream
            raise

    def _may_stream(self, request: Request) -> bool:
        # A stream has no probabilities of choices in it.
        return self._streaming is not None and request.config.probabilities in (None, "off")

    async def _let_one_find_out(self, request: Request, call: Call) -> asyncio.Future[None] | None:
        """Whether a server streams is found out by one request, since a reply that can't be read is paid for too.

        Returns:
            What the others wait for, where this is the one; a provider's own servers stream, and nobody waits.
        """
        pace = self.pace
        if pace.streams is not None or self._address is None or not self._may_stream(request):
            return None
        first = pace.finding_out
        if first is None or first.done():
            mine = pace.finding_out = asyncio.get_running_loop().create_future()
            return mine
        call.waits()
        await asyncio.wait({first}, timeout=_FINDING_OUT)
        return None

    async def _heard(self, request: Request, rollout: int, call: Call, listener: _Listener | None) -> Response:
        """The reply to one request, unless the server is silent for too long.

        Raises:
            SlowServerError: It is.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        if listener is not None:
            listener.last = started
        lm = self._once if listener is None or self._streaming is None else self._streaming
        with as_inner_call(rollout, listener):
            asking = asyncio.ensure_future(lm.acall(request))
        try:
            while True:
                limit, deadline = self._deadline(started, listener)
                left = deadline - loop.time()
                if left <= 0:
                    raise self._too_silent(limit, listener)
                # No longer than a token may take, since the first one makes the time that is left shorter.
                done, _ = await asyncio.wait({asking}, timeout=min(left, self.patience.silence))
                if done:
                    return asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait({asking}, timeout=_CONNECT)  # it closes its connection

    def _deadline(self, started: float, listener: _Listener | None) -> tuple[Limit, float]:
        patience = self.patience
        limit: Limit = "first_token"
        deadline = started + patience.first_token
        if listener is not None and listener.tokens:
            limit, deadline = "silence", listener.last + patience.silence
        ceiling = started + patience.longest
        return (limit, deadline) if deadline <= ceiling else ("longest", ceiling)

    def _too_silent(self, limit: Limit, listener: _Listener | None) -> SlowServerError:
        patience, tokens = self.patience, listener.tokens if listener is not None else 0
        said = {
            "first_token": f"no token within {patience.first_token:g} s",
            "silence": f"no token for {patience.silence:g} s, after {tokens}",
            "longest": f"no end after {patience.longest:g} s and {tokens} tokens",
        }
        mute = limit == "first_token" and not self.pace.heard
        return SlowServerError(said[limit], limit, mute, model=self.lm.model)

    # -- what is billed --------------------------------------------------------------------------------------------

    def _counted(self, response: Response) -> Response:
        """The response with all that is billed in its counters.

        A native client gives the provider's own: Anthropic's input leaves out what was cached, the output of Gemini
        and xAI what was thought. DSPy mends that for an LM whose provider it knows, which the one in front isn't.
        """
        if self._provider is None:
            return response
        data = usage_dict(response, self._provider)
        usage = replace(
            response.usage, input_tokens=data.get("prompt_tokens"), output_tokens=data.get("completion_tokens")
        )
        return replace(response, usage=usage)

    @functools.cached_property
    def _provider(self) -> str | None:
        """The provider whose own client is used; None where LiteLLM is, or an engine of one's own."""
        if getattr(self.lm, "engine", "auto") != "auto":
            return None
        try:
            provider: str = resolve(self.lm).provider
        except Exception:  # noqa: BLE001 - DSPy has no native client for this name
            return None
        return provider if provider.startswith(("anthropic", "gemini", "vertex", "xai")) else None


class _Listener:
    """Is sent the pieces of one reply as they come; what DSPy has for showing them is used for counting them.

    Keep-alive bytes aren't pieces, so a server that sends nothing else is silent.
    """

    def __init__(self, backend: LMBackend, call: Call) -> None:
        self.tokens = 0
        self.last = 0.0
        self._pace = backend.pace
        self._call = call

    async def send(self, piece: Any) -> None:
        self.last = asyncio.get_running_loop().time()
        if piece["choices"][0]["finish_reason"] is None:
            if not self.tokens:
                self._pace.streams = self._pace.heard = True
                self.found_out()
            self.tokens += 1
            self._call.writes()

    def found_out(self) -> None:
        """Let those go on who wait to know whether the server streams."""
        first = self._pace.finding_out
        if first is not None and not first.done():
            first.set_result(None)


def _as_if_whole(response: Response) -> Response:
    """A streamed reply with the name and id of a whole one, which DSPy's native client leaves in the last piece."""
    last = response.provider_data or {}
    if last.get("object") != "chat.completion.chunk":
        return response
    return replace(response, id=last.get("id") or response.id, model=last.get("model") or response.model)
