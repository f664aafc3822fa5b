"""An LM over HTTP, for slow servers too: replies are streamed internally where the server supports it.

Time limits hold for the time between two tokens rather than for a whole reply, so a slow server isn't taken for one
that is down.
"""

from __future__ import annotations

import asyncio
import functools
from concurrent.futures import wait
from dataclasses import replace
from typing import Any

import dspy
import httpx
from dspy.clients.call_result import usage_dict
from dspy.clients.capabilities import resolve
from dspy.lm15 import Request, Response
from dspy.utils.exceptions import (
    ContextWindowExceededError,
    LMError,
    LMInvalidRequestError,
    LMStreamAssemblyError,
    LMTransportError,
    LMUnsupportedFeatureError,
    LMUnsupportedModelError,
    is_retryable_lm_error,
)

from divcon.distill._client_errors import told_apart
from divcon.distill._clients import Clients, reply_bytes, too_long
from divcon.distill._loop import on_the_loop
from divcon.distill._pace import Pace, Turn, pace_of
from divcon.distill._proxies import reach_loopback_directly
from divcon.distill._repeating import RETRY_SHARE, Attempts, Repeating
from divcon.distill._rollouts import as_inner_call
from divcon.distill._traffic import Call, current_call
from divcon.distill._trouble import Limit, Patience, SlowServerError, in_words
from divcon.signatures import learn_settings

# Seconds that other requests wait for the first request, which shows whether the server streams.
_FINDING_OUT = 10.0
_CONNECT = 10.0  # seconds; the value of DSPy's native client
_SILENT = 30.0  # seconds of silence after which users are told of it
_LOOK = 5.0  # seconds between two looks at a silent server
# A server's replies may differ: one may take so many times as long as the others on average.
_UNUSUAL = 4.0


class LMBackend:
    """A `dspy.LM` over HTTP, on DSPy's native client or LiteLLM.

    Replies are streamed where the native client is used and the server supports it; callers get whole replies. Replies
    aren't streamed from a server that refuses it, nor from a server while it is quick, since a stream costs a
    millisecond. LiteLLM's streams aren't used: it makes up the token counts that a server leaves out, and returns an
    empty reply where a server doesn't stream. All calls to one server share a pace and a circuit breaker.

    A failed call is repeated `lm.num_retries` times at most, not after `patience.give_up` seconds, and not where the
    budget of retries is used up. With `num_retries=0` a call doesn't wait for a failing server either.

    Args:
        lm: The LM. Its own cache must be off, since the run store is the cache. An LM with an engine object, or of a
            subclass of `dspy.LM`, is called directly.
        patience: The time limits. By default the LM's `timeout`, where it has one, is used for each of them.
        retry_share: Retries that may be made in all, as a share of the calls; the first 20 are free.
        most_bytes: The largest number of bytes in a reply; by default a million, and 16 for each token of the LM's
            limit.
    """

    def __init__(
        self,
        lm: dspy.LM,
        patience: Patience | None = None,
        retry_share: float = RETRY_SHARE,
        most_bytes: int | None = None,
    ) -> None:
        self.lm = lm
        learn_settings(lm.kwargs)
        given = lm.kwargs.get("timeout")
        if patience is None:
            patience = Patience(given, given, given) if isinstance(given, (int, float)) else Patience()
        self.patience = patience
        self._as_it_is = type(lm) is not dspy.LM or not isinstance(lm.engine, str)
        self._address = lm.kwargs.get("api_base") or lm.kwargs.get("base_url")
        reach_loopback_directly(self._address or "")
        self.pace = pace_of(self._address or lm.model)
        self._repeating = Repeating(lm.num_retries, patience, retry_share, self.pace)
        self._clients: Clients | None = None
        if not self._as_it_is:
            longest_reply = lm.kwargs.get("max_tokens") or lm.kwargs.get("max_completion_tokens")
            most = most_bytes if most_bytes is not None else reply_bytes(longest_reply)
            # The client's own limit is longer than ours, so that ours always comes first.
            limit = httpx.Timeout(patience.longest + _CONNECT, connect=_CONNECT)
            self._clients = Clients(lm, limit, most)

    def __deepcopy__(self, memo: dict[int, Any]) -> LMBackend:
        return self

    def close(self) -> None:
        """Close the connections; a later call opens new ones. An LM that is called directly stays open."""
        if self._clients is not None:
            wait([on_the_loop(self._clients.aclose())], _CONNECT)

    def complete(self, request: Request, rollout: int) -> Response:
        """The reply to a request.

        Raises:
            SlowServerError: The server was silent for too long.
            GivenUpError: The server has failed for so long that it isn't asked any more.
            UnreadableReplyError: The server sent something that is no reply.
            dspy.LMError: The server was overloaded, couldn't be reached, or failed otherwise.
        """
        if self._as_it_is:
            with as_inner_call(rollout):
                return self._counted(self.lm(request))
        flight = on_the_loop(self._reply(request, rollout))
        try:
            return flight.result()
        except BaseException:
            flight.cancel()  # after Ctrl-C it may still run; after any other error it has ended
            raise

    async def acomplete(self, request: Request, rollout: int) -> Response:
        """`complete`, awaited."""
        if self._as_it_is:
            with as_inner_call(rollout):
                return self._counted(await self.lm.acall(request))
        return await asyncio.wrap_future(on_the_loop(self._reply(request, rollout)))

    # -- on the loop -----------------------------------------------------------------------------------------------

    async def _reply(self, request: Request, rollout: int) -> Response:
        call, attempts = current_call(), Attempts()

        async def attempt() -> Response:
            again = attempts.began is not None
            finding_out = await self._let_one_find_out(request, call)
            try:
                patient = self.lm.num_retries > 0
                async with self.pace.turn(call, again, self.patience.give_up, patient) as turn:
                    attempts.add(turn, self.pace.now())
                    return await self._asked(request, rollout, call, turn)
            finally:
                if finding_out is not None and not finding_out.done():
                    finding_out.set_result(None)

        try:
            return self._counted(await self._repeating.of_call(call, attempts)(attempt))
        except LMError as error:
            if error.status == 404:
                await asyncio.to_thread(self._require_address)
            if (worded := in_words(error)) is None:
                raise
            raise worded from error

    def _require_address(self) -> None:
        """Raise, after a 404, where the server answers at its address with `/v1`.

        Raises:
            WrongAddress: It does. Every further call would fail in the same way.
        """
        from divcon.distill.serving.server import ServerClient, WrongAddress

        if self._address and (meant := ServerClient(self._address, self.lm.kwargs.get("api_key")).meant()) is not None:
            problem = f"The server at {self._address} answers 404 when {self.lm.model} is asked."
            raise WrongAddress(problem, f"Did you mean {meant}? Correct api_base.")

    async def _asked(self, request: Request, rollout: int, call: Call, turn: Turn) -> Response:
        """Send one request, and tell the pace how it ended."""
        try:
            response = await self._streamed_or_whole(request, rollout, call)
        except LMError as raised:
            error = told_apart(raised)
            if is_retryable_lm_error(error):
                turn.failed(error, self.patience.give_up)
            else:
                turn.refused()
            raise error from (raised if error is not raised else raised.__cause__)
        turn.answered()
        return response

    async def _streamed_or_whole(self, request: Request, rollout: int, call: Call) -> Response:
        pace = self.pace
        call.waits()
        if pace.streams is False or pace.quick or not self._may_stream(request):
            return await self._heard(request, rollout, call, None)
        assert self._clients is not None
        listener = _Listener(pace, call, self._clients.most)
        try:
            response = await self._heard(request, rollout, call, listener)
        except LMUnsupportedFeatureError:
            # The native client can't carry this request. Nothing was sent.
            return await self._heard(request, rollout, call, None)
        except LMStreamAssemblyError as error:
            if pace.streams or listener.tokens:
                if not listener.tokens:
                    pace.streams = None  # another server may have this address now, so this is to be found out again
                raise LMTransportError(f"the reply broke off: {error.message}", model=self.lm.model) from error
        except LMInvalidRequestError as error:
            about_it = isinstance(error, (ContextWindowExceededError, LMUnsupportedModelError))
            elsewhere = pace.streams and "stream" not in str(error).lower()
            if elsewhere or listener.tokens or about_it:
                raise
        else:
            pace.streams = True
            return _as_if_whole(response)
        # The server refused to stream, or answered with a single object that is no chunk of one. Where it was known
        # to stream, another server may have its address now.
        known, pace.streams = pace.streams, False
        listener.found_out()
        try:
            return await self._heard(request, rollout, call, None)
        except LMInvalidRequestError:
            pace.streams = known  # streaming wasn't the reason for the refusal
            raise

    def _may_stream(self, request: Request) -> bool:
        # A stream doesn't carry the probabilities of choices.
        return self._clients is not None and self._clients.native and request.config.probabilities in (None, "off")

    async def _let_one_find_out(self, request: Request, call: Call) -> asyncio.Future[None] | None:
        """Let one request find out whether the server streams, while the others wait.

        Only one request does it, since a reply that can't be read is paid for too. Providers' own servers are known to
        stream, so no request waits for them.

        Returns:
            The future that the others wait for, where this request is the one that finds out; else None.
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
        """The reply to one request.

        Raises:
            SlowServerError: The server is silent for too long.
        """
        pace = self.pace
        started = pace.now()
        if listener is not None:
            listener.last = started
        assert self._clients is not None
        lm = self._clients.for_whole(request) if listener is None else self._clients.for_stream()
        with as_inner_call(rollout, listener):
            asking = asyncio.ensure_future(lm.acall(request))
        try:
            while True:
                limit, last, deadline = self._deadline(started, listener)
                now = pace.now()
                if deadline <= now:
                    raise self._too_silent(limit, listener)
                if (silent := now - max(last, pace.heard_at)) >= _SILENT:
                    call.hears_nothing(pace.server, silent, deadline - now)
                # Look again soon: a token makes the limit shorter, and others' tokens make it longer.
                done, _ = await asyncio.wait({asking}, timeout=min(deadline - now, self.patience.silence, _LOOK))
                if done:
                    return asking.result()
        finally:
            if not asking.done():
                asking.cancel()
                await asyncio.wait({asking}, timeout=_CONNECT)  # give it time to close its connection

    def _deadline(self, started: float, listener: _Listener | None) -> tuple[Limit, float, float]:
        """The limit that comes next, since when it runs, and until when, on the pace's clock.

        While other replies of the server go on, it works, and this reply is being worked on too. Asking for it again
        would have it written twice.
        """
        patience, heard_at = self.patience, self.pace.heard_at
        limit: Limit
        if listener is not None and listener.tokens:
            limit, last = "silence", listener.last
            # This one reply may be stuck, so the others' tokens don't keep it for ever.
            alive = min(heard_at + patience.silence, last + patience.first_token)
            deadline = max(last + patience.silence, alive)
        else:
            limit, last = "first_token", started
            deadline = started + max(patience.first_token, _UNUSUAL * self.pace.usual)
            if heard_at > started:
                deadline = max(deadline, heard_at + patience.silence)
        ceiling = started + patience.longest
        return (limit, last, deadline) if deadline <= ceiling else ("longest", started, ceiling)

    def _too_silent(self, limit: Limit, listener: _Listener | None) -> SlowServerError:
        patience, tokens = self.patience, listener.tokens if listener is not None else 0
        said = {
            "first_token": f"no token within {patience.first_token:g} s",
            "silence": f"no token for {patience.silence:g} s, after {tokens}",
            "longest": f"no end after {patience.longest:g} s and {tokens} tokens",
        }
        mute = limit == "first_token" and not self.pace.heard
        return SlowServerError(said[limit], limit, mute, model=self.lm.model)

    # -- token counts ----------------------------------------------------------------------------------------------

    def _counted(self, response: Response) -> Response:
        """The response with token counts that hold all billed tokens.

        A native client returns the provider's counts. Anthropic's input count leaves out cached tokens, and the output
        count of Gemini and xAI leaves out reasoning tokens. DSPy corrects this only for an LM whose provider it knows,
        and it doesn't know the provider of an LM with a stored engine.
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
        """The provider whose native client is used; None for LiteLLM and for an engine object."""
        if getattr(self.lm, "engine", "auto") != "auto":
            return None
        try:
            provider: str = resolve(self.lm).provider
        except Exception:  # noqa: BLE001 - DSPy has no native client for this name
            return None
        return provider if provider.startswith(("anthropic", "gemini", "vertex", "xai")) else None


class _Listener:
    """Counts the chunks of one reply as they arrive, through DSPy's hook for showing them.

    Keep-alive bytes aren't chunks, so a server that sends nothing else counts as silent.
    """

    def __init__(self, pace: Pace, call: Call, most: int) -> None:
        self.tokens = 0
        self.last = 0.0
        self._pace = pace
        self._call = call
        self._most = self._left = most

    async def send(self, chunk: Any) -> None:
        self._left -= sum(len(text) for text in chunk["choices"][0]["delta"].values() if isinstance(text, str))
        if self._left < 0:
            raise too_long(self._most)
        if chunk["choices"][0]["finish_reason"] is None:
            self.last = self._pace.now()
            self._pace.hears()
            if not self.tokens:
                self._pace.streams = True
                self.found_out()
            self.tokens += 1
            self._call.writes()

    def found_out(self) -> None:
        """Wake the requests that wait to know whether the server streams."""
        first = self._pace.finding_out
        if first is not None and not first.done():
            first.set_result(None)


def _as_if_whole(response: Response) -> Response:
    """A streamed reply with the id and model of a whole one, which DSPy's native client leaves in the last chunk."""
    last = response.provider_data or {}
    if last.get("object") != "chat.completion.chunk":
        return response
    return replace(response, id=last.get("id") or response.id, model=last.get("model") or response.model)
