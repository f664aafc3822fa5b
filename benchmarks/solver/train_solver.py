"""Train the solver adapter that ships with the embedded base, on the offline task's `solver` split.

Usage, from the repository's root: python benchmarks/solver/train_solver.py [--rows N] [--output FOLDER]

The adapter learns to solve: most rows give the reference subquestions, some leave them out, and some are the
baselines' own prompts, so that those rows of a table are not straw men. No question of the `train` or `test` split
is used. On two cores the shipped adapter takes about 28 minutes; a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from divcon.benchmarks.tasks import offline_items
from divcon.distill import TrainSettings, content_hash, embedded_base, read_manifest, train_adapter
from divcon.programs import CompactAdapter, Item
from divcon.signatures import Answer, Reason, Solve, Subquestions

# share of rows by the call they teach
MIX = {"solve": 0.76, "whole": 0.06, "reason": 0.10, "answer": 0.08}


def training_row(item: Item, call: str) -> dict[str, object]:
    adapter = CompactAdapter()
    steps = "\n".join(f"{i}. {answer}" for i, answer in enumerate(item.sub_answers, 1))
    given: dict[str, object] = {"question": item.question, "context": item.context}
    if call == "answer":
        signature, outputs = Answer, {"answer": item.answer}
    elif call == "reason":
        signature, outputs = Reason, {"reasoning": steps, "answer": item.answer}
    else:
        signature, outputs = Solve, {"sub_answers": steps, "answer": item.answer}
        if call == "solve":
            given["subquestions"] = Subquestions(item.subquestions)
    messages = adapter.format_finetune_data(signature, [], given, outputs)["messages"]
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3200)
    parser.add_argument("--output", type=Path, default=Path("distill/embedded/solver"))
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    options = parser.parse_args()
    rng = random.Random(0)
    # The reading family is learnt sooner than the arithmetic one.
    problems = offline_items("word-problems", "solver", round(options.rows * 0.58))
    hops = offline_items("passage-hops", "solver", options.rows - len(problems))
    items = problems + hops
    rng.shuffle(items)
    rows = [training_row(item, rng.choices(list(MIX), weights=list(MIX.values()))[0]) for item in items]
    file = options.output.with_name("solver-rows.jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = TrainSettings(rank=8, epochs=1, batch_size=16, learning_rate=options.learning_rate, save_every=20)
    train_adapter(
        file, embedded_base(), options.output, settings, role="solver", student="offline-solver",
        scripted_teacher=True, progress=lambda done, of, loss: print(f"step {done}/{of} loss {loss:.3f}", flush=True),
    )  # fmt: skip
    # Half the size on disk, and what the engine computes in anyway.
    weights = options.output / "adapter_model.safetensors"
    save_file({k: v.to(torch.bfloat16) for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
    manifest = json.loads((options.output / "manifest.json").read_text())
    manifest["content_hash"] = content_hash(options.output)
    (options.output / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    read_manifest(options.output)
    file.unlink()


if __name__ == "__main__":
    main()
