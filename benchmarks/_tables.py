"""Tables: the results of each arm in `results.json`, from the records of an evaluation over one or several seeds."""

from __future__ import annotations

import csv
import io
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from divcon.benchmarks._costs import bill, per_1000
from divcon.benchmarks._evaluate import Arm
from divcon.benchmarks._outcomes import MAX_FAILED, Record, Records, failed_of, too_many_failed
from divcon.benchmarks._statistics import ONE_SIDED, amount_interval, holm, mean_interval, paired_p_value, retained
from divcon.benchmarks._variances import in_pairs
from divcon.programs import Meter, Usage

# What experiments vary, with the names in tables. A line has the factors of its experiment.
FACTORS = {
    "task": "task",
    "trained_on": "trained on",
    "solver": "solver",
    "questions": "training questions",
    "cap": "subquestions allowed",
    "steps": "steps needed",
}
_STATUSES = ("whole", "salvaged", "fell_back")
_GOT = {"right": 1.0, "wrong": 0.0, "failed": np.nan}


def answers_of(seeds: Sequence[Records], questions: Sequence[str] | None = None) -> np.ndarray:
    """The outcomes as numbers: shape (seeds, questions), 1 right, 0 wrong, nan failed.

    Args:
        seeds: For each seed, the outcomes by item id.
        questions: The items' ids, in the order wanted; by default the first seed's.

    Raises:
        ValueError: The outcomes of a seed are of other questions.
    """
    keys = list(questions if questions is not None else seeds[0])
    if any(set(records) != set(keys) for records in seeds):
        raise ValueError("the outcomes are of different questions")
    return np.array([[_GOT[records[key]["outcome"]] for key in keys] for records in seeds])


_QUOTED = 160  # characters quoted from the end of a reply, where the answer should be


def summarize_arm(
    arm: Arm,
    seeds: Sequence[Records],
    resamples: int,
    max_failed: float = MAX_FAILED,
    teacher: Sequence[Records] = (),
) -> dict[str, Any]:
    """The results of an arm for `results.json`. Failed answers are neither right nor wrong.

    Where too many failed, there is no score: the accuracy, its interval, the rates and the bill are None, and
    `withheld` says why. `retained` is the share of the teacher's accuracy; see `benchmarks.retained`. It stands for
    students and their bases, and is None where the teacher wasn't measured, or one of the two has no score.

    Args:
        arm: The arm. For a role without a price in it, the cost is what was stored with the calls.
        seeds: For each seed, the outcomes by item id.
        resamples: The number of bootstrap samples.
        max_failed: The largest share of failed answers of a seed with which there is a score, from 0 to 1.
        teacher: The outcomes of the teacher's arm for the same questions, for each of its seeds; empty where it wasn't
            measured.
    """
    everything = [record for records in seeds for record in records.values()]
    counts = Counter(record["outcome"] for record in everything)
    answered = [record for record in everything if record["outcome"] != "failed"]
    statuses = Counter(record.get("status", "") for record in answered)
    errors = Counter(record["error"] for record in everything if record["outcome"] == "failed")
    matrix = answers_of(seeds)
    usage = _usage(answered, arm.prices)
    scores = [record["score"] for record in answered if "score" in record]
    withheld = _why_withheld(seeds, max_failed)
    known = withheld is None
    return {
        "name": arm.name,
        "label": arm.label,
        "splits": arm.splits,
        "choosable": arm.choosable,
        "student": arm.student,
        **({"recording": dict(arm.recording)} if arm.recording is not None else {}),
        "right": counts["right"],
        "wrong": counts["wrong"],
        "failed": counts["failed"],
        "withheld": withheld,
        "accuracy": float(np.nanmean(matrix)) if known else None,
        "ci95": list(mean_interval(matrix, resamples)) if known else None,
        **({"retained": _retained(matrix, seeds, teacher, max_failed)} if arm.local else {}),
        **({"f1": mean(scores)} if scores and known else {}),
        **({"by_seed": [float(np.nanmean(row)) for row in matrix]} if len(seeds) > 1 and known else {}),
        **{f"{name}_rate": statuses[name] / len(answered) if known else None for name in _STATUSES},
        "usable_rate": _usable(answered) if known else None,
        "reasked": sum(record.get("read_by") == "reask" for record in answered),
        "unreadable": statuses["unreadable"],
        "cut_off": sum(record.get("cut_off", False) for record in answered),
        **({"first_unreadable": first} if (first := _first_unreadable(answered)) else {}),
        "usage": usage,
        "bill": {**bill(usage, len(answered), arm.local), **_amounts(arm, seeds)}
        if known and arm.recording is None
        else None,
        "seconds": round(sum(wall_seconds(records) for records in seeds), 1),
        "errors": dict(errors.most_common(3)),
    }


def _usable(records: Sequence[Record]) -> float | None:
    """The share of lists that were neither refused nor over the cap; None where no list is known."""
    lists = [record for record in records if "subquestions" in record]
    good = [one for one in lists if one.get("status") in ("decomposed", "whole") and one.get("reason") != "over_long"]
    return len(good) / len(lists) if lists else None


def _retained(
    matrix: np.ndarray, seeds: Sequence[Records], teacher: Sequence[Records], max_failed: float
) -> dict[str, Any] | None:
    if not teacher or too_many_failed(seeds, max_failed) or too_many_failed(teacher, max_failed):
        return None
    kept = retained(matrix, answers_of(teacher, list(seeds[0])))
    return None if kept is None else {**kept._asdict(), "ci95": list(kept.ci95)}


def _amounts(arm: Arm, seeds: Sequence[Records]) -> dict[str, list[float] | None]:
    """The intervals of an arm's average bill: `cost_ci95`, None where a price is unknown, and `large_tokens_ci95`."""
    found: dict[str, list[float] | None] = {}
    records = [[seed[question] for question in seeds[0]] for seed in seeds]
    bills = [
        [None if one["outcome"] == "failed" else bill(_usage([one], arm.prices), 1, arm.local) for one in seed]
        for seed in records
    ]
    for unit in ("cost", "large_tokens"):
        known = all(one is None or one[unit] is not None for seed in bills for one in seed)
        spent = [[np.nan if one is None else one[unit] for one in seed] for seed in bills]
        found[f"{unit}_ci95"] = list(amount_interval(np.array(spent))) if known else None
    return found


def _first_unreadable(records: Sequence[Record]) -> str | None:
    """The end of the first reply whose answer couldn't be read."""
    replies = (str(record.get("answer") or "") for record in records if record.get("status") == "unreadable")
    reply = next(replies, None)
    return None if reply is None else " ".join(reply.split())[-_QUOTED:] or "(empty)"


def _why_withheld(seeds: Sequence[Records], max_failed: float) -> str | None:
    """Why there is no score, in words; None where there is one."""
    if not too_many_failed(seeds, max_failed):
        return None
    asked, failed = sum(map(len, seeds)), sum(map(failed_of, seeds))
    first = next((r["error"] for records in seeds for r in records.values() if r["outcome"] == "failed"), None)
    return f"{failed} of {asked} answers failed" + (f"; the first: {first.rstrip('. ')}" if first else "")


def wall_seconds(records: Records) -> float:
    """Seconds from the arm's first question to its last answer.

    Pauses of a run that was stopped and resumed don't count, nor does the warm-up question.
    """
    timed = [r for r in records.values() if "started" in r and not r.get("warm_up")]
    spans = [(r["started"], r["seconds"]) for r in timed] + [tuple(r["planned"]) for r in timed if "planned" in r]
    total, end = 0.0, float("-inf")
    for start, seconds in sorted(spans):
        total += max(0.0, start + seconds - max(start, end))
        end = max(end, start + seconds)
    return total


def _usage(records: Sequence[Record], prices: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    totals: dict[str, Usage] = {}
    for record in records:
        for role, spent in record.get("usage", {}).items():
            cost = spent.get("cost")
            totals.setdefault(role, Usage()).add(Usage(**{**spent, "cost": cost if cost is not None else 0.0}))
    return {role: Meter(prices.get(role)).repriced(used).as_dict() for role, used in sorted(totals.items())}


def differences(
    arms: Mapping[str, Sequence[Records]],
    resamples: int,
    pairs: Sequence[tuple[str, str]] | None = None,
    max_failed: float = MAX_FAILED,
) -> list[dict[str, Any]]:
    """Paired differences of accuracy over the questions that neither arm failed, with Holm-corrected p-values.

    A row says on how many questions (`n`), and how many are left out since an arm failed them (`left_out`). There is no
    row for an arm that has no score because too many answers failed.

    Args:
        arms: For each arm, the outcomes of each seed. An arm with one seed is compared with every seed of the other.
        resamples: The number of samples of the paired bootstrap over questions and seeds.
        pairs: The pairs of arms to compare; all pairs by default. The correction is for the number of rows.
        max_failed: See `summarize_arm`.

    Raises:
        ValueError: The arms of a pair answered different questions.
    """
    rows: list[dict[str, Any]] = []
    for a, b in pairs if pairs is not None else itertools.combinations(arms, 2):
        if too_many_failed(arms[a], max_failed) or too_many_failed(arms[b], max_failed):
            continue
        questions = list(arms[a][0])
        both = np.subtract(*in_pairs(answers_of(arms[a], questions), answers_of(arms[b], questions)))
        if np.isnan(both).all():
            continue
        whole = ~np.isnan(both).all(axis=0)
        rows.append(
            {
                "a": a,
                "b": b,
                "difference": float(np.nanmean(both)),
                "ci95": list(mean_interval(both, resamples, lowest=-1)),
                "n": int(whole.sum()),
                "left_out": int((~whole).sum()),
                "p": paired_p_value(np.nanmean(both[:, whole], axis=0), np.zeros(int(whole.sum()))),
            }
        )
    for row, corrected in zip(rows, holm([float(row["p"]) for row in rows]), strict=True):
        row["p_holm"] = corrected
    return rows


def is_shown(row: Mapping[str, Any]) -> bool:
    """Whether a comparison shows a difference: its corrected two-sided p-value is below 0.05."""
    return bool(row["p_holm"] < 2 * ONE_SIDED)


def compare_over(
    pairs: Sequence[tuple[Records, Records, Sequence[str]]], resamples: int, max_failed: float = MAX_FAILED
) -> list[tuple[int, dict[str, Any]]]:
    """Paired differences of accuracy, each over questions of its own; see `differences`.

    Args:
        pairs: The outcomes of two programs, and the questions to compare them over.
        resamples: See `differences`.
        max_failed: See `summarize_arm`.

    Returns:
        The place of the pair and its row, for each pair with a question and a score. The correction is for all of them.
    """
    arms: dict[str, Sequence[Records]] = {}
    named = []
    for number, (one, other, keys) in enumerate(pairs):
        if keys:
            names = f"{number}:a", f"{number}:b"
            arms |= {name: [{key: found[key] for key in keys}] for name, found in zip(names, (one, other), strict=True)}
            named.append(names)
    return [(int(str(row["a"]).partition(":")[0]), row) for row in differences(arms, resamples, named, max_failed)]


_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")  # in full width too, which Excel takes as well


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of a table as CSV, without nested values and formulas. Money is in US dollars per 1,000 questions."""
    plain = [{key: value for key, value in row.items() if not isinstance(value, (dict, list))} for row in rows]
    for line, row in zip(plain, rows, strict=True):
        low, high = row["ci95"] or (None, None)
        line |= {"ci95_low": low, "ci95_high": high}
        if kept := row.get("retained"):
            line |= dict(
                zip(("retained", "retained_low", "retained_high"), (kept["share"], *kept["ci95"]), strict=True)
            )
        spent = row["bill"] or {"by_role": {}, "cost": None}
        line["dollars_per_1000"] = per_1000(spent["cost"])
        for role, part in spent["by_role"].items():
            line |= {f"{role}_{key}_a_question": value for key, value in part.items() if key.endswith("tokens")}
            line[f"{role}_dollars_per_1000"] = per_1000(part["cost"])
    names = list(dict.fromkeys(name for line in plain for name in line))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in line.items()} for line in plain)
    return stream.getvalue()


def _cell(value: Any) -> Any:
    """A value of a table in CSV. A spreadsheet would compute a text that begins like a formula, so an apostrophe stands
    before it; a number stays a number.
    """
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(_FORMULA) else value
