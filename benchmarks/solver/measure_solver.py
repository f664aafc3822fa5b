"""Measure the shipped solver adapter on held-out questions, with reference subquestions and without.

Usage, from the repository's root: python benchmarks/solver/measure_solver.py [--questions N] [--output FILE]

Prints the accuracy by family of the two-stage program on reference subquestions (an upper bound for any decomposer),
of the same program when nothing is split (`whole`), and of both baselines.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import mean

from divcon.benchmarks import MAX_FAILED, Arm, accuracy_interval, counted, evaluate_arm, too_many_failed
from divcon.benchmarks.tasks import FAMILIES, offline_items
from divcon.distill import (
    EmbeddedModel,
    Key,
    RunStore,
    ScriptedTeacher,
    StoredEngine,
    embedded_base,
    read_manifest,
    role_lm,
)
from divcon.distill.serving.embedded import solver_adapter, solver_wording
from divcon.programs import ChainOfThought, Direct, DivideAndConquer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=100, help="of each family")
    parser.add_argument("--adapter", type=Path, default=solver_adapter())
    parser.add_argument("--precision", choices=("auto", "float32", "bfloat16"), default="auto")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    model = EmbeddedModel(embedded_base(), precision=options.precision)
    name = model.add(options.adapter)
    wording = solver_wording()
    items = [item for family in FAMILIES for item in offline_items(family, "test", options.questions)]
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore(Path(folder))
        engine = StoredEngine(model.backend(name), "solver", f"embedded/{name}", store)
        solver = role_lm(engine, temperature=0.0, max_tokens=96)
        script = StoredEngine(ScriptedTeacher(items, {}, 4), "teacher", "scripted/references", store)
        references = role_lm(script, temperature=None, max_tokens=None)
        programs = {
            "references": DivideAndConquer(references, solver, max_subquestions=4, solver_wording=wording),
            "cot": ChainOfThought(solver, wording=wording),
            "direct": Direct(solver, wording=wording),
        }
        found: dict[str, dict[str, dict[str, object]]] = {}
        for arm, program in programs.items():
            records = evaluate_arm(Arm(arm, program, Key({"arm": arm}), arm), items, store)
            found[arm] = {}
            for family in (*FAMILIES, "both"):
                found_here = {i.id: records[i.id] for i in items if family in (i.family, "both")}
                if too_many_failed([found_here], MAX_FAILED):
                    raise SystemExit(f"{arm} {family}: {counted(found_here)}")
                answered = [record for record in found_here.values() if record["outcome"] != "failed"]
                right = [record["outcome"] == "right" for record in answered]
                found[arm][family] = {"n": len(right), "accuracy": mean(right), "ci95": accuracy_interval(right)}
                low, high = accuracy_interval(right)
                print(f"{arm:<11} {family:<14} {100 * mean(right):5.1f} %  ({100 * low:.0f} to {100 * high:.0f})")
        store.close()
    if options.output:
        manifest = read_manifest(options.adapter)
        record = {
            "adapter": manifest.content_hash,
            "questions": options.questions,
            "precision": model.precision,
            "arms": found,
        }
        options.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
