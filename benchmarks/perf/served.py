"""Tokens a second on a real vLLM: the program against the server's own ceiling, LoRA against merged against base, and
the embedded engine against vLLM.

Usage: python benchmarks/perf/served.py --run runs/demo --python .venv-vllm/bin/python [--output FILE]

The run folder is one that `make demo` made. The ceiling is the same requests as raw HTTP (httpx) at the same
concurrency; rounds of both alternate on one server. For LoRA, merged and base, every reply has the same length.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import statistics
import tempfile
from pathlib import Path
from typing import Any

import httpx
from _common import at_once, timed, write
from dspy.lm15 import Config, Message, Request, Response
from dspy.utils.exceptions import AdapterParseError

from divcon import Run, load_pipeline
from divcon.distill import RunStore, StoredEngine, role_lm
from divcon.distill.serving.embedded import solver_adapter, solver_wording
from divcon.distill.serving.vllm import ServerSettings, VLLMModel
from divcon.programs import LEARNT, DivideAndConquer, Item

CONCURRENCY = 64
LENGTH = 32  # tokens of a reply where all are to be equally long


class Recorded:
    """A backend that notes what it is asked."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.requests: list[Request] = []
        self.tokens = 0

    def complete(self, request: Request, rollout: int) -> Response:
        self.requests.append(request)
        response: Response = self.backend.complete(request, rollout)
        self.tokens += response.usage.output_tokens or 0
        return response


def raw(url: str, name: str, requests: list[Request], **more: Any) -> tuple[int, list[str], float, float]:
    """The same requests as raw HTTP: output tokens, replies, seconds, CPU seconds of this process."""
    with httpx.Client(timeout=600, limits=httpx.Limits(max_connections=CONCURRENCY)) as client:

        def ask(request: Request) -> tuple[int, str]:
            system = [{"role": "system", "content": request.system}] if request.system else []
            body = {
                "model": name,
                "messages": [*system, *({"role": m.role, "content": m.text} for m in request.messages)],
                "max_tokens": request.config.max_tokens,
                "temperature": 0.0,
                **more,
            }
            answer = client.post(f"{url}/chat/completions", json=body).raise_for_status().json()
            return answer["usage"]["completion_tokens"], answer["choices"][0]["message"]["content"]

        replies, wall, cpu = timed(lambda: at_once(ask, requests, CONCURRENCY))
    return sum(tokens for tokens, _ in replies), [text for _, text in replies], wall, cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--python", type=Path, required=True)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    run = Run(load_pipeline(Path(__file__).parents[2] / "examples" / "demo.yaml"), given.run)
    student, items = given.run / "adapters" / "sd-r", run.task.test[: given.questions]
    settings = ServerSettings(python=given.python, arguments={"max-model-len": 1024})
    decompose = run.programs.planned_by_student(student).decompose
    asked = []
    for item in items:
        system, user = decompose.prompt(question=item.question, context=item.context)
        asked.append(
            Request(
                model="m",
                system=system["content"],
                messages=(Message.user(user["content"]),),
                config=Config(temperature=0.0, max_tokens=96),
            )
        )
    results: dict[str, Any] = {"concurrency": CONCURRENCY, "questions": len(items)}

    # Embedded engine against vLLM: the same decompositions.
    embedded = run.models.student_model.backend(run.models.student_model.add(student))
    embedded.complete(asked[0], 0)
    ours, seconds, _ = timed(lambda: at_once(lambda r: embedded.complete(r, 0), asked, CONCURRENCY))
    tokens = sum(r.usage.output_tokens or 0 for r in ours)
    run.models.student_model.unload()

    kinds: dict[str, float] = {}
    for kind, mode in (("merged", "merged"), ("base", "merged"), ("lora", "lora")):
        with VLLMModel(run.models.base, settings, adapter=mode, told=print) as model:  # type: ignore[arg-type]
            name = model.add(student) if kind != "base" else ""
            with model.serving(name) as server:
                served = name or server.name
                raw(server.api_base, served, asked[:CONCURRENCY])
                same = [*asked[:CONCURRENCY]]
                speeds = []
                for _ in range(given.rounds if kind != "lora" else 1):
                    written, _, wall, _ = raw(server.api_base, served, same, max_tokens=LENGTH, ignore_eos=True)
                    speeds.append(written / wall)
                kinds[kind] = statistics.median(speeds)
                if kind == "merged":
                    written, replies, wall, _ = raw(server.api_base, served, asked)
                    agree = sum(a.message.text == b for a, b in zip(ours, replies, strict=True))
                    results["embedded_against_vllm"] = {
                        "embedded_tokens_a_second": round(tokens / seconds, 1),
                        "vllm_tokens_a_second": round(written / wall, 1),
                        "ratio": round(tokens / seconds / (written / wall), 2),
                        "equal_greedy_replies": f"{agree} of {len(asked)}",
                    }
    results["tokens_a_second"] = {kind: round(speed, 1) for kind, speed in kinds.items()}
    results["over_base"] = {kind: round(speed / kinds["base"], 3) for kind, speed in kinds.items()}

    # The program against raw HTTP: both roles on one server, so that all of it is the program's own traffic.
    with VLLMModel(run.models.base, settings, adapter="merged", told=print) as model:
        name = model.add(solver_adapter())
        with model.serving(name) as server:
            folder, shares = Path(tempfile.mkdtemp()), []
            for number in range(given.rounds):
                store = RunStore(folder / str(number))
                backend = Recorded(model.backend(name))
                lms = [
                    role_lm(StoredEngine(backend, role, "hosted_vllm/x", store), temperature=0.0, max_tokens=96)
                    for role in ("decomposer", "solver")
                ]
                program = DivideAndConquer(
                    *lms, max_subquestions=4, decomposer_wording=LEARNT, solver_wording=solver_wording()
                )
                answer = functools.partial(_answer, program)
                _, wall, _ = timed(functools.partial(at_once, answer, items, CONCURRENCY))
                written, _, raw_wall, _ = raw(server.api_base, name, backend.requests)
                shares.append((backend.tokens / wall, written / raw_wall, len(backend.requests)))
    results["program_against_raw_http"] = {
        "calls": shares[0][2],
        "program_tokens_a_second": [round(share[0], 1) for share in shares],
        "raw_tokens_a_second": [round(share[1], 1) for share in shares],
        "share": round(statistics.median(share[0] / share[1] for share in shares), 3),
    }
    write(given.output, results)


def _answer(program: DivideAndConquer, item: Item) -> None:
    with contextlib.suppress(AdapterParseError):  # an answer that can't be read took its tokens all the same
        program(question=item.question, context=item.context)


if __name__ == "__main__":
    main()
