"""The HTTP clients of an LM: DSPy's native client and LiteLLM, with a limit on what a reply may hold.

Either client reads a reply into memory whole, however long it is, and LiteLLM follows redirects with the key. So both
get a transport that closes the connection where a reply is too long, and refuses redirects.
"""

from __future__ import annotations

import asyncio
import atexit
import zlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dspy
import httpx
from dspy._vendor.lm15.transports import AsyncTransportResponse, StdlibAsyncTransport, TransportRequest
from dspy.clients.backend_selection import CLIENT_KEYS, select_backend
from dspy.clients.engines.litellm_engine import AsyncLiteLLMEngine, LiteLLMEngine
from dspy.clients.engines.lm15_engine import AsyncLM15Engine, LM15Engine
from dspy.lm15 import Request, RouterConfig, UnsupportedFeatureError, _definitions

from divcon.distill._body import StreamMender, mended
from divcon.distill._client_errors import NotAReply, TooManyBytes

if TYPE_CHECKING:
    import aiohttp

_REPLY_BYTES = 1_000_000
_TOKEN_BYTES = 16
_FRAMING = 32  # the bytes of a stream for each byte of its text
_LINE_BYTES = 1_000_000  # no chunk of a stream is longer
_INFLATED = 65_536  # bytes that are decompressed at a time
_WINDOWS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}


def reply_bytes(max_tokens: int | None) -> int:
    """The largest number of bytes in a reply where none is set: a million, and 16 for each token."""
    return _REPLY_BYTES + _TOKEN_BYTES * (max_tokens or 0)


class Clients:
    """The clients of one LM, each made on first use in the event loop that uses it.

    Args:
        lm: The LM. It is copied with the changes below.
        timeout: The clients' own time limits.
        most: The largest number of bytes in a reply.

    Attributes:
        native: Whether DSPy's native client can be used, which is the one that streams.
    """

    def __init__(self, lm: dspy.LM, timeout: httpx.Timeout, most: int) -> None:
        self._lm = lm.copy(num_retries=0, timeout=timeout)
        self._timeout = timeout
        self._selection = select_backend(self._lm)
        self.native: bool = self._selection.native
        self.most = most
        self._loop: asyncio.AbstractEventLoop | None = None
        self._made: dict[str, dspy.LM] = {}
        self._transports: list[StdlibAsyncTransport] = []

    async def aclose(self) -> None:
        """Close the connections, in the event loop that uses them; a later call opens new ones.

        No garbage collector would, since the event loop holds every open connection.
        """
        transports, self._transports, self._made = self._transports, [], {}
        for transport in transports:
            await transport.aclose()
        await self._lm.aclose()

    def for_stream(self) -> dspy.LM:
        """The LM on the native client, which refuses a request that it can't send."""
        return self._once("native", self._native)

    def for_whole(self, request: Request) -> dspy.LM:
        """The LM on the client that a request needs; a request that the native client can't send needs LiteLLM."""
        if self.native and self._can_send(request):
            return self.for_stream()
        return self._once("litellm", self._litellm)

    def _once(self, name: str, make: Callable[[], dspy.LM]) -> dspy.LM:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # a forked process has a loop of its own, and connections belong to a loop
            self._loop, self._made, self._transports = loop, {}, []
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _can_send(self, request: Request) -> bool:
        if self._lm.engine == "lm15":
            return True
        try:
            self._planner.plan(request)
        except UnsupportedFeatureError:
            return False
        return True

    @cached_property
    def _planner(self) -> LM15Engine:
        return LM15Engine(self._routes(None), model_type=self._lm.model_type)

    def _routes(self, transport: Any) -> RouterConfig:
        """What DSPy itself tells its native client, with another transport."""
        clients, provider = self._selection.clients, self._selection.resolution.provider
        url = clients.get("api_base") or clients.get("base_url")
        return RouterConfig(
            api_keys={provider: clients["api_key"]} if "api_key" in clients else None,
            base_urls={provider: url} if url else None,
            providers=_definitions(self._lm._providers),
            transport=transport,
        )

    def _native(self) -> dspy.LM:
        limits = self._timeout
        inner = StdlibAsyncTransport(
            connect_timeout=limits.connect or 0.0,
            read_timeout=limits.read or 0.0,
            write_timeout=limits.write or 0.0,
            pool_timeout=limits.pool,
        )
        self._transports.append(inner)
        engine = AsyncLM15Engine(self._routes(_Bounded(inner, self.most)), model_type=self._lm.model_type)
        return self._on(self._planner, engine)

    def _litellm(self) -> dspy.LM:
        resolution = self._selection.resolution
        if self._lm.model_type == "text" or (resolution is not None and resolution.declared):
            return self._lm  # DSPy's own way to LiteLLM is another one for these
        engine = _BoundedLiteLLM(self.most, model_type=self._lm.model_type, **self._selection.clients)
        return self._on(LiteLLMEngine(model_type=self._lm.model_type), engine)

    def _on(self, engine: Any, async_engine: Any) -> dspy.LM:
        owned = {key: None for key in CLIENT_KEYS if key in self._lm.kwargs}  # an engine has them already
        return self._lm.copy(engine=engine, async_engine=async_engine, **owned)


# -- the native client ---------------------------------------------------------------------------------------------


class _Bounded:
    """A transport of the native client that reads no more than it may of a reply."""

    def __init__(self, inner: StdlibAsyncTransport, most: int) -> None:
        self._inner = inner
        self._most = most

    @asynccontextmanager
    async def stream(self, request: TransportRequest) -> AsyncIterator[AsyncTransportResponse]:
        async with self._inner.stream(request) as response:
            headers = {name.lower(): value for name, value in response.headers}
            _require_reply(response.status, headers)
            coded = headers.get("content-encoding", "identity") != "identity"

            async def no_release(_consumed: bool) -> None: ...

            yield AsyncTransportResponse(
                status=response.status,
                reason=response.reason,
                headers=response.headers,
                http_version=response.http_version,
                chunks=_read(response, _limit(headers, self._most), mends=response.status == 200 and not coded),
                release=no_release,  # the inner response releases its connection
            )

    async def aclose(self) -> None:
        await self._inner.aclose()


async def _read(chunks: AsyncIterator[bytes], count: _Count, *, mends: bool) -> AsyncIterator[bytes]:
    """The bytes of a reply, counted, and mended where they are text."""
    whole = b""
    stream = StreamMender()
    async for chunk in chunks:
        count.add(chunk)
        if not mends:
            yield chunk
        elif not count.streamed:
            whole += chunk
        elif lines := stream.feed(chunk):
            yield lines
    if mends and (rest := stream.end() if count.streamed else mended(whole)):
        yield rest


class _Count:
    """Counts the bytes of a reply.

    Args:
        most: The largest number of bytes.
        streamed: Whether the reply is a stream, which has framing, and whose lines are limited too.

    Attributes:
        streamed: The same.
    """

    def __init__(self, most: int, streamed: bool) -> None:
        self._most = most
        self.streamed = streamed
        self._left = most * _FRAMING if streamed else most
        self._line = 0

    def add(self, chunk: bytes) -> None:
        """Count a chunk.

        Raises:
            TooManyBytes: The reply is too long.
        """
        self._left -= len(chunk)
        if self.streamed:
            end = chunk.rfind(b"\n")
            self._line = self._line + len(chunk) if end < 0 else len(chunk) - end
        if self._left < 0 or self._line > _LINE_BYTES:
            raise too_long(self._most)


def too_long(most: int) -> TooManyBytes:
    """The error about a reply of more than `most` bytes."""
    return TooManyBytes(f"the reply has more than {most:,} bytes, and was cut off")


def _require_reply(status: int, headers: Any) -> None:
    """Raise `NotAReply` for a redirect, which would take the key along, and for what can't be decompressed safely."""
    if 300 <= status < 400:
        where = headers.get("location") or "no address"
        raise NotAReply(f"the server answers {status} and redirects to {where}, which is not followed with the key")
    if "," in (headers.get("content-encoding") or ""):
        raise NotAReply("the reply is compressed several times over")


def _limit(headers: Any, most: int) -> _Count:
    """The count of a reply. Raises `TooManyBytes` where the headers already say that it is too long."""
    streamed = "text/event-stream" in (headers.get("content-type") or "")
    said = headers.get("content-length") or ""
    if not streamed and said.isdigit() and int(said) > most:
        raise too_long(most)
    return _Count(most, streamed)


# -- LiteLLM -------------------------------------------------------------------------------------------------------

_most: ContextVar[int] = ContextVar("divcon_reply_bytes", default=_REPLY_BYTES)
_session: tuple[asyncio.AbstractEventLoop, aiohttp.ClientSession] | None = None


class _BoundedLiteLLM(AsyncLiteLLMEngine):
    """LiteLLM with connections that read no more than they may of a reply."""

    def __init__(self, most: int, **options: Any) -> None:
        super().__init__(**options)
        self._most = most

    def _arguments(self, request: Request, *, streaming: bool = False) -> dict[str, Any]:
        _most.set(self._most)  # each request is a task of its own
        arguments: dict[str, Any] = super()._arguments(request, streaming=streaming)
        return {**arguments, "shared_session": _bounded_session()}


def _bounded_session() -> aiohttp.ClientSession:
    """The session of the running event loop, which all LMs share."""
    global _session
    import aiohttp

    loop = asyncio.get_running_loop()
    if _session is None or _session[0] is not loop or _session[1].closed:

        class Reply(aiohttp.ClientResponse):
            async def start(self, connection: Any) -> aiohttp.ClientResponse:
                await super().start(connection)
                _require_reply(self.status, self.headers)
                count = _limit(self.headers, _most.get())
                self.content = _CountedContent(self.content, self.headers.get("content-encoding"), count)  # type: ignore[assignment]
                return self

        tracing = aiohttp.TraceConfig()
        tracing.on_request_start.append(_ask_for_identity)
        _session = (loop, aiohttp.ClientSession(response_class=Reply, trace_configs=[tracing], trust_env=True))
    return _session[1]


async def _ask_for_identity(session: Any, context: Any, sent: Any) -> None:
    sent.headers["Accept-Encoding"] = "identity"


class _CountedContent:
    """The content of a LiteLLM reply, counted while it is read; a compressed one is counted as if decompressed."""

    def __init__(self, content: Any, coding: str | None, count: _Count) -> None:
        self._content = content
        self._count = count
        self._inflate: Any = None
        if coding and coding != "identity":
            if coding not in _WINDOWS:
                raise NotAReply(f"the reply is compressed with {coding}, which was not asked for")
            self._inflate = zlib.decompressobj(_WINDOWS[coding])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        whole = b""
        async for chunk in self._content.iter_chunked(size):
            for piece in self._inflated(chunk):
                self._count.add(piece)
            if self._inflate is None:
                whole += chunk  # LiteLLM reads it whole too
            else:
                yield chunk
        if whole:
            yield mended(whole)

    def _inflated(self, chunk: bytes) -> Iterable[bytes]:
        if self._inflate is None:
            yield chunk
            return
        with suppress(zlib.error):  # the client reports broken data
            while chunk:
                yield self._inflate.decompress(chunk, _INFLATED)
                chunk = self._inflate.unconsumed_tail


@atexit.register
def _close_session() -> None:
    if _session is None or not _session[0].is_running():
        return
    with suppress(TimeoutError):
        asyncio.run_coroutine_threadsafe(_session[1].close(), _session[0]).result(2.0)
