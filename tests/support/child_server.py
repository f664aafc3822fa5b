"""A small HTTP server to start as a process: healthy at once or never, with a child of its own, stubborn or not."""

import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if "never-ready" in sys.argv else 200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    if "child" in sys.argv:
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", *sys.argv[1:]])
    if "stubborn" in sys.argv:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "raise" in sys.argv:
        print("loading")
        raise ValueError("no such thing as this model")
    if "out-of-memory" in sys.argv:
        raise MemoryError("Cannot allocate memory for the weights")
    if "killed" in sys.argv:
        signal.raise_signal(signal.SIGKILL)
    server = HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    if "secret" in sys.argv:
        print("args: {'api_key': ['sesame'], 'port': 1}", flush=True)
    if "dies" in sys.argv:
        server.timeout = 0.1
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            server.handle_request()
        sys.exit(3)
    server.serve_forever()
