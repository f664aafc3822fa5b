"""A page on loopback that shows a run while it goes on."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

HOST = "127.0.0.1"


class LivePage:
    """Renders a page when it is asked for, and keeps it for some seconds.

    Args:
        render: Returns the HTML.
        seconds: How long a page is kept.
        clock: Returns the time in seconds; tests replace it.
    """

    def __init__(self, render: Callable[[], str], seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._render = render
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._page = b""
        self._until = float("-inf")

    def html(self) -> bytes:
        """The page, which is at most `seconds` old."""
        with self._lock:  # two windows don't render it twice
            if self._clock() >= self._until:
                self._page = self._render().encode("utf-8", "replace")
                self._until = self._clock() + self._seconds
            return self._page


def live_server(page: LivePage, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server of one page on loopback, which the caller runs and closes.

    It answers only requests that name it by its loopback address, so that no other site's page can read it.

    Args:
        page: The page.
        port: The port; a free one by default.

    Raises:
        OSError: The port is taken.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            names = {f"{name}:{server.server_port}" for name in (HOST, "localhost")}
            if self.headers.get("Host") not in names:
                self.send_error(HTTPStatus.FORBIDDEN)
            elif self.path != "/":
                self.send_error(HTTPStatus.NOT_FOUND)
            else:
                self._send(page.html())

        def _send(self, content: bytes) -> None:
            self.send_response(HTTPStatus.OK)
            headers = {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Length": str(len(content)),
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "Cross-Origin-Resource-Policy": "same-origin",
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Requests aren't logged."""

    server = http.server.ThreadingHTTPServer((HOST, port), Handler)
    return server
