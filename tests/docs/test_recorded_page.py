"""The tables and the findings of the recorded runs are those of the JSON."""

import json
import re
from pathlib import Path

import pytest

RECORDED = ("main", "depth", "transfer", "dynamic", "curve", "solvers", "multitask", "cap")


def test_the_table_of_the_demo_is_the_recorded_run(root: Path) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / "demo.json").read_text())
    page = (root / "docs" / "getting-started.md").read_text(encoding="utf-8")
    for arm in recorded["arms"]:
        line = next(line for line in page.splitlines() if line.startswith(f"| {arm['label']} |"))
        low, high = arm["ci95"]
        assert f"{100 * arm['accuracy']:.1f} %" in line
        assert f"{100 * low:.0f} to {100 * high:.0f}" in line
        assert f"{arm['right']} / {arm['wrong']} / {arm['failed']}" in line
        if arm["name"] not in ("direct", "cot"):
            rates = (f"{100 * arm[name]:.0f} %" for name in ("whole_rate", "salvaged_rate", "fell_back_rate"))
            assert f"| {' | '.join(rates)} |" in line
    said = " ".join(page.split())
    for other, words in (("untuned", "the untuned student by"), ("sd-t", "SD-T by"), ("cot", "chain of thought by")):
        [found] = [row for row in recorded["differences"] if {row["a"], row["b"]} == {"sd-r", other}]
        # The row is the first minus the second.
        low, high = sorted((100 * found["ci95"][0], 100 * found["ci95"][1]))
        shown = (
            (100 * found["difference"], low, high)
            if found["a"] == "sd-r"
            else (-100 * found["difference"], -high, -low)
        )
        assert "{} {:+.1f} points ({:+.1f} to {:+.1f})".format(words, *shown) in said


def test_the_gsm8k_table_is_the_recorded_run(root: Path) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / "gsm8k.json").read_text())
    page = (root / "docs" / "recorded.md").read_text(encoding="utf-8")
    labels = {
        "untuned": "Two-stage, untuned student",
        "sd-t": "Two-stage, SD-T",
        "direct": "Direct",
        "cot": "Chain of thought",
        "teacher": "Two-stage, people's subquestions",
    }
    for arm in recorded["arms"]:
        line = next(line for line in page.splitlines() if line.startswith(f"| {labels[arm['name']]} |"))
        assert f"| {100 * arm['accuracy']:.1f} % | {100 * arm['ci95'][0]:.0f} to {100 * arm['ci95'][1]:.0f} |" in line
        if arm["name"] in ("untuned", "sd-t"):
            assert agreement_of(arm) in line
    refused = json.loads((root / "benchmarks" / "results" / "gsm8k-refused.json").read_text())
    [arm] = [arm for arm in refused["arms"] if arm["name"] == "sd-t"]
    assert not refused["program"]["salvage"]
    line = next(line for line in page.splitlines() if line.startswith("| Two-stage, SD-T, `program.salvage: false` |"))
    assert f"{agreement_of(arm)} {100 * arm['accuracy']:.1f} % |" in line


def agreement_of(arm: dict) -> str:
    agreed, rates = arm["agreement"], [f"{100 * arm[f'{name}_rate']:.0f} %" for name in ("salvaged", "fell_back")]
    return f"| {agreed['count_error']:.2f} | {agreed['rouge_l']:.2f} | {' | '.join(rates)} |"


@pytest.mark.parametrize("kind", RECORDED)
def test_the_tables_of_the_experiments_are_the_recorded_ones(root: Path, kind: str) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / f"{kind}.json").read_text())
    assert recorded["experiment"] == kind
    page = (root / "docs" / "experiment-tables.md").read_text(encoding="utf-8")
    factors = ("task", "trained_on", "solver", "questions", "cap", "steps")
    for row in recorded["rows"]:
        spent = row["bill"]["by_role"].values()
        tokens = sum(part["input_tokens"] + part["output_tokens"] for part in spent)
        shown = [str(row.get(name, "–")) for name in factors if any(name in other for other in recorded["rows"])]
        low, high = row["ci95"]
        cells = [*shown, row["label"], f"{100 * row['accuracy']:.1f} %", f"{100 * low:.0f} to {100 * high:.0f}"]
        assert f"| {' | '.join(cells)} | {tokens:,.0f} |" in page, row["label"]
        assert row["failed"] == 0


def test_the_claims_are_what_main_found(root: Path) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / "main.json").read_text())
    page = (root / "docs" / "recorded.md").read_text(encoding="utf-8")
    found = {(row["a"], row["b"], row["task"]): row for row in recorded["comparisons"]}
    for task in recorded["tasks"]:
        for pair in (("sd-r", "teacher"), ("sd-r", "sd-t"), ("se-a", "teacher")):
            row = found[(*pair, task)]
            low, high = row["ci95"]
            assert f"{100 * abs(row['difference']):.1f}" in page
            assert f"{100 * low:+.1f} to {100 * high:+.1f}" in page, (pair, task)
        saved = recorded["costs"][task]["against_teacher"]["sd-r"]["saves"]
        assert re.search(rf"\b{100 * saved:.0f}\b[^.]* % fewer\s+tokens", page)
