"""What a CPU does fast: float32 against bfloat16, and threads that spin long, briefly or not at all while they wait.

Usage: python benchmarks/perf/cpu.py [--rounds N] [--output FILE]

Precisions alternate in one process, once with the processor's bfloat16 instructions and once without them (oneDNN held
to AVX512_CORE_VNNI). The other half takes a process for each way of waiting and number of threads, in turns, alone and
beside one busy core. Every figure is the median of its rounds; quiet the machine first.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _common import timed, write

from divcon.distill.serving.embedded._waiting import BRIEFLY

ROWS, TOKENS = 4, 160  # of a training step
READ_ROWS, READ_TOKENS = 8, 128
DECODED_ROWS, CACHED = 32, 128
STEPS = 5  # of training or decoding, which are timed one by one
CAP = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}
# libgomp spins 300,000 times where nothing is said.
WAITS = {"spinning": {"GOMP_SPINCOUNT": "300000"}, "briefly": BRIEFLY, "asleep": {"OMP_WAIT_POLICY": "PASSIVE"}}


def works(precision: str) -> dict[str, Callable[[], None]]:
    """A training step, reading prompts, and a step of decoding, each in a precision."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, DynamicCache

    from divcon.distill import EmbeddedModel, embedded_base
    from divcon.distill.training._lora import completion_loss

    base = embedded_base()
    engine = EmbeddedModel(base, precision=precision)
    engine.load()
    served = engine._models[""]
    learning = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32)
    learning = get_peft_model(learning, LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"))
    optimizer = torch.optim.AdamW([p for p in learning.parameters() if p.requires_grad], lr=1e-4)
    random = torch.Generator().manual_seed(0)
    rows = torch.randint(1000, 40000, (ROWS, TOKENS), generator=random)
    labels = torch.where(torch.arange(TOKENS) < 100, -100, rows)
    prompts = torch.randint(1000, 40000, (READ_ROWS, READ_TOKENS), generator=random)
    cached = torch.randint(1000, 40000, (DECODED_ROWS, CACHED), generator=random)
    cache = DynamicCache(config=served.config)
    with torch.inference_mode():
        served(input_ids=cached, past_key_values=cache, use_cache=True, logits_to_keep=1)

    def train() -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            loss = completion_loss(
                learning, {"input_ids": rows, "attention_mask": torch.ones_like(rows), "labels": labels}
            )
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def read() -> None:
        with torch.inference_mode():
            served(
                input_ids=prompts, past_key_values=DynamicCache(config=served.config), use_cache=True, logits_to_keep=1
            )

    def decode() -> None:
        with torch.inference_mode():
            served(input_ids=cached[:, :1], past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.crop(-1)

    return {"train": train, "read": read, "decode": decode}


def precisions(rounds: int) -> dict[str, Any]:
    """Median seconds of each work in each precision, in turns, and how many times float32's bfloat16 takes."""
    both = {precision: works(precision) for precision in ("float32", "bfloat16")}
    seconds: dict[str, dict[str, list[float]]] = {name: {p: [] for p in both} for name in both["float32"]}
    for number in range(rounds + 1):
        for name, found in seconds.items():
            for precision, made in both.items():
                took = timed(made[name])[1]
                if number:  # the first round warms up
                    found[precision].append(took)
    medians = {name: {p: statistics.median(taken) for p, taken in found.items()} for name, found in seconds.items()}
    return {
        name: {
            **{precision: round(took, 4) for precision, took in found.items()},
            "bfloat16_over_float32": round(found["bfloat16"] / found["float32"], 2),
        }
        for name, found in medians.items()
    }


def steps(precision: str, threads: int) -> dict[str, float]:
    """Median seconds of a training step and of a step of decoding, with so many threads."""
    import torch

    made = works(precision)
    torch.set_num_threads(threads)
    found = {}
    for name in ("train", "decode"):
        made[name]()
        found[name] = statistics.median(timed(made[name])[1] for _ in range(STEPS))
    return found


@contextlib.contextmanager
def busy_core(busy: bool) -> Iterator[None]:
    """Another process that keeps a core busy, where `busy`."""
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        yield
    finally:
        if other is not None:
            other.kill()
            other.wait()


def in_a_process(words: list[str], environment: dict[str, str]) -> Any:
    """What this script prints when it is called with these words, in an environment of its own."""
    command = [sys.executable, str(Path(__file__)), *words]
    plain = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(command, env={**plain, **environment}, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def waits(rounds: int) -> dict[str, Any]:
    """Median seconds by threads, way of waiting and company, and how many times one thread's, alone, they are."""
    kinds = [(threads, wait, busy) for busy in (False, True) for threads in (1, 2) for wait in WAITS]
    seconds: dict[tuple[int, str, bool], list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            threads, wait, busy = kind
            with busy_core(busy):
                seconds[kind].append(in_a_process(["--steps", str(threads)], WAITS[wait]))
    medians = {
        kind: {name: statistics.median(run[name] for run in runs) for name in runs[0]} for kind, runs in seconds.items()
    }
    alone = medians[1, "briefly", False]
    return {
        f"{'beside a busy core' if busy else 'alone'}, {threads} thread{'s' * (threads > 1)}, {wait}": {
            name: {"seconds": round(took, 4), "over_one_thread_alone": round(took / alone[name], 2)}
            for name, took in found.items()
        }
        for (threads, wait, busy), found in medians.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--precisions", action="store_true", help="a part of the work, for a process of its own")
    parser.add_argument("--steps", type=int, metavar="THREADS", help="another part")
    given = parser.parse_args()
    if given.precisions:
        print(json.dumps(precisions(given.rounds)))
        return
    if given.steps:
        from divcon.distill.serving.embedded import precision

        print(json.dumps(steps(precision(), given.steps)))
        return
    load = os.getloadavg()[0]
    started = time.perf_counter()
    rounds = ["--rounds", str(given.rounds)]
    found = {
        "rounds": given.rounds,
        "load_before": round(load, 2),
        "precision": in_a_process(["--precisions", *rounds], {}),
        "precision_without_instructions": in_a_process(["--precisions", *rounds], CAP),
        "waiting": waits(max(1, given.rounds // 2)),
    }
    write(given.output, {**found, "minutes": round((time.perf_counter() - started) / 60, 1)})


if __name__ == "__main__":
    main()
