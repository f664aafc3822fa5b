"""The claims of "Divide-or-Conquer?" (arXiv 2402.15000), each held to the recorded results on real questions.

Usage: python benchmarks/real/claims.py [--results FOLDER] [--margin 0.02]

Prints Markdown tables: the claims, the programs of each recorded experiment, and what either half saves where an
experiment distils both. A claim that one arm is better holds where the paired difference is shown to be above zero, and
doesn't where it is shown to be below. A claim that one arm is as good as another holds where the interval of the
difference is above minus the margin, and doesn't where the difference is shown to be below zero. Everything else is not
settled. A difference is shown where its p-value is below 0.05, corrected for all rows of the claim by Holm's method.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from divcon.benchmarks import holm, points_with_interval
from divcon.benchmarks.arms import TEACHER, read_arm
from divcon.programs import priced

RESULTS = Path(__file__).parents[1] / "results"
MARGIN = 0.02
LEVEL = 0.05
DATA = {"gsm8k": "GSM8K", "multiarith": "MultiArith", "svamp": "SVAMP"}
PARAMETERS = {"Qwen2.5-Coder-0.5B-Instruct": 494_032_768, "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008}


@dataclass(frozen=True)
class Claim:
    """A claim about two arms.

    Attributes:
        text: The claim.
        a: The arm that it praises.
        b: The other one.
        kind: Whether `a` is better than `b`, or as good.
    """

    text: str
    a: str
    b: str
    kind: Literal["better", "as good"] = "better"


CLAIMS = (
    Claim("Splitting by the teacher beats a direct answer", "teacher", "direct"),
    Claim("Splitting by the teacher beats chain of thought", "teacher", "cot"),
    Claim("A distilled planner (all plans) is as good as its teacher", "sd-t", "teacher", "as good"),
    Claim("A distilled planner (plans screened by the solver) is as good as its teacher", "sd-r", "teacher", "as good"),
    Claim(
        "A distilled planner (plans screened by the outcome) is as good as its teacher", "sd-rec", "teacher", "as good"
    ),
    Claim("Training makes the small planner better", "sd-t", "untuned"),
    Claim("Training on plans screened by the outcome makes the small planner better", "sd-rec", "untuned"),
    Claim("Screening by the solver's success makes the planner better", "sd-r", "sd-t"),
    Claim("Screening by the recorded outcome makes the planner better", "sd-rec", "sd-t"),
    Claim("A distilled solver is worse than its teacher", "teacher", "se-a"),
    Claim("A solver that learns the gold answers is better than one that learns the teacher's", "se-a", "se-t"),
    Claim("Distilling the planner beats distilling the solver", "sd-r", "se-a"),
    Claim("A small planner with the strong solver beats the strong planner with a weaker solver", "small", "weaker"),
    Claim(
        "A planner distilled on other questions is as good as one distilled on these", "sd-t moved", "sd-t", "as good"
    ),
)


@dataclass(frozen=True)
class Finding:
    """A recorded comparison of a claim's two arms, and what it says of the claim.

    Attributes:
        claim: The claim.
        data: The data set.
        student: The student's base.
        solver: The solver.
        teacher: Who wrote the plans.
        difference: The praised arm's accuracy minus the other's, from -1 to 1.
        interval: Its 95 % interval.
        p: Its two-sided p-value, not corrected.
        verdict: `holds`, `doesn't hold` or `not settled`; empty until the p-values of the claim's rows are corrected.
    """

    claim: Claim
    data: str
    student: str
    solver: str
    teacher: str
    difference: float
    interval: tuple[float, float]
    p: float
    verdict: str = ""


def verdict(found: Finding, corrected: float, margin: float) -> str:
    """What a comparison says of its claim.

    Args:
        found: The comparison.
        corrected: Its p-value, corrected for all rows of the claim.
        margin: The loss of accuracy that counts as none, from 0 to 1.
    """
    shown = corrected < LEVEL
    if found.interval[0] > -margin if found.claim.kind == "as good" else shown and found.difference > 0:
        return "holds"
    return "doesn't hold" if shown and found.difference < 0 else "not settled"


def judged(found: Sequence[Finding], margin: float) -> list[Finding]:
    """The comparisons claim by claim, each with its verdict; see `verdict`."""
    judged = []
    for _, rows in groupby(sorted(found, key=lambda one: CLAIMS.index(one.claim)), lambda one: one.claim):
        of_claim = list(rows)
        for one, corrected in zip(of_claim, holm([one.p for one in of_claim]), strict=True):
            judged.append(replace(one, verdict=verdict(one, corrected, margin)))
    return judged


def finding(claim: Claim, where: tuple[str, str, str, str], row: Mapping[str, Any]) -> Finding:
    """A comparison of a claim's two arms.

    Args:
        claim: The claim.
        where: The data set, the student, the solver, and who wrote the plans.
        row: A comparison of the arms `a` and `b`, which stand in any order.
    """
    sign = 1 if row["a"] == claim.a else -1
    low, high = sorted(sign * end for end in row["ci95"])
    return Finding(claim, *where, sign * row["difference"], (low, high), row["p"])


def planner_of(results: Mapping[str, Any], task: str) -> str:
    """Who wrote the plans of a task that its students learn from."""
    model: str = results.get("teachers", {}).get(task, results["teacher"])["model"]
    return model


def of_experiment(results: dict[str, Any]) -> Iterator[Finding]:
    """What the results of an experiment say of the claims."""
    for claim in CLAIMS:
        for row in results["comparisons"]:
            if {row["a"], row["b"]} == {claim.a, claim.b} and row["ci95"] is not None:
                task = row["task"]
                where = DATA.get(task, task), results["student_base"], results["solver"], planner_of(results, task)
                yield finding(claim, where, row)


def of_transfer(results: dict[str, Any]) -> Iterator[Finding]:
    """What the results of a transfer say: of a student trained on the task against one of another task, in all pairs.

    A comparison is of `sd-t (svamp)` with `sd-t (gsm8k)` on SVAMP. The comparisons within a task are those of the
    experiment on it alone.
    """
    for claim in CLAIMS:
        for row in results["comparisons"]:
            (arm, task), (other, origin) = (row[side].removesuffix(")").partition(" (")[::2] for side in "ab")
            if {arm, f"{other} moved"} == {claim.a, claim.b} and task and origin and row["ci95"] is not None:
                teachers = [planner_of(results, name) for name in (task, origin)]
                where = (
                    f"{DATA[task]}, moved from {DATA[origin]}",
                    results["student_base"],
                    results["solver"],
                    " and ".join(dict.fromkeys(teachers)),
                )
                yield finding(claim, where, {**row, "a": arm, "b": f"{arm} moved"})


def of_published(results: dict[str, Any]) -> Iterator[Finding]:
    """What the published plans and replies say: `filtered` is screened by ChatGPT's recorded outcome."""
    by_name = {(claim.a, claim.b): claim for claim in CLAIMS}
    for one in results["solvers"].values():
        for size, row in one["filtered_minus_plain"].items():
            where = "GSM8K", size, one["solver"], "ChatGPT"
            yield finding(by_name["sd-rec", "sd-t"], where, {"a": "sd-rec", "b": "sd-t", **row})
        for name, line in one["programs"].items():
            if name != "teacher":
                size, way = name.split()
                arm = {"plain": "sd-t", "filtered": "sd-rec"}[way]
                row = {"a": arm, "b": "teacher", **line["minus_teacher"]}
                yield finding(by_name[arm, "teacher"], ("GSM8K", size, one["solver"], "ChatGPT"), row)
    for one in results["halves"]["programs"]:
        if (row := one.get("minus_weaker_solver")) is not None:
            where = "GSM8K", one["planner"].removesuffix(" student"), "ChatGPT against LLaMA 13B", "ChatGPT"
            yield finding(by_name["small", "weaker"], where, {"a": "small", "b": "weaker", **row})


def of_untrained(results: dict[str, Any]) -> Iterator[Finding]:
    """What the measurement of an untrained model says: it solves, by its own plans, ChatGPT's and people's."""
    by_name = {(claim.a, claim.b): claim for claim in CLAIMS}
    plans = {"recorded": "ChatGPT", "people": "people", "own": "the solver itself"}
    for task in ("gsm8k", "svamp"):
        for row in results[task]["differences"]:
            if row["a"] in plans:
                where = task.upper(), "none", results["model"], plans[row["a"]]
                yield finding(by_name["teacher", "cot"], where, {**row, "a": "teacher"})


def of_people(results: dict[str, Any]) -> Iterator[Finding]:
    """What the run on people's own subquestions of GSM8K says."""
    where = "GSM8K", "SmolLM2-135M", "SmolLM2-135M with the shipped adapter", "people"
    for claim in CLAIMS:
        for row in results["differences"]:
            if {row["a"], row["b"]} == {claim.a, claim.b}:
                yield finding(claim, where, row)


def table(found: list[Finding]) -> str:
    """The findings as a Markdown table, in points of a hundred."""
    lines = [
        "| claim | data | plans by | student | solver | difference (95 % interval) | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        lines.append(
            f"| {one.claim.text} | {one.data} | {one.teacher} | {one.student} | {one.solver} "
            f"| {points_with_interval(one.difference, one.interval)} | {one.verdict} |"
        )
    return "\n".join(lines)


def recorded(results: Path, margin: float) -> list[Finding]:
    """The findings of all recorded results on real questions, claim by claim.

    Args:
        results: The folder of the recorded results.
        margin: The loss of accuracy that counts as none, from 0 to 1.
    """

    def read(file: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return found

    found = [
        *of_published(read(results / "real" / "published.json")),
        *of_untrained(read(results / "perf-real.json")),
        *of_people(read(results / "gsm8k.json")),
    ]
    for one in experiments(results).values():
        found += (of_transfer if one["experiment"] == "transfer" else of_experiment)(one)
    return judged(found, margin)


def programs(results: Mapping[str, Any]) -> str:
    """The programs of a recorded experiment as a Markdown table."""
    lines = [
        "| data | program | right (95 % interval) | of the teacher's (95 % interval) | lists usable "
        "| teacher's steps covered | people's steps covered | ROUGE-L to people's | steps off people's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in results["rows"]:
        kept, people, teacher = (row.get(key) or {} for key in ("retained", "agreement", "agreement_with_teacher"))
        origin = f", trained on {DATA.get(row['trained_on'], row['trained_on'])}" if "trained_on" in row else ""
        cells = [
            DATA.get(row["task"], row["task"]),
            row["label"].partition(", trained on")[0] + origin,
            f"{100 * row['accuracy']:.1f} % ({_percents(row['ci95'])})",
            f"{100 * kept['share']:.0f} % ({_percents(kept['ci95'])})" if kept else "–",
            f"{100 * row['usable_rate']:.0f} %" if row["splits"] and row["usable_rate"] is not None else "–",
            *(f"{100 * one['covered']:.0f} %" if one else "–" for one in (teacher, people)),
            f"{people['rouge_l']:.2f}" if people else "–",
            f"{people['count_error']:.2f}" if people else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def halves(results: Mapping[str, Any], price: Mapping[str, float]) -> str:
    """Programs with a smaller planner or a smaller solver as a Markdown table: accuracy, and dollars by role.

    Nobody lists a price for a model as small as the student. A token of it takes fewer operations in proportion to its
    parameters, so its price is the larger model's in the same proportion.

    Args:
        results: An experiment's results. Its teacher and its solver are the same model.
        price: US dollars for a million tokens that the larger model reads (`input`) and writes (`output`).
    """
    large, small = PARAMETERS[results["solver"]], PARAMETERS[results["student_base"]]
    prices = {False: price, True: {way: small / large * one for way, one in price.items()}}
    lines = [
        "| data | program | planner | solver | right | minus the teacher's (95 % interval) "
        "| planner, $ per 1,000 | solver, $ per 1,000 | saved | $ per 1,000 right |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    differences = {(one["task"], one["a"], one["b"]): one for one in results["comparisons"]}
    whole: dict[str, float] = {}
    for row in sorted(results["rows"], key=lambda row: row["name"] != TEACHER.name):
        kind, task = read_arm(row["name"])[0], row["task"]
        if not kind.splits:
            continue
        parts = {"decomposer": kind.planner != "teacher", "solver": kind.student_solves}
        used = row["bill"]["by_role"]
        spent = [
            1000 * priced(prices[is_small], used[role]["input_tokens"], used[role]["output_tokens"])
            for role, is_small in parts.items()
        ]
        whole.setdefault(task, sum(spent))
        less = differences.get((task, row["name"], TEACHER.name))
        cells = [
            DATA.get(task, task),
            row["label"],
            *(f"{(small if is_small else large) / 1e6:.0f}M" for is_small in parts.values()),
            f"{100 * row['accuracy']:.1f} %",
            "–" if less is None else points_with_interval(less["difference"], less["ci95"]),
            *(f"{one:.3f}" for one in spent),
            "–" if row["name"] == TEACHER.name else f"{100 * (1 - sum(spent) / whole[task]):.0f} %",
            f"{sum(spent) / row['accuracy']:.3f}" if row["accuracy"] else "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def tables(results: Mapping[str, Any], price: Mapping[str, float]) -> list[str]:
    """The tables of a recorded experiment: its programs, and either half where it distils both; see `halves`.

    A transfer has no table of halves. That of the experiment on each task alone holds the students of the task, and the
    moved ones cost as much.
    """
    solved = any(read_arm(row["name"])[0].student_solves for row in results["rows"])
    both = solved and results["experiment"] != "transfer"
    return [programs(results), *([halves(results, price)] if both else [])]


def listed_price(results: Path) -> dict[str, float]:
    """The price of the smallest class of models that `published.py` found listed; see `halves`."""
    prices = json.loads((results / "real" / "published.json").read_text(encoding="utf-8"))["halves"]["prices"]
    return {way: prices["student"][way] for way in ("input", "output")}


def _percents(ends: Sequence[float | None]) -> str:
    low, high = ends
    return f"at least {100 * (low or 0):.0f}" if high is None else f"{100 * (low or 0):.0f} to {100 * high:.0f}"


def experiments(results: Path) -> dict[str, dict[str, Any]]:
    """The recorded experiments on real questions, by the name of their files."""
    read = {
        file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted((results / "real").glob("*.json"))
    }
    return {name: one for name, one in read.items() if "comparisons" in one}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--margin", type=float, default=MARGIN)
    given = parser.parse_args()
    print(table(recorded(given.results, given.margin)))
    price = listed_price(given.results)
    for name, one in experiments(given.results).items():
        print("\n\n".join([f"\n{name}", *tables(one, price)]))


if __name__ == "__main__":
    main()
