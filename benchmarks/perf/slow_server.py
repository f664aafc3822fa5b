"""A slow server, shared by all that ask it: whether every question is answered, asked once, and said how it goes.

Usage: python benchmarks/perf/slow_server.py [--questions N] [--rate TOKENS_A_SECOND] [--tokens N] [--output FILE]

The server is a process of its own on loopback. It gives all its requests together a fixed number of tokens a second,
in turns, and streams where it is asked to. `divcon collect` asks it with the settings as they come but for the
concurrency. Told: requests received, the longest time a reply took, and the longest time without a line.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import multiprocessing
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

from _common import write

CONCURRENCY = 32


def serve(listening: socket.socket, rate: float, tokens: int, plain: bool, received: Synchronized[int]) -> None:
    """An OpenAI server of `rate` tokens a second for all its requests together."""
    words = [f"{'1. What' if n == 0 else 'word'}{'?' if n == tokens - 1 else ''}" for n in range(tokens)]
    turns: list[asyncio.Queue[str | None]] = []

    async def generate() -> None:
        """A token a tick to whose turn it is."""
        loop = asyncio.get_running_loop()
        next_at = loop.time()
        while True:
            next_at = max(next_at + 1 / rate, loop.time() - 0.5)
            await asyncio.sleep(max(0.0, next_at - loop.time()))
            if turns:
                turn = turns.pop(0)
                turn.put_nowait("token")
                turns.append(turn)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if b"content-length:" in x)
                asked = json.loads(await reader.readexactly(length))
                with received.get_lock():
                    received.value += 1
                streams = asked.get("stream") and not plain
                if asked.get("stream") and plain:
                    body = b'{"error": {"message": "no streams here", "type": "invalid_request_error"}}'
                    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                    continue
                if streams:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n")
                turn: asyncio.Queue[str | None] = asyncio.Queue()
                turns.append(turn)
                try:
                    for n, word in enumerate(words):
                        await turn.get()
                        if streams:
                            piece(writer, asked["model"], {"content": word if n == 0 else f" {word}"})
                            await writer.drain()
                finally:
                    turns.remove(turn)
                usage = {"prompt_tokens": 100, "completion_tokens": tokens, "total_tokens": 100 + tokens}
                if streams:
                    piece(writer, asked["model"], {}, "stop")
                    piece(writer, asked["model"], None, usage=usage)
                    writer.write(b"data: [DONE]\n\n")
                    await writer.drain()
                    writer.close()
                    return
                message = {"role": "assistant", "content": " ".join(words)}
                choice = {"index": 0, "message": message, "finish_reason": "stop"}
                answer = {"id": "x", "object": "chat.completion", "created": 0, "model": asked["model"]}
                body = json.dumps({**answer, "choices": [choice], "usage": usage}).encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def piece(
        writer: asyncio.StreamWriter,
        model: str,
        delta: dict[str, str] | None,
        finish: str | None = None,
        **more: object,
    ) -> None:
        choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
        event = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": choices}
        writer.write(f"data: {json.dumps({**event, **more})}\n\n".encode())

    async def main() -> None:
        server = await asyncio.start_server(talk, sock=listening)
        await asyncio.gather(server.serve_forever(), generate())

    asyncio.run(main())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument("--rate", type=float, default=50.0)
    parser.add_argument("--tokens", type=int, default=250)
    parser.add_argument("--plain", action="store_true", help="the server refuses to stream")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    context = multiprocessing.get_context("fork")
    received = context.Value("i", 0)
    arguments = (listening, given.rate, given.tokens, given.plain, received)
    server = context.Process(target=serve, args=arguments, daemon=True)
    server.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
    folder = Path(tempfile.mkdtemp())
    lines = [json.dumps({"question": f"What is {n} and then some?", "answer": "7"}) for n in range(given.questions + 1)]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    endpoint = f"{{model: hosted_vllm/m, api_base: '{url}'}}"
    (folder / "p.yaml").write_text(
        f"task: {{name: jsonl, path: questions.jsonl, train: {given.questions}, test: 1, overlap: same}}\n"
        f"roles: {{teacher: {endpoint}, solver: {endpoint}}}\ncollect: {{concurrency: {CONCURRENCY}}}\n",
        encoding="utf-8",
    )
    said: list[tuple[float, str]] = []
    collect = subprocess.Popen(
        [str(Path(sys.executable).with_name("divcon")), "collect", "p.yaml"],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert collect.stdout is not None

    def listen() -> None:
        for line in collect.stdout or ():
            said.append((time.monotonic(), line.rstrip()))
            print(line, end="", file=sys.stderr, flush=True)

    listener = threading.Thread(target=listen)
    listener.start()
    status = collect.wait()
    listener.join()
    ended = time.monotonic()
    server.terminate()
    began = next(at for at, line in said if line.startswith("collect:"))
    times = [at for at, _ in said if at >= began]
    rows = sqlite3.connect(folder / "runs" / "p" / "run.sqlite").execute("SELECT seconds FROM calls").fetchall()
    write(
        given.output,
        {
            "questions": given.questions,
            "tokens_a_second": given.rate,
            "tokens_a_reply": given.tokens,
            "concurrency": CONCURRENCY,
            "streams": not given.plain,
            "exit_status": status,
            "requests": received.value,
            "answers": len(rows),
            "seconds": round(ended - began, 1),
            "least_possible_seconds": round(given.questions * given.tokens / given.rate, 1),
            "longest_reply_seconds": round(max((seconds for (seconds,) in rows), default=0.0), 1),
            "longest_silence_seconds": round(max(b - a for a, b in itertools.pairwise(times)), 1),
            "lines": len(times),
        },
    )


if __name__ == "__main__":
    main()
