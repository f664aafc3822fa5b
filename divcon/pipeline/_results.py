"""The results of a run: the accuracy of its arms, their costs, and how its students were trained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from divcon.benchmarks import (
    Arm,
    Records,
    RunResults,
    agreements,
    compare_costs,
    compare_over,
    differences,
    evidence,
    failures,
    summarize_arm,
    upfront,
)
from divcon.benchmarks.arms import TEACHER
from divcon.config import configuration_of
from divcon.distill import Manifest, RunStore, find_student, is_trained, quoted_reply, read_manifest, reply_of
from divcon.pipeline._context import Context
from divcon.pipeline._errors import Incomplete
from divcon.pipeline._stations import adapter_folder

SCHEMA_VERSION = 1


def run_results(
    context: Context, arms: Sequence[Arm], records: dict[str, Records], seconds: dict[str, float]
) -> RunResults:
    """The content of `results.json`.

    Args:
        context: The run's context.
        arms: The arms that were measured.
        records: The outcomes, by arm and item.
        seconds: The seconds that each station took.
    """
    pipeline = context.pipeline
    resamples, max_failed = pipeline.evaluate.resamples, pipeline.evaluate.max_failed
    lines = []
    seeds = {name: [found] for name, found in records.items()}
    for arm in arms:
        line = summarize_arm(arm, seeds[arm.name], resamples, max_failed, seeds.get(TEACHER.name, ()))
        if arm.splits:
            planned = None if arm.teachers_plans else records.get(TEACHER.name)
            agreed = agreements([records[arm.name]], context.task.test, [planned] if planned else None, max_failed)
            line |= dict.fromkeys(agreed) if line["withheld"] else agreed
        lines.append(line)
    before = {name: student_upfront(context, name) for name in trained_students(context)}
    costs = compare_costs(lines, before)
    return RunResults(
        {
            **_measured(context, lines),
            "differences": differences(seeds, resamples, max_failed=max_failed),
            "costs": {**costs, "evidence": evidence(costs, seeds)},
            "seconds": seconds,
        }
    )


def results_so_far(
    context: Context, arms: Sequence[Arm], records: dict[str, Records], compare: bool = True
) -> dict[str, Any]:
    """The results of a run that isn't finished. Programs are compared over the questions that both have answered.

    They hold no comparison of costs, and so no advice.

    Args:
        context: The run's context.
        arms: The arms that have answers.
        records: The outcomes so far, by arm and item.
        compare: Whether the programs are compared, which takes the longest.
    """
    resamples, max_failed = context.pipeline.evaluate.resamples, context.pipeline.evaluate.max_failed
    lines = [summarize_arm(arm, [records[arm.name]], resamples, max_failed) for arm in arms]
    shared = [(a, b, [key for key in records[a] if key in records[b]]) for a, b in combinations(records, 2)]
    pairs = compare_over([(records[a], records[b], keys) for a, b, keys in shared], resamples, max_failed)
    rows = [{**row, "a": shared[number][0], "b": shared[number][1]} for number, row in pairs] if compare else []
    return {**_measured(context, lines), "differences": rows, "costs": None, "seconds": {}}


def _measured(context: Context, lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What results hold besides comparisons."""
    pipeline, manifests = context.pipeline, trained_students(context)
    screening = {name: manifest.screening for name, manifest in manifests.items()}
    by_solver = [student.name for student in pipeline.students if student.screened_by_solver]
    main = next((screening[name] for name in (*by_solver, *screening) if name in screening), {})
    live = not pipeline.only_recorded
    return {
        "schema_version": SCHEMA_VERSION,
        "task": pipeline.task.model_dump(mode="json", exclude={"path", "test_path"}),
        "questions": len(context.task.test),
        "teacher": context.teacher.model_dump(exclude_none=True) if live else None,
        "solver": pipeline.roles.solver.title if live else None,
        "student_base": context.models.base.id if live else None,
        "program": pipeline.program.model_dump(),
        "configuration": configuration_of(pipeline),
        "arms": list(lines),
        "screening": {**{key: main.get(key) for key in ("collected", "kept", "lost")}, "by_student": screening},
        "training": {name: {"rows": m.rows, **m.result} for name, m in manifests.items()},
        "paid": context.store.paid(price_of=pipeline.price_of),
        "versions": next(iter(manifests.values())).versions if manifests else {},
    }


def trained_students(context: Context) -> dict[str, Manifest]:
    """The manifests of the trained students, by name."""
    folders = {s.name: adapter_folder(context.folder, s.name) for s in context.pipeline.students}
    return {name: read_manifest(folder) for name, folder in folders.items() if is_trained(folder)}


def student_upfront(context: Context, name: str, cell: str | None = None) -> dict[str, Any]:
    """The cost of a trained student before its first answer; see `benchmarks.upfront`.

    Args:
        context: The run's context.
        name: The student's name.
        cell: The cell of an experiment, where the store holds several runs.
    """
    student = find_student(name)
    solves = student is not None and student.role == "solver"
    asked_solver = student is None or solves or student.screened_by_solver
    prices = context.pipeline.price_of
    paid = [context.store.paid(station, cell, prices) for station in ("compile", "collect")]
    if asked_solver:
        # A student of the solver learns one reply to each plan; the others are asked for to judge the plan.
        paid.append(context.store.paid("screen", cell, prices, first=solves))
    seconds = read_manifest(adapter_folder(context.folder, name)).result["seconds"]
    return upfront(paid, seconds, context.pipeline.costs.training_hour)


def require_all_answered(results: dict[str, Any], lines: Sequence[dict[str, Any]]) -> None:
    """Raise an error where answers failed.

    Args:
        results: All results.
        lines: The lines of the arms in the results.

    Raises:
        Incomplete: Some answers failed. The error carries the results.
    """
    failed = sum(line["failed"] for line in lines)
    if failed:
        first = next(error for line in lines for error in line["errors"])
        replayed = all("recording" in line for line in lines if line["failed"])
        again = "Run the same command again; only the failed calls are repeated."
        incomplete = Incomplete(
            failures(failed, first),
            "Add the rows that are missing to the recorded files." if replayed else again,
        )
        incomplete.results = results
        raise incomplete


def results_files(folder: Path, stem: str) -> list[Path]:
    """The files that results are written to: figures, table, report."""
    return [folder / f"{stem}.json", folder / f"{stem}.csv", folder / f"{'report' if stem == 'results' else stem}.html"]


def about_fallbacks(records: Records, store: RunStore) -> str:
    """How many plans weren't used, why, and the first reply of which nothing was; empty where all were.

    Args:
        records: The outcomes of an arm by item id.
        store: The run's store, which has the replies.
    """
    fallen = [record for record in records.values() if record.get("status") == "fell_back"]
    if not fallen:
        return ""
    reasons = Counter((record.get("reason") or "unknown").replace("_", " ") for record in fallen)
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    first = store.exchanges(fallen[0].get("calls", ())[:1]).values()
    quoted = "".join(f"; the first reply: {quoted_reply(reply_of(one))}" for one in first)
    return f"; {len(fallen)} fell back to the whole question ({counted}{quoted})"
