"""Train the solver adapters that ship with the embedded base, on the generated families' `solver` split.

Usage, from the repository's root:

    python benchmarks/solver/train_solver.py            # embedded/solver: two families, 28 minutes on two cores
    python benchmarks/solver/train_solver.py --wide     # embedded/wide-solver: goes on from it, on all five families

The adapter learns to solve: most rows give the reference subquestions, some leave them out, and some are the
baselines' own prompts, so that those rows of a table are not straw men. The wide one learns single steps too, which
programs that solve step by step ask for. No question of the `train` or `test` split is used. A stopped run goes on
where it was.

The wide adapter that ships saw one schedule in a hundred that began on the day before. Such are no longer written, so
its rows can't be made again to the byte.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from divcon.benchmarks.tasks import OFFLINE, offline_items
from divcon.distill import (
    SCRIPTED_MODEL,
    Author,
    Provenance,
    Training,
    TrainSettings,
    content_hash,
    embedded_base,
    file_hashes,
    read_manifest,
    train_adapter,
)
from divcon.distill.serving.embedded import solver_adapter, solver_wording
from divcon.programs import CompactAdapter, Item
from divcon.signatures import Answer, Reason, Solve, SolveStep, Subquestions

# share of rows by the call they teach
MIX = {"solve": 0.76, "whole": 0.06, "reason": 0.10, "answer": 0.08}
WIDE_MIX = {"solve": 0.50, "step": 0.24, "whole": 0.06, "reason": 0.11, "answer": 0.09}
# share of rows by family; the reading family is learnt sooner than the arithmetic one
FAMILIES = {"word-problems": 0.58, "passage-hops": 0.42}
WIDE_FAMILIES = {
    "word-problems": 0.16,
    "passage-hops": 0.12,
    "schedules": 0.24,
    "unit-conversion": 0.24,
    "deduction": 0.24,
}


def training_row(item: Item, call: str, rng: random.Random) -> dict[str, object]:
    wording = solver_wording()
    adapter = CompactAdapter(wording.labels)
    done = [f"{i}. {answer}" for i, answer in enumerate(item.sub_answers, 1)]
    given: dict[str, object] = {"question": item.question, "context": item.context}
    if call == "answer":
        signature, outputs = Answer, {"answer": item.answer}
    elif call == "reason":
        signature, outputs = Reason, {"reasoning": "\n".join(done), "answer": item.answer}
    elif call == "step":
        at = rng.randint(0, len(item.subquestions))  # the last one is the question itself
        pairs = list(zip(item.subquestions, item.sub_answers, strict=True))
        asked, answer = (item.question, item.answer) if at == len(pairs) else pairs[at]
        steps = "\n".join(f"{i}. {ask} {said}" for i, (ask, said) in enumerate(pairs[:at], 1))
        given |= {"steps": steps or None, "subquestion": asked}
        signature, outputs = SolveStep, {"sub_answer": answer}
    else:
        signature, outputs = Solve, {"sub_answers": "\n".join(done), "answer": item.answer}
        if call == "solve":
            given["subquestions"] = Subquestions(item.subquestions)
    messages = adapter.format_finetune_data(wording.of(signature), [], given, outputs)["messages"]
    return {"prompt": messages[:-1], "completion": messages[-1:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=3200)
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--learning-rate", type=float)
    options = parser.parse_args()
    rng = random.Random(0)
    families, mix, name = (WIDE_FAMILIES, WIDE_MIX, "wide") if options.wide else (FAMILIES, MIX, "offline")
    output = options.output or Path(
        "distill/serving/embedded/wide_solver" if options.wide else "distill/serving/embedded/solver"
    )
    items = []
    for family, share in families.items():
        seed = 1 if options.wide and family in OFFLINE else 0  # questions the first solver hasn't seen
        items += offline_items(family, "solver", round(options.rows * share), seed)
    rng.shuffle(items)
    rows = [training_row(item, rng.choices(list(mix), weights=list(mix.values()))[0], rng) for item in items]
    file = output.with_name(f"{output.name}-rows.jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    rate = options.learning_rate or (1e-3 if options.wide else 1.5e-3)
    settings = TrainSettings(rank=8, epochs=1, batch_size=16, learning_rate=rate, save_every=20)
    train_adapter(
        Training(file, embedded_base(), output, settings, start=solver_adapter() if options.wide else None),
        Provenance(role="solver", student=f"{name}-solver", teacher=Author(model=SCRIPTED_MODEL, kind="scripted")),
        progress=lambda done, of, loss: print(f"step {done}/{of} loss {loss:.3f}", flush=True),
    )
    # Half the size on disk, and what the engine computes in anyway.
    weights = output / "adapter_model.safetensors"
    save_file({k: v.to(torch.bfloat16) for k, v in load_file(weights).items()}, weights, metadata={"format": "pt"})
    manifest = json.loads((output / "manifest.json").read_text())
    manifest |= {"content_hash": content_hash(output), "files": file_hashes(output)}
    (output / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")
    read_manifest(output)
    file.unlink()


if __name__ == "__main__":
    main()
