"""Students of ChatGPT's plans of GSM8K, trained in several ways: how many of its steps do their plans cover?

Usage: python benchmarks/real/students.py DATA [--run FOLDER] [--output FILE] [--only NAME ...]

DATA holds gsm8k/test_socratic.jsonl and gsm8k_ai_subq/ (GSM8K-AI-SubQ, arXiv 2402.01812), and for the last way the base
of 0.5B parameters. The plans of a published student of 124M parameters to the same questions stand beside them. A way
that has been measured isn't trained again. The output holds figures alone. On a GPU, on_gpu.py runs this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from dspy.lm15 import Message, Request, Response, TextPart, Usage

from divcon.benchmarks import Arm, agreement, mean_agreement, mean_interval, points, points_with_interval
from divcon.config import load_pipeline
from divcon.distill import StoredEngine, role_lm
from divcon.pipeline import Run
from divcon.programs import Item

HERE = Path(__file__).resolve()
RESULTS = HERE.parents[1] / "results" / "real" / "students.json"
PUBLISHED = "published-124m"
AT_ONCE = 64

# Each way of training differs from the first in what its name says. `train_seed` keeps the test questions the same.
WAYS: dict[str, list[str]] = {
    "3 passes, rank 16": [],
    "1 pass": ["train.epochs=1"],
    "6 passes": ["train.epochs=6"],
    "rank 64": ["train.rank=64"],
    "learning rate 0.003": ["train.learning_rate=0.003"],
    "250 lists": ["task.train=250", "task.train_seed=0"],
    "500 lists": ["task.train=500", "task.train_seed=0"],
    "only plans that led to a right answer": ["screen.rule=recorded", "evaluate.arms=[teacher, untuned, sd-rec]"],
    "seed 1": ["train.seed=1"],
    "seed 2": ["train.seed=2"],
    "6 passes, rank 64, learning rate 0.003": ["train.epochs=6", "train.rank=64", "train.learning_rate=0.003"],
    "a base of 0.5B parameters": ["roles.decomposer.base=./Qwen2.5-Coder-0.5B-Instruct"],
}


class Silent:
    """Stands in for the solver, since nothing is solved here."""

    def complete(self, request: Request, rollout: int) -> Response:
        message = Message.assistant([TextPart("Final answer: none")])
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=Usage())


def plans_of(run: Run, arm: Arm) -> dict[str, list[str]]:
    """The plans that an arm's program uses, by item; none where it asks the question whole."""
    engine = StoredEngine(Silent(), "solver", "openai/silent", None)
    if hasattr(arm.program, "solve"):
        arm.program.solve.lm = role_lm(engine, temperature=None, max_tokens=None)
    items = run.task.test
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda item: arm.program(question=item.question).subquestions, items)
        return {item.id: list(plan) for item, plan in zip(items, found, strict=True)}


def agreements(
    plans: Mapping[str, list[str]],
    teacher: Mapping[str, list[str]],
    published: Mapping[str, list[str]],
    items: Sequence[Item],
) -> dict[str, Any]:
    """The agreement of plans with the teacher's and with people's, and the difference to the published student's."""
    asked = [item for item in items if teacher.get(item.id)]
    covered, theirs = (
        np.array([agreement(by[item.id], teacher[item.id]).covered for item in asked]) for by in (plans, published)
    )
    difference = covered - theirs  # of shares, for which Tango's interval is too wide: it is made for right and wrong
    return {
        "listed": sum(map(bool, plans.values())) / len(plans),
        "questions": len(asked),
        "teacher": mean_agreement((plans[item.id], teacher[item.id]) for item in asked),
        "people": mean_agreement((plans[item.id], item.subquestions) for item in asked if item.subquestions),
        "covered_minus_published": {
            "difference": float(difference.mean()),
            "ci95": list(mean_interval(difference[None])),
        },
    }


def measure(name: str, sets: Sequence[str], folder: Path) -> dict[str, Any]:
    """Train a student in one way, and measure its plans, the untrained base's, and the published student's."""
    run = Run(load_pipeline(HERE.with_suffix(".yaml"), list(sets)), folder)
    run.check()
    run.collect()
    run.export(run.screen())
    started = time.perf_counter()
    run.train()
    seconds = time.perf_counter() - started
    plans = {arm.name: plans_of(run, arm) for arm in run.arms()}
    [student] = [one.name for one in run.pipeline.decomposer_students]
    found = {
        name: agreements(plans[arm], plans["teacher"], plans[PUBLISHED], run.task.test)
        for name, arm in (("student", student), ("untrained", "untuned"), ("published", PUBLISHED))
    }
    [rows] = [file.read_text(encoding="utf-8").count("\n") for file in (run.folder / "exports").glob("*.jsonl")]
    run.close()
    return {"way": name, "set": list(sets), "rows": rows, "seconds": round(seconds, 1), **found}


HEAD = (
    "| trained | lists | questions with a plan | ChatGPT's steps covered | minus the published student, in points "
    "| steps off |\n"
    "|---|---|---|---|---|---|"
)


def row_of(one: Mapping[str, Any]) -> str:
    """A way of training as a row of a Markdown table."""
    mine = one["student"]
    less = mine["covered_minus_published"]
    minus = points_with_interval(less["difference"], less["ci95"]) if "ci95" in less else points(less["difference"])
    return (
        f"| {one['way']} | {one['rows']} | {100 * mine['listed']:.0f} % | {100 * mine['teacher']['covered']:.1f} % | "
        f"{minus} | {mine['teacher']['count_error']:.2f} |"
    )


def table(ways: Iterable[Mapping[str, Any]]) -> str:
    """The ways of training as a Markdown table."""
    return "\n".join([HEAD, *map(row_of, ways)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run", type=Path, default=Path("runs/students"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="*", default=list(WAYS))
    given = parser.parse_args()
    folder, output = given.run.resolve(), given.output.resolve()
    known = json.loads(output.read_text(encoding="utf-8"))["ways"] if output.exists() else []
    found = {one["way"]: one for one in known}
    for number, (name, sets) in enumerate(WAYS.items()):
        if name not in given.only or name in found:
            continue
        with contextlib.chdir(given.data):
            found[name] = measure(name, sets, folder / str(number))
        print(row_of(found[name]), flush=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        facts = {"data": "GSM8K-AI-SubQ (arXiv 2402.01812), GSM8K's test questions", "base": "SmolLM2-135M-Instruct"}
        ways = [found[way] for way in WAYS if way in found]
        output.write_text(json.dumps({**facts, "ways": ways}, indent=1) + "\n", encoding="utf-8")
    print(table(found.values()))


if __name__ == "__main__":
    main()
