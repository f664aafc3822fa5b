"""Stands in for vLLM where only the coming and going of servers matters: a real process with its addresses, no model.

Started as `python -m vllm.entrypoints.openai.api_server ...` is. What it does is in STAND_IN: `ok`, `exit`, `slow`,
`dies:N` (at the Nth reply of its life, with its sockets), `engine-dies:N` (from the Nth reply on it answers 500, and
ends two seconds later, as vLLM does when its engine is gone), `mixes` (the base is taken for an adapter that writes
at the same time) or `mute` (a stream without a token). Every start is a line in STAND_IN_STARTS. It says that what an
adapter has learnt is likelier under the adapter, and tokenizes the one prompt that stands in the adapter's probe.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

WHAT, _, AT = os.environ["STAND_IN"].partition(":")
NAME = sys.argv[sys.argv.index("--served-model-name") + 1]
PORT = int(sys.argv[sys.argv.index("--port") + 1])
WORDS = sys.argv[sys.argv.index("--lora-modules") + 1 :] if "--lora-modules" in sys.argv else []
ADAPTERS = dict(word.split("=", 1) for word in WORDS if "=" in word)
replies = 0
writing = 0
lock = threading.Lock()


def dies() -> bool:
    """Whether this server is one that dies: the first of a run, where an earlier one is noted it isn't."""
    starts = Path(os.environ["STAND_IN_STARTS"]).read_text().splitlines()
    return len(starts) == 1 or "always" in os.environ["STAND_IN"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/health":
            self.send(503 if gone() else 200, {})
        else:
            cards = [{"id": NAME}, *({"id": name, "parent": NAME} for name in ADAPTERS)]
            data = [{**card, "object": "model", "created": 0, "owned_by": "x"} for card in cards]
            self.send(200, {"object": "list", "data": data})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/load_lora_adapter":
            ADAPTERS[body["lora_name"]] = body["lora_path"]
            self.send(200, {})
        elif self.path == "/tokenize":
            probe = json.loads((Path(ADAPTERS[body["model"]]) / "probe.json").read_text())
            self.send(200, {"tokens": probe["prompt_ids"]})
        elif self.path == "/v1/completions":
            self.complete(body)
        else:
            self.reply(body)

    def complete(self, body: dict) -> None:
        adapted = body["model"] in ADAPTERS or (WHAT == "mixes" and writing)
        if body.get("stream"):
            self.stream(body)
            return
        choice = {"index": 0, "text": "x", "finish_reason": "length", "logprobs": None}
        if "logprobs" in body:
            choice["logprobs"] = {"token_logprobs": [-1.0 if adapted else -5.0]}
        told = {"id": "x", "object": "text_completion", "created": 0, "model": body["model"]}
        self.send(200, {**told, "choices": [choice]})

    def stream(self, body: dict) -> None:
        """Write a token every 50 ms, until the client goes or all are written."""
        global writing
        told = {"id": "x", "object": "text_completion", "created": 0, "model": body["model"]}
        told["choices"] = [{"index": 0, "text": "x", "finish_reason": None, "logprobs": None}]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        writing += 1
        try:
            for _ in range(body["max_tokens"] if WHAT != "mute" else 0):
                self.wfile.write(f"data: {json.dumps(told)}\n\n".encode())
                time.sleep(0.05)
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:  # the client has gone
            pass
        finally:
            writing -= 1

    def reply(self, body: dict) -> None:
        global replies
        with lock:
            replies += 1
        if gone():
            if WHAT == "dies":
                os._exit(1)
            threading.Timer(2.0, os._exit, [1]).start()
            self.send(500, {"error": {"message": "EngineCore encountered an issue", "type": "x", "code": 500}})
            return
        time.sleep(float(os.environ.get("STAND_IN_LATENCY", "0.02")))
        message = {"role": "assistant", "content": f"{body['model']} says so"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        told = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
        self.send(200, {**told, "choices": [choice], "usage": usage})

    def send(self, status: int, body: dict) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


def gone() -> bool:
    return WHAT in ("dies", "engine-dies") and replies >= int(AT.split(",")[0]) and MORTAL


class Server(ThreadingHTTPServer):
    request_queue_size = 256


if __name__ == "__main__":
    with Path(os.environ["STAND_IN_STARTS"]).open("a") as starts:
        starts.write(f"{NAME}\n")
    MORTAL = dies()
    if WHAT == "exit":
        raise SystemExit("RuntimeError: no weights here")
    if WHAT == "slow":
        time.sleep(60)
    Server(("127.0.0.1", PORT), Handler).serve_forever()
