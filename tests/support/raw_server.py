"""A real HTTP server on loopback whose answers to chats are made by the test, byte by byte."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], tuple[int, bytes]]  # of a request's body: the status and the body


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server with a handler of the test's own; its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def raw_server(answer: Answer, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """A server that answers every `POST` so, with more headers; its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, content = answer(body)
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: Any) -> None:
            pass

    with serving(Handler) as address:
        yield f"{address}/v1"


def chat(text: str, reason: str = "stop", **more: Any) -> tuple[int, bytes]:
    """A whole reply, with more fields."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    answer = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return 200, json.dumps({**answer, **more}).encode()


def refusing(status: int, message: str, **more: Any) -> Answer:
    """An error in OpenAI's form, with more fields."""
    content = json.dumps({"error": {"message": message, "type": "test", "code": str(status), **more}}).encode()
    return lambda body: (status, content)
