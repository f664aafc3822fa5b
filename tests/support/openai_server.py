"""A real HTTP server on loopback that speaks OpenAI's chat protocol, with replies and faults set by the test."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from divcon.distill._pace import forget_pace

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@dataclass(frozen=True)
class Refused:
    """An HTTP error, with a `Retry-After` of so many seconds, and with what the server says."""

    status: int
    retry_after: float | str | None = None
    message: str | None = None


@dataclass(frozen=True)
class Silence:
    """So many tokens, then none until the client or the test has had enough.

    Attributes:
        after: Tokens before.
        keep_alive: Whether comments are sent meanwhile, as proxies do; nothing at all otherwise.
    """

    after: int = 0
    keep_alive: bool = True


@dataclass(frozen=True)
class BrokenOff:
    """So many tokens, then the connection is closed."""

    after: int


@dataclass(frozen=True)
class Whole:
    """A reply with a body of its own; as a stream it is one chunk, and a second one with the usage.

    Attributes:
        body: Replaces what an answer of the server holds, by key; a value of None is sent as null.
        without: The keys that are left out.
    """

    body: dict[str, Any]
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Raw:
    """The bytes of a whole HTTP reply, head and all, after which the connection is closed."""

    pieces: Iterable[bytes]


# Text; text and finish reason; a body; an HTTP status; or what goes wrong on the way.
Reply = str | tuple[str, str] | int | Refused | Silence | BrokenOff | Whole | Raw


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # 64 callers connect at once


@dataclass
class OpenAIServer:
    """Answers `POST /v1/chat/completions`; `reply` gets the request's body. `served` is listed at `/v1/models`.

    Attributes:
        delay: Seconds before each reply.
        rate: Tokens (three characters here) a second for all requests together; as fast as it can without.
        stream: What becomes of a request for a stream: it `gives` one, `refuses` with 400, or `ignores` the wish.
        usage: What each reply says it used; None has a stream say nothing.
        at: When each request came.
        busy: Requests that are being answered.
        sent: Bytes of `Raw` replies that clients have taken.
    """

    reply: Callable[[dict[str, Any]], Reply]
    delay: float = 0.0
    rate: float | None = None
    stream: Literal["gives", "refuses", "ignores"] = "gives"
    usage: dict[str, Any] | None = field(default_factory=lambda: dict(USAGE))
    at: list[float] = field(default_factory=list)
    served: tuple[str, ...] | int = 404
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    busiest: int = 0
    busy: int = 0
    sent: int = 0
    host: str = "127.0.0.1"
    port: int = 0

    def __enter__(self) -> OpenAIServer:
        server = self
        lock = threading.Lock()
        next_token = 0.0
        over = self._over = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if isinstance(server.served, int):
                    self._send(server.served, {"error": {"message": "no", "type": "test", "code": "no"}})
                    return
                cards = [{"id": n, "object": "model", "created": 0, "owned_by": "test"} for n in server.served]
                self._send(200, {"object": "list", "data": cards})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.busy += 1
                    server.busiest = max(server.busiest, server.busy)
                    server.requests.append(body)
                    server.keys.append(self.headers.get("Authorization", ""))
                    server.at.append(time.monotonic())
                time.sleep(server.delay)
                try:
                    self._answer(body)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the client had enough
                finally:
                    with lock:
                        server.busy -= 1

            def _answer(self, body: dict[str, Any]) -> None:
                reply = server.reply(body)
                if isinstance(reply, int):
                    reply = Refused(reply)
                if isinstance(reply, Raw):
                    self.close_connection = True
                    for piece in reply.pieces:
                        self.wfile.write(piece)
                        server.sent += len(piece)
                        if over.is_set():
                            break
                    return
                if not isinstance(reply, Refused) and body.get("stream") and server.stream == "refuses":
                    reply = Refused(400, message="This server does not stream.")
                if isinstance(reply, Refused):
                    message = reply.message or f"status {reply.status}"
                    said = {"message": message, "type": "test", "code": str(reply.status)}
                    self._send(reply.status, {"error": said}, reply.retry_after)
                    return
                streams = body.get("stream") and server.stream == "gives"
                if isinstance(reply, (Silence, BrokenOff)):
                    if streams:
                        self._begin_stream()
                        self._tokens(body["model"], "abc" * reply.after)
                    self.close_connection = True
                    while isinstance(reply, Silence) and not over.wait(0.05):
                        if streams and reply.keep_alive:
                            self.wfile.write(b": still there\n\n")
                            self.wfile.flush()
                    return
                answer = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
                if isinstance(reply, Whole):
                    answer |= {"choices": [_choice("7")], "usage": server.usage, **reply.body}
                    answer = {key: value for key, value in answer.items() if key not in reply.without}
                    if streams:
                        self._begin_stream()
                        self._as_chunks(answer)
                    else:
                        self._send(200, answer)
                    return
                text, reason = reply if isinstance(reply, tuple) else (reply, "stop")
                if streams:
                    self._begin_stream()
                    self._tokens(body["model"], text, bool(body.get("logprobs")))
                    self._end_stream(body["model"], reason)
                    return
                for _ in range(0, len(text), 3):
                    self._wait_for_token()
                choice = _choice(text, reason)
                if body.get("logprobs"):
                    choice["logprobs"] = {"content": [_likelihood(text[i : i + 3]) for i in range(0, len(text), 3)]}
                self._send(200, {**answer, "choices": [choice], "usage": server.usage})

            def _wait_for_token(self) -> None:
                nonlocal next_token
                if server.rate is None:
                    return
                with lock:
                    mine = next_token = max(next_token, time.monotonic()) + 1 / server.rate
                time.sleep(max(0.0, mine - time.monotonic()))

            def _begin_stream(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.flush()

            def _tokens(self, model: str, text: str, likelihoods: bool = False) -> None:
                """Three characters a chunk, so that labels and line ends are cut in the middle."""
                for i in range(0, len(text), 3):
                    self._wait_for_token()
                    piece = text[i : i + 3]
                    more = {"logprobs": {"content": [_likelihood(piece)]}} if likelihoods else {}
                    self._piece(model, {"content": piece}, None, **more)

            def _end_stream(self, model: str, reason: str) -> None:
                self._piece(model, {}, reason)
                if server.usage is not None:
                    self._event({**self._chunk(model), "choices": [], "usage": server.usage})
                self.wfile.write(b"data: [DONE]\n\n")
                self.close_connection = True

            def _as_chunks(self, answer: dict[str, Any]) -> None:
                usage = {"usage": answer.pop("usage")} if "usage" in answer else None
                pieces = [{**c, "delta": c["message"]} for c in answer.get("choices") or []]
                chunk = {**answer, "object": "chat.completion.chunk"}
                self._event({**chunk, "choices": pieces or answer.get("choices")})
                if usage is not None:
                    self._event({**chunk, "choices": [], **usage})
                self.wfile.write(b"data: [DONE]\n\n")
                self.close_connection = True

            def _chunk(self, model: str) -> dict[str, Any]:
                return {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": model}

            def _piece(self, model: str, delta: dict[str, str], finish: str | None, **more: Any) -> None:
                choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
                self._event({**self._chunk(model), "choices": [choice]})

            def _event(self, event: dict[str, Any]) -> None:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                self.wfile.flush()

            def _send(self, status: int, body: dict[str, Any], retry_after: float | str | None = None) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                if retry_after is not None:
                    said = retry_after if isinstance(retry_after, str) else f"{retry_after:g}"
                    self.send_header("Retry-After", said)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        served = type("Served", (_Server,), {"address_family": socket.AF_INET6 if ":" in self.host else socket.AF_INET})
        self._server = served((self.host, self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        if not self.port:
            forget_pace(self.url)  # of an earlier test's server, which had this port too
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self._server.server_address[1]}/v1"

    def models(self) -> list[str]:
        return [request["model"] for request in self.requests]


def _choice(text: str | None, reason: str | None = "stop", **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, **more}
    return {"index": 0, "message": message, "finish_reason": reason}


def whole(text: str | None, reason: str | None = "stop", **more: Any) -> Whole:
    """A reply with one choice; `more` stands in its message."""
    return Whole({"choices": [_choice(text, reason, **more)]})


def _likelihood(token: str) -> dict[str, Any]:
    return {"token": token, "logprob": -0.5, "bytes": list(token.encode()), "top_logprobs": []}


def user_text(body: dict[str, Any]) -> str:
    """The last user message of a request."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def fields_asked(body: dict[str, Any]) -> list[str]:
    """The output fields that a prompt of DSPy's ChatAdapter asks for; empty for other prompts."""
    return re.findall(r"\[\[ ## (\w+) ## \]\]", user_text(body).rpartition("Respond with")[2])[:-1]


def in_fields(**values: str) -> str:
    """A reply as DSPy's ChatAdapter reads it."""
    return "\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in values.items())
