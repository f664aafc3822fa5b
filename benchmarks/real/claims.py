"""The claims of "Divide-or-Conquer?" (arXiv 2402.15000), each held to the recorded results on real questions.

Usage: python benchmarks/real/claims.py [--results FOLDER] [--margin 0.02]

Prints a Markdown table. A claim that one arm is better holds where the interval of the paired difference is above zero,
and doesn't where it is below. A claim that one arm is as good as another holds where the interval is above minus the
margin, and doesn't where it is below zero. Everything else is not settled.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parents[1] / "results" / "real"


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
    Claim("Splitting by the teacher beats the solver alone", "teacher", "direct"),
    Claim("Splitting by the teacher beats chain of thought", "teacher", "cot"),
    Claim("A distilled planner (all plans) is as good as its teacher", "sd-t", "teacher", "as good"),
    Claim("A distilled planner (screened plans) is as good as its teacher", "sd-r", "teacher", "as good"),
    Claim("Training makes the small planner better", "sd-t", "untuned"),
    Claim("Screening by the solver's success makes the planner better", "sd-r", "sd-t"),
    Claim("Screening by the recorded outcome makes the planner better", "sd-rec", "sd-t"),
    Claim("A distilled solver is worse than its teacher", "teacher", "se-a"),
    Claim("A solver that learns the gold answers is better than one that learns the teacher's", "se-a", "se-t"),
    Claim("Distilling the planner beats distilling the solver", "sd-r", "se-a"),
)


@dataclass(frozen=True)
class Finding:
    """What a recorded comparison says of a claim.

    Attributes:
        claim: The claim's text.
        data: The data set.
        student: The student's base.
        solver: The solver.
        teacher: Who wrote the plans.
        difference: The praised arm's accuracy minus the other's, from -1 to 1.
        interval: Its 95 % interval.
        verdict: `holds`, `doesn't hold` or `not settled`.
    """

    claim: str
    data: str
    student: str
    solver: str
    teacher: str
    difference: float
    interval: tuple[float, float]
    verdict: str


def verdict(kind: str, interval: tuple[float, float], margin: float) -> str:
    """What an interval of a difference says of a claim."""
    low, high = interval
    if low > (-margin if kind == "as good" else 0):
        return "holds"
    return "doesn't hold" if high < 0 else "not settled"


def findings(results: dict[str, Any], margin: float) -> Iterator[Finding]:
    """What one file of results says of the claims."""
    for claim in CLAIMS:
        for row in results["comparisons"]:
            sign = {(claim.a, claim.b): 1, (claim.b, claim.a): -1}.get((row["a"], row["b"]))
            if sign is None or row["ci95"] is None:
                continue
            low, high = sorted(sign * end for end in row["ci95"])
            yield Finding(
                claim.text,
                row["task"],
                results["student_base"],
                results["solver"],
                results["teacher"]["model"],
                sign * row["difference"],
                (low, high),
                verdict(claim.kind, (low, high), margin),
            )


def table(found: list[Finding]) -> str:
    """The findings as a Markdown table, in points of a hundred."""
    lines = [
        "| claim | data | plans by | student | solver | difference (95 % interval) | verdict |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found:
        low, high = (f"{100 * end:+.1f}" for end in one.interval)
        lines.append(
            f"| {one.claim} | {one.data} | {one.teacher} | {one.student} | {one.solver} "
            f"| {100 * one.difference:+.1f} ({low} to {high}) | {one.verdict} |"
        )
    return "\n".join(lines)


def recorded(folder: Path, margin: float) -> list[Finding]:
    """The findings of all recorded results, claim by claim."""
    files = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    found = [one for results in files if "comparisons" in results for one in findings(results, margin)]
    order = [claim.text for claim in CLAIMS]
    return sorted(found, key=lambda one: order.index(one.claim))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--margin", type=float, default=0.02)
    given = parser.parse_args()
    print(table(recorded(given.results, given.margin)))


if __name__ == "__main__":
    main()
