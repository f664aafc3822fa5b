"""Published plans and replies on GSM8K: what a student keeps of its teacher's accuracy, and what screening brings.

Usage: python benchmarks/real/published.py DATA [--run FOLDER] [--output FILE]

DATA holds gsm8k/test_socratic.jsonl and gsm8k_ai_subq/ (GSM8K-AI-SubQ, arXiv 2402.01812). The output holds figures
alone: the questions, plans and replies are their authors'.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from divcon.benchmarks import Records, answers_of, compare_paired, mean_agreement, retained, summarize_arm
from divcon.config import load_pipeline
from divcon.pipeline import Run
from divcon.programs import Item

RESULTS = Path(__file__).parents[1] / "results" / "real" / "published.json"
SOLVERS = {"chatgpt": "ChatGPT", "llama13b": "LLaMA 13B"}
SIZES = {"82M": "-dist", "124M": "", "355M": "-medium"}
WAYS = {"plain": "finetune", "filtered": "filtered-bc"}
RESAMPLES = 10_000


def plans_of(records: Records) -> dict[str, list[str]]:
    """The plans by item, without those that couldn't be read."""
    return {key: list(one["subquestions"]) for key, one in records.items() if one.get("subquestions")}


def kept(student: np.ndarray, teacher: np.ndarray) -> dict[str, Any]:
    """The retained share with its interval."""
    found = retained(student, teacher)
    assert found is not None
    return {"share": found.share, "ci95": list(found.ci95)}


def figures(records: dict[str, Records], arms: dict[str, Any], items: Sequence[Item]) -> dict[str, Any]:
    """All figures, by solver."""
    references = {item.id: list(item.subquestions) for item in items if item.subquestions}
    order = [item.id for item in items]
    found: dict[str, Any] = {}
    for solver, shown in SOLVERS.items():
        given = {
            "teacher": f"chatgpt-{solver}",
            **{f"{size} {way}": f"{start}{end}-{solver}" for size, end in SIZES.items() for way, start in WAYS.items()},
        }
        right = {name: answers_of([records[arm]], order) for name, arm in given.items()}
        theirs = plans_of(records[given["teacher"]])
        lines = {}
        for name, arm in given.items():
            line = summarize_arm(arms[arm], [records[arm]], RESAMPLES)
            plans = plans_of(records[arm])
            lines[name] = {
                **{key: line[key] for key in ("right", "wrong", "failed", "accuracy", "ci95", "unreadable")},
                "people": mean_agreement((plan, references[key]) for key, plan in plans.items() if key in references),
            }
            if name != "teacher":
                lines[name]["minus_teacher"] = compared(right[name], right["teacher"])
                lines[name]["retained"] = kept(right[name], right["teacher"])
                lines[name]["chatgpt"] = mean_agreement(
                    (plan, theirs[key]) for key, plan in plans.items() if key in theirs
                )
        differences = {size: compared(right[f"{size} filtered"], right[f"{size} plain"]) for size in SIZES}
        found[solver] = {
            "solver": shown,
            "programs": lines,
            "filtered_minus_plain": differences,
            "pooled_over_sizes": pooled_difference(right),
        }
    return found


def table(results: dict[str, Any]) -> str:
    """The accuracies and the retained shares as a Markdown table, in per cent."""
    lines = [
        "| plans by | trained on | solver | right | of ChatGPT's plans (95 % interval) | ChatGPT's steps covered |",
        "|---|---|---|---|---|---|",
    ]
    for one in results["solvers"].values():
        for name, line in one["programs"].items():
            right = f"{100 * line['accuracy']:.1f} %"
            if name == "teacher":
                lines.append(f"| ChatGPT | – | {one['solver']} | {right} | 100 % | – |")
                continue
            size, way = name.split()
            low, high = line["retained"]["ci95"]
            share = f"{100 * line['retained']['share']:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
            rows = {"plain": "all plans", "filtered": "those that led to a right answer"}[way]
            covered = f"{100 * line['chatgpt']['covered']:.0f} %"
            lines.append(f"| {size} student | {rows} | {one['solver']} | {right} | {share} | {covered} |")
    return "\n".join(lines)


def compared(a: np.ndarray, b: np.ndarray) -> dict[str, Any]:
    """A paired difference with its interval."""
    found = compare_paired(a, b)
    assert found is not None
    return {"difference": found.difference, "ci95": list(found.ci95), "n": found.n}


def pooled_difference(right: dict[str, np.ndarray]) -> dict[str, Any]:
    """Filtered minus plain over the three sizes, which are three answers to each question, not three questions."""
    filtered, plain = (np.concatenate([right[f"{size} {way}"] for size in SIZES]) for way in ("filtered", "plain"))
    return compared(filtered, plain)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run", type=Path, default=Path("runs/published"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    folder = given.run.resolve()
    file = Path(__file__).resolve().with_suffix(".yaml")
    with contextlib.chdir(given.data):
        run = Run(load_pipeline(file), folder)
        arms = run.arms()
        records = run.answers(arms)
        found = figures(records, {arm.name: arm for arm in arms}, run.task.test)
        run.close()
    text = json.dumps(
        {"data": "GSM8K-AI-SubQ (arXiv 2402.01812), GSM8K's test questions", "questions": 1319, "solvers": found},
        indent=1,
    )
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(text + "\n", encoding="utf-8")
    print(table(json.loads(text)))


if __name__ == "__main__":
    main()
