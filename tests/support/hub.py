"""A Hugging Face hub on loopback: it creates repositories and takes commits, and serves nothing."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any


class Hub:
    """The hub's HTTP, as far as `create_repo` and `upload_folder` need it.

    Args:
        status: The status of every answer, where the hub is to refuse.

    Attributes:
        url: The address, for `HF_ENDPOINT`.
        requests: Method, path and body of every request.
        keys: The keys that were sent.
        created: What repositories were asked for.
        files: The committed files by name.
    """

    def __init__(self, status: int | None = None) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        self.keys: set[str] = set()
        self.created: list[dict[str, Any]] = []
        self.files: dict[str, bytes] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                hub.requests.append((self.command, self.path, body))
                hub.keys.add(self.headers.get("Authorization", ""))
                code, found = (status, {"error": "refused"}) if status else hub.answer(self.path, body)
                sent = json.dumps(found).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            def log_message(self, *arguments: Any) -> None:
                """Nothing is logged."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of an answer."""
        if path == "/api/repos/create":
            asked = json.loads(body)
            self.created.append(asked)
            return 200, {"url": f"{self.url}/{asked.get('organization', 'me')}/{asked['name']}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return 200, {"files": [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return 200, {
                "commitUrl": f"{self.url}/{'/'.join(path.split('/')[3:5])}/commit/1",
                "commitOid": "1" * 40,
                "success": True,
            }
        return 404, {"error": f"no {path}"}
