"""Students of ChatGPT's plans of GSM8K, trained in several ways: how many of its steps do their plans cover?

Usage: python benchmarks/real/students.py DATA [--run FOLDER] [--output FILE] [--only NAME ...]

DATA holds gsm8k/test_socratic.jsonl and gsm8k_ai_subq/ (GSM8K-AI-SubQ, arXiv 2402.01812), and for two ways the base of
0.5B parameters. Beside them stand the plans of published students and people's lists of the same questions. A way that
has been measured isn't trained again. The output holds figures alone. On a GPU, on_gpu.py runs this file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from dspy.lm15 import Message, Request, Response, TextPart, Usage

from divcon.benchmarks import Arm, agreement, mean_agreement, mean_interval, points, points_with_interval
from divcon.benchmarks.tasks import load_task
from divcon.config import load_pipeline
from divcon.distill import StoredEngine, embedded_base, role_lm
from divcon.distill.serving.server import merged_copy, read_adapter
from divcon.distill.serving.vllm import VLLM
from divcon.pipeline import Run
from divcon.programs import Item

HERE = Path(__file__).resolve()
RESULTS = HERE.parents[1] / "results" / "real" / "students.json"
PUBLISHED = "published-124m"
AT_ONCE = 64

FIRST_STAGE = "after-first-stage"  # stands for the base that first-stage.yaml has trained
TWO_PLANS = "two-plans"  # stands for a file with ChatGPT's plan and people's of each question
LARGER_BASE = "roles.decomposer.base=./Qwen2.5-Coder-0.5B-Instruct"
LISTS_250 = ["task.train=250", "task.train_seed=0"]
SHORT = "Write the subquestions."
DETAILED = (
    "Split the question into the single steps of its calculation, at most 8, in the order to work them out. "
    "Ask for one number in each step, and name what it counts or measures. End with what the question asks. "
    "Write one numbered line for each step, and nothing else. Don't answer them."
)

# Each way of training differs from the first in what its name says. `train_seed` keeps the test questions the same.
WAYS: dict[str, list[str]] = {
    "3 passes, rank 16": [],
    "1 pass": ["train.epochs=1"],
    "6 passes": ["train.epochs=6"],
    "rank 64": ["train.rank=64"],
    "learning rate 0.003": ["train.learning_rate=0.003"],
    "250 lists": LISTS_250,
    "250 questions, ChatGPT's list and people's of each": [
        *LISTS_250,
        "collect.samples=2",
        f"roles.teacher.path={TWO_PLANS}",
        "roles.teacher.name=gpt-3.5-turbo and people",
    ],
    "250 lists, an instruction of three words": [*LISTS_250, f"program.instruction={SHORT}"],
    "250 lists, a detailed instruction": [*LISTS_250, f"program.instruction={DETAILED}"],
    "only plans that led to a right answer": ["screen.rule=recorded", "evaluate.arms=[teacher, untuned, sd-rec]"],
    "seed 1": ["train.seed=1"],
    "seed 2": ["train.seed=2"],
    "6 passes, rank 64, learning rate 0.003": ["train.epochs=6", "train.rank=64", "train.learning_rate=0.003"],
    "250 lists, a base of 0.5B parameters": [*LISTS_250, LARGER_BASE],
    "250 lists, after 1,000 generated word problems of a scripted teacher": [
        *LISTS_250,
        f"roles.decomposer.base={FIRST_STAGE}",
    ],
    "a base of 0.5B parameters": [LARGER_BASE],
}


class Silent:
    """Stands in for the solver, since nothing is solved here."""

    def complete(self, request: Request, rollout: int) -> Response:
        message = Message.assistant([TextPart("Final answer: none")])
        return Response(id=None, model=request.model, message=message, finish_reason="stop", usage=Usage())


@dataclass(frozen=True)
class Plans:
    """The plans that a program uses, by item, and how many of them are the whole part of a reply that isn't.

    A plan is empty where the program asks the question whole.
    """

    lists: Mapping[str, list[str]]
    salvaged: int


def plans_of(run: Run, arm: Arm) -> Plans:
    """Ask an arm's program for a plan of every test question."""
    engine = StoredEngine(Silent(), "solver", "openai/silent", None)
    if hasattr(arm.program, "solve"):
        arm.program.solve.lm = role_lm(engine, temperature=None, max_tokens=None)
    items = run.task.test
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda item: arm.program(question=item.question), items))
    lists = {item.id: list(one.subquestions) for item, one in zip(items, found, strict=True)}
    return Plans(lists, sum(one.status == "salvaged" for one in found))


def agreements(own: Plans, teacher: Plans, published: Plans, items: Sequence[Item]) -> dict[str, Any]:
    """The agreement of plans with the teacher's and with people's, and the difference to the published student's."""
    asked = [item for item in items if teacher.lists.get(item.id)]
    plans = own.lists
    covered, theirs = (
        np.array([agreement(by[item.id], teacher.lists[item.id]).covered for item in asked])
        for by in (plans, published.lists)
    )
    difference = covered - theirs  # of shares, for which Tango's interval is too wide: it is made for right and wrong
    return {
        "listed": sum(map(bool, plans.values())) / len(plans),
        "salvaged": own.salvaged / len(plans),
        "questions": len(asked),
        "teacher": mean_agreement((plans[item.id], teacher.lists[item.id]) for item in asked),
        "people": mean_agreement((plans[item.id], item.subquestions) for item in asked if item.subquestions),
        "covered_minus_published": {
            "difference": float(difference.mean()),
            "ci95": list(mean_interval(difference[None], lowest=-1)),
        },
    }


def export_rows(run: Run) -> None:
    """Do a run's stations up to the rows that its students learn from."""
    run.check()
    run.collect()
    run.export(run.screen())


def first_stage(folder: Path) -> Path:
    """The base that first-stage.yaml has trained, with its adapter merged; nothing is done twice."""
    run = Run(load_pipeline(HERE.with_name("first-stage.yaml")), folder)
    export_rows(run)
    [adapter] = run.train().values()
    run.close()
    base = embedded_base()
    return merged_copy(read_adapter(adapter, base, VLLM()), base)


def two_plans(file: Path) -> Path:
    """Write the plans that students.yaml names, and after them people's, which so are second plans of the questions."""
    pipeline = load_pipeline(HERE.with_suffix(".yaml"))
    chatgpt = json.loads(Path(str(pipeline.roles.teacher.path)).read_text(encoding="utf-8"))
    loaded = load_task(pipeline.task)
    people = [{"question": item.question, "answers": list(item.subquestions)} for item in (*loaded.train, *loaded.test)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps([*chatgpt, *people]), encoding="utf-8")
    return file


def measure(name: str, sets: Sequence[str], folder: Path) -> dict[str, Any]:
    """Train a student in one way, and measure its plans, the untrained base's, and the published student's."""
    import torch

    there = list(sets)
    for name_of, make in ((FIRST_STAGE, first_stage), (TWO_PLANS, two_plans)):
        if any(name_of in one for one in sets):
            made = make(folder.with_name(name_of))
            there = [one.replace(name_of, str(made)) for one in there]
    run = Run(load_pipeline(HERE.with_suffix(".yaml"), there), folder)
    export_rows(run)
    started = time.perf_counter()
    run.train()
    seconds = time.perf_counter() - started
    [student] = [one.name for one in run.pipeline.decomposer_students]
    measured = {"student": student, "untrained": "untuned", "published": PUBLISHED}
    plans = {arm.name: plans_of(run, arm) for arm in run.arms() if arm.name in ("teacher", *measured.values())}
    found = {
        name: agreements(plans[arm], plans["teacher"], plans[PUBLISHED], run.task.test)
        for name, arm in measured.items()
    }
    [rows] = [file.read_text(encoding="utf-8").count("\n") for file in (run.folder / "exports").glob("*.jsonl")]
    run.close()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    facts = {"way": name, "set": list(sets), "rows": rows, "seconds": round(seconds, 1), "device": device}
    return facts | found


def yardsticks(folder: Path) -> dict[str, Any]:
    """The agreement with ChatGPT's plans of people's lists, and of the published students' plans, by label."""
    run = Run(load_pipeline(HERE.with_suffix(".yaml"), ["evaluate.arms=[teacher]"]), folder)
    plans = {arm.name: plans_of(run, arm) for arm in run.arms()}
    labels = {name: one.label for name, one in run.pipeline.evaluate.recorded.items()}
    items = run.task.test
    run.close()
    people = Plans({item.id: list(item.subquestions) for item in items}, 0)
    found = {"people's lists": people, **{str(label): plans[name] for name, label in labels.items()}}
    return {label: agreements(own, plans["teacher"], plans[PUBLISHED], items) for label, own in found.items()}


_MEASURED = (
    "questions with a plan | ChatGPT's steps covered | minus the published student of 124M, in points | steps off |"
)
HEAD = f"| trained | lists | {_MEASURED}\n|---|---|---|---|---|---|"
OF_YARDSTICKS = f"| plans | {_MEASURED}\n|---|---|---|---|---|"


def _measured(mine: Mapping[str, Any]) -> str:
    less = mine["covered_minus_published"]
    minus = points_with_interval(less["difference"], less["ci95"]) if "ci95" in less else points(less["difference"])
    if less["difference"] == 0:
        minus = "–"  # the published student itself
    return (
        f"{100 * mine['listed']:.0f} % | {100 * mine['teacher']['covered']:.1f} % | {minus} | "
        f"{mine['teacher']['count_error']:.2f} |"
    )


def row_of(one: Mapping[str, Any]) -> str:
    """A way of training as a row of a Markdown table."""
    return f"| {one['way']} | {one['rows']} | {_measured(one['student'])}"


def table(ways: Iterable[Mapping[str, Any]]) -> str:
    """The ways of training as a Markdown table."""
    return "\n".join([HEAD, *map(row_of, ways)])


def table_of_yardsticks(found: Mapping[str, Mapping[str, Any]]) -> str:
    """People's lists and the published students' plans as a Markdown table."""
    return "\n".join([OF_YARDSTICKS, *(f"| {label} | {_measured(one)}" for label, one in found.items())])


def write(output: Path, found: Mapping[str, Any], ways: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the record: the yardsticks, and the ways in the order in which they stand here."""
    record = {
        "data": "GSM8K-AI-SubQ (arXiv 2402.01812), GSM8K's test questions",
        "base": "SmolLM2-135M-Instruct, where a way names no other",
        "yardsticks": found,
        "ways": [ways[way] for way in WAYS if way in ways],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run", type=Path, default=Path("runs/students"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--only", nargs="*", default=list(WAYS))
    given = parser.parse_args()
    folder, output = given.run.resolve(), given.output.resolve()
    known = json.loads(output.read_text(encoding="utf-8"))["ways"] if output.exists() else []
    ways = {one["way"]: one for one in known}
    with contextlib.chdir(given.data):
        found = yardsticks(folder / "yardsticks")
        write(output, found, ways)
        for name, sets in WAYS.items():
            if name in given.only and name not in ways:
                ways[name] = measure(name, sets, folder / re.sub(r"\W+", "-", name))
                print(row_of(ways[name]), flush=True)
                write(output, found, ways)
    print(table_of_yardsticks(found), table(ways.values()), sep="\n\n")


if __name__ == "__main__":
    main()
