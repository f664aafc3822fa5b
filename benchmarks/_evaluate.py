"""Evaluate: every arm on the same held-out questions, three-valued, with paired intervals and usage by role."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, Literal

import dspy
from dspy.utils.exceptions import AdapterParseError
from rouge_score import rouge_scorer

from divcon.benchmarks._graders import Verdict, grade
from divcon.benchmarks._statistics import accuracy_interval, difference_interval
from divcon.distill import RunStore, at_station, overlapped
from divcon.programs import Item, Ledger, Usage

Outcome = Literal["right", "wrong", "failed"]
Progress = Callable[[str, int, int], None]
_USAGE = ("calls", "input_tokens", "output_tokens", "seconds")


@dataclass(frozen=True)
class Arm:
    """One row of the table.

    Attributes:
        name: `direct`, `cot`, `teacher`, `untuned`, `sd-t`, `sd-r`.
        program: What answers.
        fingerprint: Changes with anything that could change an answer.
        label: As people read it.
        warm_up: Whether the first question is asked alone and left out of the arm's time, since a server or weights
            are loaded for it.
    """

    name: str
    program: dspy.Module
    fingerprint: str
    label: str
    warm_up: bool = False


def evaluate_arm(
    arm: Arm,
    items: Sequence[Item],
    store: RunStore,
    *,
    concurrency: int = 64,
    progress: Progress | None = None,
) -> dict[str, dict[str, Any]]:
    """Answer every item with one arm, and keep each outcome in the store.

    What the store holds for this fingerprint is not asked again, but for items that failed. A call that failed gives
    `failed`, never `wrong`; a solver's reply without a readable answer is `wrong` by the rule `unreadable`.

    Returns:
        Records by item id, in the order of the items.
    """
    there = store.outcomes(arm.name, arm.fingerprint)
    missing = [
        (position, item)
        for position, item in enumerate(items)
        if there.get(item.id, {"outcome": "failed"})["outcome"] == "failed"
    ]
    done = len(items) - len(missing)
    if progress:
        progress(arm.name, done, len(items))

    first = missing[0] if missing and arm.warm_up else None

    def answer(job: tuple[int, Item]) -> dict[str, Any]:
        _, item = job
        started = time.time()
        fields: dict[str, Any]
        try:
            with Ledger() as ledger:
                prediction = arm.program(question=item.question, context=item.context)
        except AdapterParseError as error:
            verdict, fields = Verdict(False, None, "unreadable"), {"answer": error.lm_response, "status": "unreadable"}
        else:
            verdict = grade(item, prediction.answer)
            fields = {
                "answer": prediction.answer,
                "status": prediction.status,
                "reason": prediction.reason,
                "subquestions": list(prediction.subquestions),
                "sub_answers": prediction.sub_answers,
            }
        return {
            "outcome": "right" if verdict.right else "wrong",
            "extracted": verdict.extracted,
            "rule": verdict.rule,
            "started": round(started, 3),
            "seconds": round(time.time() - started, 3),
            "usage": ledger.as_dict(),
            **({"warm_up": True} if job is first else {}),
            **fields,
        }

    alone, others = (missing[:1], missing[1:]) if first else ([], missing)
    with at_station("evaluate"):
        answered = itertools.chain(overlapped(answer, alone, 1), overlapped(answer, others, concurrency))
        for (position, item), record, error in answered:
            kept = record or {"outcome": "failed", "error": f"{type(error).__name__}: {error}"[:500]}
            store.keep_outcome(arm.name, arm.fingerprint, position, item.id, kept)
            done += 1
            if progress:
                progress(arm.name, done, len(items))
    found = store.outcomes(arm.name, arm.fingerprint)
    return {item.id: found[item.id] for item in items}


def summarize_arm(name: str, label: str, records: Mapping[str, dict[str, Any]], resamples: int) -> dict[str, Any]:
    """An arm's line of `results.json`; accuracy is over the questions that didn't fail."""
    counts = Counter(record["outcome"] for record in records.values())
    answered = [record for record in records.values() if record["outcome"] != "failed"]
    right = [record["outcome"] == "right" for record in answered]
    statuses = Counter(record.get("status", "") for record in answered)
    errors = Counter(record["error"] for record in records.values() if record["outcome"] == "failed")
    return {
        "name": name,
        "label": label,
        "right": counts["right"],
        "wrong": counts["wrong"],
        "failed": counts["failed"],
        "accuracy": mean(right) if right else None,
        "ci95": list(accuracy_interval(right, resamples)) if right else None,
        "whole_rate": statuses["whole"] / len(answered) if answered else None,
        "fell_back_rate": statuses["fell_back"] / len(answered) if answered else None,
        "unreadable": statuses["unreadable"],
        "usage": _usage(answered),
        "seconds": round(wall_seconds(records), 1),
        "errors": dict(errors.most_common(3)),
    }


def wall_seconds(records: Mapping[str, dict[str, Any]]) -> float:
    """Time from the arm's first question to its last answer.

    Pauses between the runs of a resumed one don't count, nor does a question asked while a server was loading.
    """
    timed = (r for r in records.values() if "started" in r and not r.get("warm_up"))
    spans = sorted((r["started"], r["started"] + r["seconds"]) for r in timed)
    total, end = 0.0, float("-inf")
    for start, stop in spans:
        total += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return total


def _usage(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    totals: dict[str, Usage] = {}
    for record in records:
        for role, spent in record.get("usage", {}).items():
            cost = spent.get("cost")
            totals.setdefault(role, Usage()).add(Usage(**{**spent, "cost": cost if cost is not None else 0.0}))
    return {role: usage.as_dict() for role, usage in sorted(totals.items())}


def differences(
    arms: Mapping[str, Mapping[str, dict[str, Any]]], resamples: int, order: Sequence[str]
) -> list[dict[str, Any]]:
    """Paired differences of accuracy for every pair of arms, over the questions that neither failed."""
    rows = []
    for a, b in itertools.combinations(order, 2):
        both = [
            (arms[a][key]["outcome"] == "right", arms[b][key]["outcome"] == "right")
            for key in arms[a]
            if "failed" not in (arms[a][key]["outcome"], arms[b][key]["outcome"])
        ]
        if not both:
            continue
        first, second = zip(*both, strict=True)
        interval = difference_interval(first, second, resamples)
        rows.append({"a": a, "b": b, "difference": mean(first) - mean(second), "ci95": list(interval), "n": len(both)})
    return rows


def agreement(records: Mapping[str, dict[str, Any]], items: Sequence[Item]) -> dict[str, Any] | None:
    """How far an arm's subquestions agree with the references.

    Returns:
        `n`; `count_error`, the mean absolute difference in the number of subquestions; `rouge_l`, the mean ROUGE-L
        F1 of the joined lists (rouge-score, stemmed); `exact`, the share of lists equal word for word. None where no
        item has references.
    """
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    errors, scores, exact = [], [], []
    for item in items:
        record = records.get(item.id)
        if not item.subquestions or record is None or "subquestions" not in record:
            continue
        asked = record["subquestions"]
        errors.append(abs(len(asked) - len(item.subquestions)))
        scores.append(scorer.score("\n".join(item.subquestions), "\n".join(asked))["rougeL"].fmeasure)
        exact.append(list(asked) == list(item.subquestions))
    if not errors:
        return None
    return {"n": len(errors), "count_error": mean(errors), "rouge_l": mean(scores), "exact": mean(exact)}
