"""Published plans and replies on GSM8K: what a student keeps, what screening brings, and which half may be smaller.

Usage: python benchmarks/real/published.py DATA [--run FOLDER] [--output FILE]

DATA holds gsm8k/test_socratic.jsonl and gsm8k_ai_subq/ (GSM8K-AI-SubQ, arXiv 2402.01812). The output holds figures
alone: the questions, plans and replies are their authors'.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from divcon.benchmarks import (
    Recording,
    Records,
    answers_of,
    compare_paired,
    mean_agreement,
    paired_p_value,
    points_with_interval,
    retained,
    summarize_arm,
)
from divcon.config import load_pipeline
from divcon.pipeline import Run
from divcon.programs import Item, priced

RESULTS = Path(__file__).parents[1] / "results" / "real" / "published.json"
SOLVERS = {"chatgpt": "ChatGPT", "llama13b": "LLaMA 13B"}
SIZES = {"82M": "-dist", "124M": "", "355M": "-medium"}
WAYS = {"plain": "finetune", "filtered": "filtered-bc"}
RESAMPLES = 10_000
# Whose price LiteLLM's table has for a model, by what it does here. A student has that of Together's smallest class.
PRICED = {
    "ChatGPT": "gpt-3.5-turbo",
    "LLaMA 13B": "replicate/meta/llama-2-13b-chat",
    "student": "together-ai-up-to-4b",
}


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


def tokens_of(recording: Recording, items: Sequence[Item]) -> dict[str, float]:
    """The mean tokens of a question, its plan and its reply, as ChatGPT's tokenizer counts them."""
    import litellm

    rows = recording.match(items).first
    texts = {"question": [], "plan": [], "reply": []}  # type: dict[str, list[str]]
    for item in items:
        if (row := rows.get(item.id)) is not None:
            for name, text in (("question", item.question), ("plan", row.plan), ("reply", row.reply)):
                texts[name].append(text or "")
    return {
        name: float(np.mean([len(litellm.encode(model="gpt-3.5-turbo", text=text)) for text in found]))
        for name, found in texts.items()
    }


def halves(records: dict[str, Records], tokens: dict[str, dict[str, float]], order: Sequence[str]) -> dict[str, Any]:
    """Every planner with every solver: accuracy beside ChatGPT in both roles, and dollars for 1,000 questions.

    Args:
        records: The outcomes by recorded program.
        tokens: Mean tokens by recorded program.
        order: The ids of the questions.
    """
    import litellm

    prices = {
        name: {way: 1e6 * litellm.model_cost[listed][f"{way}_cost_per_token"] for way in ("input", "output")}
        for name, listed in PRICED.items()
    }

    planners = {
        "ChatGPT": "chatgpt",
        **{f"{size} student": f"{WAYS['filtered']}{end}" for size, end in reversed(SIZES.items())},
    }
    strong = answers_of([records["chatgpt-chatgpt"]], order)
    weaker = answers_of([records["chatgpt-llama13b"]], order)
    rows = []
    for planner, start in planners.items():
        for key, solver in SOLVERS.items():
            name = f"{start}-{key}"
            right, used = answers_of([records[name]], order), tokens[name]
            by = planner if planner in prices else "student"
            row: dict[str, Any] = {
                "planner": planner,
                "solver": solver,
                "accuracy": float(right.mean()),
                "planner_usd": 1000 * priced(prices[by], used["question"], used["plan"]),
                "solver_usd": 1000 * priced(prices[solver], used["question"] + used["plan"], used["reply"]),
                "tokens": used,
            }
            if name != "chatgpt-chatgpt":
                row["minus_strong"] = compared(right, strong)
            if by == "student" and solver == "ChatGPT":
                row["minus_weaker_solver"] = compared(right, weaker)
            rows.append(row)
    return {
        "prices": {name: {"listed_as": listed, **prices[name]} for name, listed in PRICED.items()},
        "programs": rows,
    }


def halves_table(results: dict[str, Any]) -> str:
    """Every planner with every solver as a Markdown table, in points of a hundred and US dollars."""
    rows = results["halves"]["programs"]
    whole = rows[0]["planner_usd"] + rows[0]["solver_usd"]
    lines = [
        "| planner | solver | right | minus ChatGPT as both (95 % interval) "
        "| planner, $ per 1,000 | solver, $ per 1,000 | saved | $ per 1,000 right |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        less, saved, cost = "–", "–", row["planner_usd"] + row["solver_usd"]
        if "minus_strong" in row:
            less = points_with_interval(row["minus_strong"]["difference"], row["minus_strong"]["ci95"])
            saved = f"{100 * (1 - cost / whole):.0f} %"
        figures = (f"{one:.2f}" for one in (row["planner_usd"], row["solver_usd"]))
        cells = row["planner"], row["solver"], f"{100 * row['accuracy']:.1f} %", less, *figures, saved
        lines.append(f"| {' | '.join(cells)} | {cost / row['accuracy']:.2f} |")
    return "\n".join(lines)


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
    """A paired difference with its interval, and a two-sided p-value that isn't corrected for other comparisons."""
    found = compare_paired(a, b)
    assert found is not None
    p = paired_p_value(np.nanmean(a, axis=0), np.nanmean(b, axis=0))
    return {"difference": found.difference, "ci95": list(found.ci95), "n": found.n, "p": p}


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
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # the prices of the release that is installed
    folder = given.run.resolve()
    file = Path(__file__).resolve().with_suffix(".yaml")
    with contextlib.chdir(given.data):
        run = Run(load_pipeline(file), folder)
        arms = run.arms()
        records = run.answers(arms)
        items = run.task.test
        found = figures(records, {arm.name: arm for arm in arms}, items)
        tokens = {name: tokens_of(one, items) for name, one in run.context.recordings.items()}
        ways = halves(records, tokens, [item.id for item in items])
        run.close()
    data = "GSM8K-AI-SubQ (arXiv 2402.01812), GSM8K's test questions"
    text = json.dumps({"data": data, "questions": 1319, "solvers": found, "halves": ways}, indent=1)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    given.output.write_text(text + "\n", encoding="utf-8")
    print(table(json.loads(text)))
    print(f"\n{halves_table(json.loads(text))}")


if __name__ == "__main__":
    main()
