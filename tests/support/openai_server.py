"""A real HTTP server on loopback that speaks OpenAI's chat protocol, with replies and faults set by the test."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | tuple[str, str] | int  # text; text and finish reason; or an HTTP status


class _Server(ThreadingHTTPServer):
    request_queue_size = 256  # 64 callers connect at once


@dataclass
class OpenAIServer:
    """Answers `POST /v1/chat/completions`; `reply` gets the request's body. `served` is listed at `/v1/models`."""

    reply: Callable[[dict[str, Any]], Reply]
    delay: float = 0.0
    served: tuple[str, ...] | int = 404
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    busiest: int = 0

    def __enter__(self) -> OpenAIServer:
        server = self
        lock = threading.Lock()
        running = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if isinstance(server.served, int):
                    self._send(server.served, {"error": {"message": "no", "type": "test", "code": "no"}})
                    return
                cards = [{"id": n, "object": "model", "created": 0, "owned_by": "test"} for n in server.served]
                self._send(200, {"object": "list", "data": cards})

            def do_POST(self) -> None:
                nonlocal running
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    running += 1
                    server.busiest = max(server.busiest, running)
                    server.requests.append(body)
                    server.keys.append(self.headers.get("Authorization", ""))
                time.sleep(server.delay)
                reply = server.reply(body)
                with lock:
                    running -= 1
                if isinstance(reply, int):
                    self._send(reply, {"error": {"message": f"status {reply}", "type": "test", "code": str(reply)}})
                    return
                text, reason = reply if isinstance(reply, tuple) else (reply, "stop")
                if body.get("stream"):
                    self._stream(body["model"], text, reason)
                    return
                usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
                choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
                answer = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
                self._send(200, {**answer, "choices": [choice], "usage": usage})

            def _stream(self, model: str, text: str, reason: str) -> None:
                """Three characters a chunk, so that labels and line ends are cut in the middle."""
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
                deltas = [({"content": piece}, None) for piece in pieces] + [({}, reason)]
                for delta, finish in deltas:
                    choice = {"index": 0, "delta": delta, "finish_reason": finish}
                    event = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": model}
                    self._event({**event, "choices": [choice]})
                usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
                self._event({**event, "choices": [], "usage": usage})
                self.wfile.write(b"data: [DONE]\n\n")
                self.close_connection = True

            def _event(self, event: dict[str, Any]) -> None:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
                self.wfile.flush()

            def _send(self, status: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def models(self) -> list[str]:
        return [request["model"] for request in self.requests]


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
