"""What the program costs beside the model: how busy it keeps a server of fixed latency, and its CPU time a call.

Usage: python benchmarks/perf/client.py [--calls N] [--latency S] [--output FILE]

The server is a process of its own on loopback. Measured in one run: `evaluate_arm` on a two-stage program, with the
run store behind its LMs; the same program without a store; plain `dspy.Predict` with DSPy's own adapter on the native
client and on LiteLLM. "Busy" is calls x latency / concurrency against wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dspy
from _common import at_once, free_port, timed, wait_for, write

from divcon.benchmarks import Arm, evaluate_arm
from divcon.distill import Key, LMBackend, RunStore, StoredEngine, role_lm
from divcon.programs import DivideAndConquer, Item

CONCURRENCY = 64
TOKENS = 20  # a reply, each a piece of its own where it is streamed
REPLIES = {"split": "1. What is first?\n2. What is second?", "solve": "1. one\n2. two\nAnswer: 7"}


def streamed(model: str, text: str, usage: dict[str, int]) -> Iterator[bytes]:
    """The pieces of a streamed reply as they go over the wire."""
    size = -(-len(text) // TOKENS)
    deltas: list[tuple[dict[str, str], str | None]] = [
        ({"content": text[at : at + size]}, None) for at in range(0, len(text), size)
    ]
    event = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": model}
    for delta, finish in [*deltas, ({}, "stop")]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        yield f"data: {json.dumps({**event, 'choices': [choice]})}\n\n".encode()
    yield f"data: {json.dumps({**event, 'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode()


def serve(port: int, latency: float) -> None:
    """An OpenAI server whose every reply takes `latency` seconds, whatever the load; its tokens come evenly."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(x.split(b":")[1]) for x in head.lower().split(b"\r\n") if b"content-length:" in x)
                body = await reader.readexactly(length)
                text = REPLIES["split" if b"Split the question" in body else "solve"]
                if b"[[ ## answer ## ]]" in body:
                    text = "[[ ## answer ## ]]\n7\n\n[[ ## completed ## ]]"
                usage = {"prompt_tokens": 100, "completion_tokens": TOKENS, "total_tokens": 100 + TOKENS}
                asked = json.loads(body)
                if asked.get("stream"):
                    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                    writer.write(head)
                    pieces = list(streamed(asked["model"], text, usage))
                    loop = asyncio.get_running_loop()
                    began = loop.time()
                    for number, piece in enumerate(pieces, 1):
                        # By the clock, so that what a timer is late by doesn't add up.
                        await asyncio.sleep(max(0.0, began + number * latency / len(pieces) - loop.time()))
                        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    writer.write(b"0\r\n\r\n")
                    await writer.drain()
                    continue
                await asyncio.sleep(latency)
                choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                answer = json.dumps(
                    {
                        "id": "x",
                        "object": "chat.completion",
                        "created": 0,
                        "model": asked["model"],
                        "choices": [choice],
                        "usage": usage,
                    }
                ).encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
                writer.write(head.encode() + answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", port, backlog=512)
        await server.serve_forever()

    asyncio.run(main())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=1280)
    parser.add_argument("--latency", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    port = free_port()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(port, given.latency), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{port}/v1"
    items = [Item(id=f"i{i}", question=f"What is {i} and then some?", answer="7") for i in range(given.calls // 2)]

    def plain_lm(engine: str = "auto") -> dspy.LM:
        return dspy.LM("openai/m", engine=engine, api_base=url, api_key="k", cache=False, num_retries=0)

    wait_for(port)  # the server imports this file first
    folder = Path(tempfile.mkdtemp())
    held = LMBackend(plain_lm())  # as in a run, where what was found out about a server holds for all its calls
    rounds = iter(range(1_000_000))

    def evaluation() -> None:
        store = RunStore(folder / str(next(rounds)))
        lms = [
            role_lm(StoredEngine(LMBackend(plain_lm()), role, "openai/m", store), temperature=None, max_tokens=None)
            for role in ("decomposer", "solver")
        ]
        arm = Arm("teacher", DivideAndConquer(*lms), Key({}), "teacher")
        records = evaluate_arm(arm, items, store, concurrency=CONCURRENCY)
        assert all(record["outcome"] == "right" for record in records.values()), next(iter(records.values()))

    def program() -> None:
        made = DivideAndConquer(plain_lm(), plain_lm())
        at_once(lambda item: made(question=item.question), items, CONCURRENCY)

    def predict(engine: str) -> Callable[[], None]:
        def work() -> None:
            predictor = dspy.Predict("question -> answer")
            predictor.lm = plain_lm(engine)

            def two(item: Item) -> Any:
                return predictor(question=item.question), predictor(question=item.question + " Really?")

            at_once(two, items, CONCURRENCY)

        return work

    kinds = {"evaluation": evaluation, "program": program, "predict": predict("auto"), "litellm": predict("litellm")}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for work in kinds.values():
        work()  # imports, pools and plans are made once
    for _ in range(given.rounds):
        for name, work in kinds.items():
            found[name].append(timed(work)[1:])
    server.terminate()
    del held
    calls = 2 * len(items)
    ideal = calls * given.latency / CONCURRENCY
    lines = {
        name: {
            "busy": round(statistics.median(ideal / wall for wall, _ in runs), 3),
            "cpu_ms_a_call": round(1000 * statistics.median(cpu for _, cpu in runs) / calls, 2),
        }
        for name, runs in found.items()
    }
    base = lines["predict"]["cpu_ms_a_call"]
    write(
        given.output,
        {
            "calls": calls,
            "latency_s": given.latency,
            "concurrency": CONCURRENCY,
            "rounds": given.rounds,
            "kinds": lines,
            "added_ms_a_call": {name: round(line["cpu_ms_a_call"] - base, 2) for name, line in lines.items()},
            "litellm_over_native": round(lines["litellm"]["cpu_ms_a_call"] / base, 2),
        },
    )


if __name__ == "__main__":
    main()
