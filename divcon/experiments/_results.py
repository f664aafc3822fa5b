"""The results of an experiment: figures and comparisons over the answers of all its cells."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from divcon.benchmarks import (
    FACTORS,
    Arm,
    Records,
    RunResults,
    agreements,
    compare_costs,
    differences,
    evidence,
    mean_upfront,
    summarize_arm,
)
from divcon.benchmarks.arms import TEACHER, read_arm
from divcon.config import Experiment, configuration_of
from divcon.distill import package_versions, read_manifest
from divcon.experiments._cells import Cell, Runs
from divcon.pipeline import SCHEMA_VERSION, Run, adapter_folder, student_upfront

QUESTIONS = {
    "main": "Which half can be distilled, and at what price?",
    "transfer": "Does what a student learnt on one task hold on another?",
    "solvers": "Does one decomposer serve several solvers?",
    "dynamic": "Is it better to split a question at once, or as it is solved?",
    "multitask": "One decomposer for all tasks, or one each?",
    "depth": "What does splitting gain where more steps are needed?",
    "curve": "Which half is easier to distil?",
    "cap": "How many subquestions should be allowed?",
}
# The planned comparisons of arms. They are few, and fixed before anything is measured.
_PAIRS = [
    ("sd-r", "teacher"), ("sd-r", "untuned"), ("sd-r", "sd-t"), ("sd-r", "cot"), ("sd-r", "se-a"),
    ("se-a", "teacher"), ("se-t", "teacher"), ("se-a", "se-a-direct"), ("se-t", "se-t-direct"), ("teacher", "cot"),
    ("teacher", "direct"), ("cot", "direct"), ("teacher", "self-ask"), ("teacher/stepwise", "self-ask"),
    ("references", "self-ask"), ("references/stepwise", "self-ask"), ("references", "references/stepwise"),
    ("teacher", "teacher/stepwise"), ("sd-r", "sd-r/all"), ("references", "teacher"), ("sd-r", "references"),
    ("se-a", "se-untuned"), ("sd-t", "teacher"), ("sd-t", "untuned"), ("sd-t", "cot"), ("sd-rec", "sd-t"),
    ("sd-rec", "teacher"), ("sd-rec", "untuned"), ("sd-rec", "cot"), ("se-a", "se-t"), ("untuned", "teacher"),
]  # fmt: skip


Answers = dict[tuple[Any, ...], list[Records]]


def experiment_results(all_runs: Runs, measured: Sequence[tuple[Cell, Records]]) -> tuple[RunResults, Answers]:
    """The content of `KIND.json`, and the answers of each row for each seed.

    Args:
        all_runs: The runs, whose students are trained.
        measured: All cells and their outcomes.
    """
    settings = all_runs.experiment.evaluate
    groups = _pooled(all_runs, measured)
    answers = {key: seeds for key, (_, seeds) in groups.items()}
    items = {item.id: item for cell, _ in measured for item in cell.run.task.test}
    rows = []
    for key, (arm, seeds) in groups.items():
        teacher = _teachers_answers(groups, key)
        line = summarize_arm(arm, seeds, settings.resamples, settings.max_failed, teacher or ())
        if arm.splits:
            planned = None if arm.teachers_plans else teacher
            found = agreements(seeds, items.values(), planned, settings.max_failed)
            line |= dict.fromkeys(found) if line["withheld"] else found
        rows.append(_row(key, line, seeds))
    results = {
        **_measured(all_runs, rows),
        "comparisons": _comparisons(all_runs, answers),
        "costs": _costs(all_runs, rows, answers),
        "screening": _screening(all_runs),
    }
    return RunResults(results), answers


def experiment_so_far(
    all_runs: Runs, measured: Sequence[tuple[Cell, Records]], answers: Answers, compare: bool = True
) -> dict[str, Any]:
    """The results of an experiment that isn't finished.

    Programs are compared over the questions that both have answered. There is no comparison of costs, and so no advice.

    Args:
        all_runs: The runs, which are looked at.
        measured: The cells whose arms are there, and their outcomes so far.
        answers: The answers of each row, as `fullest` returns them.
        compare: Whether the programs are compared, which takes the longest.
    """
    settings = all_runs.experiment.evaluate
    arms = {key: arm for key, (arm, _) in _pooled(all_runs, measured).items()}
    rows = [
        _row(key, summarize_arm(arms[key], seeds, settings.resamples, settings.max_failed), seeds)
        for key, seeds in answers.items()
    ]
    compared = _comparisons(all_runs, answers) if compare else []
    return {**_measured(all_runs, rows), "comparisons": compared, "costs": {}, "screening": []}


def answers_of_rows(all_runs: Runs, measured: Sequence[tuple[Cell, Records]]) -> Answers:
    """The answers of each row for each seed."""
    return {key: seeds for key, (_, seeds) in _pooled(all_runs, measured).items()}


def fullest(answers: Answers) -> Answers:
    """For each row that has answers, the seeds that have answered as many questions as any, and the same ones."""
    found = {}
    for key, seeds in answers.items():
        most = max(seeds, key=len)
        if most:
            found[key] = [one for one in seeds if one.keys() == most.keys()]
    return found


def _row(key: tuple[Any, ...], line: dict[str, Any], seeds: Sequence[Records]) -> dict[str, Any]:
    factors = {name: value for name, value in zip(FACTORS, key[:-1], strict=True) if value is not None}
    return {**factors, "questions_tested": len(seeds[0]), **line}


def _measured(all_runs: Runs, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What results hold besides comparisons."""
    design = all_runs.design
    # `teacher` is that of the tasks without one of their own; where each has its own, that of the first task.
    shared = next((task for task in design.tasks if task not in design.teachers), next(iter(design.tasks)))
    first = all_runs.of(shared, all_runs.draws[0])
    return {
        "schema_version": SCHEMA_VERSION,
        "experiment": design.kind,
        "question": QUESTIONS[design.kind],
        **designed(all_runs.experiment),
        "teacher": first.context.teacher.model_dump(exclude_none=True),
        "teachers": {
            task: all_runs.of(task, all_runs.draws[0]).context.teacher.model_dump(exclude_none=True)
            for task in design.teachers
        },
        "solver": all_runs.experiment.roles.solver.title,
        "student_base": first.models.base.id,
        "program": all_runs.experiment.program.model_dump(),
        "train": all_runs.experiment.train.model_dump(),
        "rows": list(rows),
        "paid": all_runs.store.paid(price_of=first.context.pipeline.price_of),
        "versions": package_versions(),
    }


def designed(experiment: Experiment) -> dict[str, Any]:
    """What results say of an experiment's file: design, tasks and the sections that decide the results."""
    design = experiment.experiment
    return {
        "design": design.model_dump(mode="json", exclude_none=True, exclude={"tasks", "teachers"}),
        "tasks": {
            name: task.model_dump(mode="json", exclude_unset=True, exclude={"path", "test_path"})
            for name, task in design.tasks.items()
        },
        "configuration": configuration_of(experiment),
    }


def _pooled(
    all_runs: Runs, measured: Sequence[tuple[Cell, Records]]
) -> dict[tuple[Any, ...], tuple[Arm, list[Records]]]:
    """Each row's arm, and its outcomes for each seed. Those of all folds of a seed are put together."""
    cells: dict[tuple[Any, ...], dict[int, list[tuple[Cell, Records]]]] = defaultdict(lambda: defaultdict(list))
    for cell, records in measured:
        for steps, part in _parts(all_runs, cell, records):
            factors = {**cell.factors, **({"steps": steps} if steps else {})}
            key = (*(factors.get(name) for name in FACTORS), cell.arm.name)
            cells[key][cell.draw.seed].append((cell, part))
    pooled = {}
    for key, by_seed in cells.items():
        # An arm that doesn't depend on the seed has the same answers for all seeds, and counts once.
        seeds: dict[tuple[str, ...], Records] = {}
        for folds in by_seed.values():
            digests = tuple(cell.arm.key.digest for cell, _ in folds)
            seeds.setdefault(digests, {item: record for _, part in folds for item, record in part.items()})
        pooled[key] = (next(iter(by_seed.values()))[0][0].arm, list(seeds.values()))
    return pooled


def _teachers_answers(
    groups: Mapping[tuple[Any, ...], tuple[Arm, list[Records]]], key: tuple[Any, ...]
) -> list[Records] | None:
    """The teacher's outcomes on the questions of a row; None where they aren't measured."""
    factors = dict(zip(FACTORS, key[:-1], strict=True)) | {"trained_on": None}
    found = groups.get((*factors.values(), TEACHER.name))
    return found[1] if found else None


def _parts(all_runs: Runs, cell: Cell, records: Records) -> Iterator[tuple[int | None, Records]]:
    """All records; for `depth`, then also the records by the number of steps that their questions need."""
    yield None, records
    if all_runs.design.kind != "depth":
        return
    needed = {item.id: len(item.subquestions) for item in cell.run.task.test}
    for steps in sorted(set(needed.values())):
        yield steps, {key: record for key, record in records.items() if needed[key] == steps}


def _comparisons(all_runs: Runs, answers: dict[tuple[Any, ...], list[Records]]) -> list[dict[str, Any]]:
    """The planned comparisons within each combination of the other factors, with Holm's correction over all of them."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = defaultdict(dict)
    for key, found in answers.items():
        factors = dict(zip(FACTORS, key[:-1], strict=True))
        if factors["trained_on"] in (None, factors["task"]):
            among = tuple((n, v) for n, v in factors.items() if v is not None and n != "trained_on")
            groups[among][key[-1]] = found
    planned: list[tuple[dict[str, Any], tuple[str, Any], tuple[str, Any]]] = [
        (dict(among), (a, by_arm[a]), (b, by_arm[b]))
        for among, by_arm in groups.items()
        for a, b in _PAIRS
        if a in by_arm and b in by_arm
    ]
    planned += _across(all_runs, answers)
    arms: dict[str, Any] = {}
    where: dict[tuple[str, str], Any] = {}
    for n, (_, (a, one), (b, other)) in enumerate(planned):
        shared = [key for key in one[0] if all(key in records for records in (*one, *other))]
        if shared:  # in a finished experiment these are all
            pair = (f"{n}:{a}", f"{n}:{b}")
            where[pair] = planned[n]
            for name, seeds in zip(pair, (one, other), strict=True):
                arms[name] = [{key: records[key] for key in shared} for records in seeds]
    lines = []
    settings = all_runs.experiment.evaluate
    for row in differences(arms, settings.resamples, list(where), settings.max_failed):
        among, (a, _), (b, _) = where[str(row["a"]), str(row["b"])]
        lines.append({**row, **among, "a": a, "b": b})
    return lines


def _across(
    all_runs: Runs, answers: dict[tuple[Any, ...], list[Records]]
) -> Iterator[tuple[dict[str, Any], tuple[str, Any], tuple[str, Any]]]:
    """The planned comparisons of an arm with itself, between values of what the experiment varies.

    They compare a student with those of other tasks, the largest training set with the next smaller one, and each cap
    with the next smaller one.
    """
    varied = {"transfer": "trained_on", "curve": "questions", "cap": "cap"}.get(all_runs.design.kind)
    if varied is None:
        return
    by_arm: dict[tuple[str, str], dict[Any, Any]] = defaultdict(dict)
    for key, found in answers.items():
        factors = dict(zip(FACTORS, key[:-1], strict=True))
        kind = read_arm(key[-1])[0]
        reached = kind.splits if varied == "cap" else kind.student is not None
        if factors[varied] is not None and reached:
            by_arm[factors["task"], key[-1]][factors[varied]] = found
    for (task, arm), levels in by_arm.items():
        if varied == "trained_on":
            chosen = [(task, other) for other in levels if other != task] if task in levels else []
        else:
            steps = list(pairwise(sorted(levels)))
            chosen = [(more, less) for less, more in (steps[-1:] if varied == "questions" else steps)]
        for one, other in chosen:
            yield {"task": task}, (f"{arm} ({one})", levels[one]), (f"{arm} ({other})", levels[other])


def _costs(
    all_runs: Runs, rows: Sequence[dict[str, Any]], answers: dict[tuple[Any, ...], list[Records]]
) -> dict[str, Any]:
    """The cost comparisons by task (and solver), for the kinds whose other rows differ in the program only."""
    if all_runs.design.kind not in ("main", "dynamic", "depth", "solvers"):
        return {}
    found = {}
    whole = [row for row in rows if "steps" not in row]
    for task, solver in dict.fromkeys((row["task"], row.get("solver")) for row in whole):
        where = {"task": task, **({"solver": solver} if solver else {})}
        lines = [row for row in whole if all(row.get(key) == value for key, value in where.items())]
        ran = [run for run in all_runs.trained if all_runs.cell_of(run).partition("/")[0] == task]
        names = [student.name for student in ran[0].pipeline.students] if ran else []
        before = {name: _upfront_of(all_runs, ran, name) for name in names}
        costs = compare_costs(lines, before)
        given = {row["name"]: answers[(*map(row.get, FACTORS), row["name"])] for row in lines}
        found[", ".join(where.values())] = {"where": where, **costs, "evidence": evidence(costs, given)}
    return found


def _upfront_of(all_runs: Runs, ran: Sequence[Run], student: str) -> dict[str, Any]:
    """The cost of a student before its first answer, from those of all seeds and folds; see `mean_upfront`."""
    # The scripted teacher is another one for each seed.
    by_teacher: dict[str, list[Run]] = defaultdict(list)
    for run in ran:
        by_teacher[run.keys.collection().digest].append(run)
    groups = []
    for runs in by_teacher.values():
        costs = [student_upfront(run.context, student, all_runs.cell_of(run)) for run in runs]
        asked = {item.id for run in runs for item in run.task.train}
        groups.append((costs, sum(len(run.task.train) for run in runs) / len(runs) / len(asked)))
    return mean_upfront(groups)


def _screening(all_runs: Runs) -> list[dict[str, Any]]:
    """The counts of screening and training for each student of this experiment."""
    lines = []
    for run in all_runs.trained:
        for student in run.pipeline.students:
            manifest = read_manifest(adapter_folder(run.folder, student.name))
            lines.append(
                {
                    "cell": all_runs.cell_of(run),
                    "student": student.name,
                    "rows": manifest.rows,
                    **{key: manifest.screening.get(key) for key in ("collected", "kept", "lost")},
                    **{key: manifest.result[key] for key in ("steps", "first_loss", "last_loss", "seconds")},
                }
            )
    return lines
