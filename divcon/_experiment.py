"""Experiments: many runs that share one store, and what their answers say together.

A cell is a run of its own, on one task and seed: it trains what it needs into a folder of its own and keeps its
replies in the experiment's store, so that nothing is asked twice and a stopped experiment goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise, product, zip_longest
from pathlib import Path
from typing import Any

from divcon._config import SINGLE, TRAINED, Experiment, configuration_of
from divcon._doctor import diagnose
from divcon._pipeline import Run, Unfit, announce_conversion, heed, require_all_answered
from divcon._watch import Reporter, Silent, by_arm, watched
from divcon.benchmarks import (
    FACTORS,
    Arm,
    Shown,
    arm_label,
    as_csv,
    compare_costs,
    differences,
    evaluate_arms,
    log_to_mlflow,
    mean_upfront,
    summarize_arm,
    write_experiment_report,
)
from divcon.benchmarks.tasks import COMMON, LoadedTask, load_task
from divcon.distill import (
    NothingToLearn,
    RunStore,
    booked_to,
    package_versions,
    read_manifest,
    refuse_overlap,
    write_whole,
)
from divcon.programs import Item

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
# what is tested against what; few comparisons, named before anything is measured
_PAIRS = [
    ("sd-r", "teacher"), ("sd-r", "untuned"), ("sd-r", "sd-t"), ("sd-r", "cot"), ("sd-r", "se-a"),
    ("se-a", "teacher"), ("se-t", "teacher"), ("se-a", "se-a-direct"), ("se-t", "se-t-direct"), ("teacher", "cot"),
    ("teacher", "direct"), ("cot", "direct"), ("teacher", "self-ask"), ("teacher/stepwise", "self-ask"),
    ("references", "self-ask"), ("references/stepwise", "self-ask"), ("references", "references/stepwise"),
    ("teacher", "teacher/stepwise"), ("sd-r", "sd-r/all"), ("references", "teacher"), ("sd-r", "references"),
    ("se-a", "se-untuned"),
]  # fmt: skip


@dataclass(frozen=True)
class _Cell:
    """One arm to be measured on one task's test questions, for one seed.

    Attributes:
        run: The run whose solver and test questions are used.
        arm: What is measured.
        seed: The training seed.
        factors: What the experiment varies, by name.
    """

    run: Run
    arm: Arm
    seed: int
    factors: dict[str, Any]


@dataclass
class ExperimentRun:
    """An experiment and its folder.

    Attributes:
        experiment: The validated experiment file.
        folder: Where everything is kept.
        reporter: Who is told.
    """

    experiment: Experiment
    folder: Path
    reporter: Reporter = field(default_factory=Silent)
    _ran: list[Run] = field(default_factory=list, init=False)
    _tasks: dict[tuple[str, int, int], LoadedTask] = field(default_factory=dict, init=False)

    @cached_property
    def store(self) -> RunStore:
        return RunStore(self.folder)

    @property
    def kind(self) -> str:
        return self.experiment.experiment.kind

    @property
    def arms(self) -> list[str]:
        return self.experiment.experiment.measured

    # -- runs ------------------------------------------------------------------------------------------------------

    def run_of(self, task: str, seed: int, arms: Sequence[str] | None = None, **changes: Any) -> Run:
        """The run of one cell.

        Args:
            task: The task's name in the design.
            seed: One of the design's.
            arms: What it measures, and so which students it trains; all of the experiment's by default.
            changes: See `Experiment.pipeline`.
        """
        pipeline = self.experiment.pipeline(task, seed, arms if arms is not None else self.arms, **changes)
        shown = {key.rpartition("__")[2]: value for key, value in changes.items() if not isinstance(value, dict)}
        cell = ",".join([f"seed-{seed}", *(f"{key}-{value}" for key, value in shown.items())])
        return Run(
            pipeline, self.folder / "cells" / task / cell, self.reporter, self.store,
            self._loaded(task, pipeline.task.training_seed, pipeline.task.train),
        )  # fmt: skip

    def _loaded(self, task: str, seed: int, train: int) -> LoadedTask:
        """A task's questions; their ids carry its name, since all tasks share the store."""
        key = (task, seed, train)
        if key not in self._tasks:  # a file may be large, and cells are many
            given = self.experiment.experiment.tasks[task].model_dump()
            loaded = load_task(**{**given, "train_seed": seed, "train": train})
            named: Callable[[Item], Item] = lambda item: replace(item, id=f"{task}:{item.id}")  # noqa: E731
            self._tasks[key] = replace(loaded, train=[*map(named, loaded.train)], test=[*map(named, loaded.test)])
        return self._tasks[key]

    def trained(self, run: Run, name: str) -> Run:
        """Have a run collect, screen and train whatever it hasn't."""
        self.reporter.station("cell", name)
        with booked_to(self._cell_of(run)):
            run.check()
            run.compile()
            if not any(map(_trained, run.pipeline.arms)):
                return run
            run.__dict__.pop("_collection", None)
            run.collect()
            run.export(run.screen())
            run.train()
        self._ran.append(run)
        return run

    def _cell_of(self, run: Run) -> str:
        return str(run.folder.relative_to(self.folder / "cells"))

    # -- designs ---------------------------------------------------------------------------------------------------

    def cells(self) -> Iterator[list[_Cell]]:
        """What is measured, the arms of one run at a time; students are trained on the way."""
        design = self.experiment.experiment
        yield from getattr(self, f"_{self.kind}")(list(design.tasks), design.seeds)

    def _main(self, tasks: Sequence[str], seeds: Sequence[int]) -> Iterator[list[_Cell]]:
        for seed, task in product(seeds, tasks):
            run = self.trained(self.run_of(task, seed), f"{task}, seed {seed}")
            yield [_Cell(run, run.arm(name), seed, {"task": task}) for name in self.arms]

    _depth = _dynamic = _main

    def _transfer(self, tasks: Sequence[str], seeds: Sequence[int]) -> Iterator[list[_Cell]]:
        moved = [name for name in self.arms if _trained(name)]
        for seed in seeds:
            runs = {task: self.trained(self.run_of(task, seed), f"{task}, seed {seed}") for task in tasks}
            for task, run in runs.items():
                own = [name for name in self.arms if name not in moved]
                batch = [_Cell(run, run.arm(name), seed, {"task": task}) for name in own]
                for name, origin in product(moved, tasks):
                    arm = run.arm(name, _adapter_of(runs[origin], name), f"trained on {origin}")
                    batch.append(_Cell(run, arm, seed, {"task": task, "trained_on": origin}))
                yield batch

    def _solvers(self, tasks: Sequence[str], seeds: Sequence[int]) -> Iterator[list[_Cell]]:
        for seed, task in product(seeds, tasks):
            run = self.trained(self.run_of(task, seed), f"{task}, seed {seed}")
            for solver, change in self.experiment.experiment.solver_changes.items():
                other = self.run_of(task, seed, **change)
                batch = []
                for name in self.arms:
                    adapter = _adapter_of(run, name) if _trained(name) else None
                    batch.append(_Cell(other, other.arm(name, adapter), seed, {"task": task, "solver": solver}))
                yield batch

    def _multitask(self, tasks: Sequence[str], seeds: Sequence[int]) -> Iterator[list[_Cell]]:
        moved = [name for name in self.arms if _trained(name)]
        for seed in seeds:
            runs = {task: self.trained(self.run_of(task, seed), f"{task}, seed {seed}") for task in tasks}
            union = LoadedTask(
                [item for group in zip_longest(*(run.task.train for run in runs.values())) for item in group if item],
                [item for run in runs.values() for item in run.task.test],
            )
            folder = self.folder / "cells" / _ALL / f"seed-{seed}"
            together = replace(runs[tasks[0]], folder=folder, loaded=union)
            self.trained(together, f"all {len(tasks)} tasks, seed {seed}")
            for task, run in runs.items():
                batch = [_Cell(run, run.arm(name), seed, {"task": task}) for name in self.arms]
                for name in moved:
                    arm = run.arm(name, _adapter_of(together, name), "of all tasks")
                    batch.append(_Cell(run, replace(arm, name=f"{name}/all"), seed, {"task": task}))
                yield batch

    def _curve(self, tasks: Sequence[str], seeds: Sequence[int]) -> Iterator[list[_Cell]]:
        for seed, task in product(seeds, tasks):
            for size in self.experiment.experiment.questions or []:
                run = self.run_of(task, seed, task__train=size)
                if not self._could_train(run, f"{task}, seed {seed}, {size} questions"):
                    continue
                yield [_Cell(run, run.arm(name), seed, {"task": task, "questions": size}) for name in self.arms]

    def _cap(self, tasks: Sequence[str], seeds: Sequence[int]) -> Iterator[list[_Cell]]:
        for seed, task in product(seeds, tasks):
            for cap in self.experiment.experiment.caps or []:
                run = self.run_of(task, seed, program__max_subquestions=cap)
                if not self._could_train(run, f"{task}, seed {seed}, at most {cap} subquestions"):
                    continue
                yield [_Cell(run, run.arm(name), seed, {"task": task, "cap": cap}) for name in self.arms]

    def _could_train(self, run: Run, name: str) -> bool:
        """Train a cell of a series; one in which nothing is left to learn from is left out, and the series goes on."""
        try:
            self.trained(run, name)
        except NothingToLearn as error:
            self.reporter.finished("cell", f"left out: {error.problem}")
            return False
        return True

    # -- the whole -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Everything that can fail before anything is paid for: data, references, overlaps, models, endpoints.

        Raises:
            DivconError: What is wrong, and what to do.
        """
        design = self.experiment.experiment
        self.store  # noqa: B018 - made on first use
        most: dict[str, Any] = {"task__train": max(design.questions)} if design.questions else {}
        runs = [self.run_of(task, seed, **most) for task, seed in product(design.tasks, design.seeds)]
        for run in runs:
            run.check()
        if self.kind in ("transfer", "multitask"):
            for one, other in product(runs, runs):
                lenient = "same" in (one.pipeline.task.overlap, other.pipeline.task.overlap)
                refuse_overlap(one.task.train, other.task.test, 0 if lenient else COMMON)
        if self.kind == "depth":
            for run in runs:
                bare = [item.id for item in run.task.test if not item.subquestions]
                if bare:
                    raise Unfit(
                        f"The experiment depth needs reference subquestions, and {bare[0]} has none.",
                        "Take a task whose data has them.",
                    )
        first, task = design.seeds[0], next(iter(design.tasks))
        with_solvers = [self.run_of(task, first, **change) for change in design.solver_changes.values()]
        for run in [*runs[:1], *with_solvers]:
            announce_conversion(run.pipeline, self.reporter)
            heed(diagnose(run.pipeline, self.folder), self.reporter)

    def run(self) -> dict[str, Any]:
        """Train, ask and measure whatever is missing, and write `KIND.json`, `KIND.csv` and `KIND.html`.

        Raises:
            Incomplete: Some answers failed; they are in no figure, and asked again next time.
        """
        started = time.perf_counter()
        self.check()
        settings = self.experiment.evaluate
        measured: list[tuple[_Cell, dict[str, dict[str, Any]]]] = []
        for batch in self.cells():
            test = batch[0].run.task.test
            self.reporter.station("evaluate", f"{len(batch)} arms on {len(test)} questions")
            with watched(self.reporter, "evaluate", self.store, batch[0].run.prices()) as progress:
                found = evaluate_arms(
                    [cell.arm for cell in batch], test, self.store, concurrency=settings.concurrency,
                    progress=by_arm(progress),
                )  # fmt: skip
            measured.extend(zip(batch, found, strict=True))
            for run in {id(cell.run): cell.run for cell in batch}.values():
                run.close()  # a server of its students, whose memory the next training may need
        results, answers = self._results(measured)
        results["seconds"] = round(time.perf_counter() - started, 1)
        self._write(results, answers, measured)
        require_all_answered(results, results["rows"])
        return results

    def close(self) -> None:
        for run in self._ran:
            run.close()
        if "store" in self.__dict__:
            self.__dict__.pop("store").close()

    # -- results ---------------------------------------------------------------------------------------------------

    def _results(
        self, measured: Sequence[tuple[_Cell, dict[str, dict[str, Any]]]]
    ) -> tuple[dict[str, Any], dict[tuple[Any, ...], list[dict[str, dict[str, Any]]]]]:
        resamples = self.experiment.evaluate.resamples
        groups: dict[tuple[Any, ...], list[tuple[_Cell, dict[str, dict[str, Any]]]]] = defaultdict(list)
        for cell, records in measured:
            for steps, part in self._parts(cell, records):
                factors = {**cell.factors, **({"steps": steps} if steps else {})}
                key = (*(factors.get(name) for name in FACTORS), cell.arm.name)
                # An arm that no seed changes was asked once, and counts once.
                if all(cell.arm.fingerprint != other.arm.fingerprint for other, _ in groups[key]):
                    groups[key].append((cell, part))
        rows, answers = [], {}
        for key, found in groups.items():
            cell = found[0][0]
            answers[key] = [records for _, records in found]
            arm = cell.arm
            line = summarize_arm(arm.name, arm.label, answers[key], resamples, arm.local, arm.prices)
            factors = {name: value for name, value in zip(FACTORS, key[:-1], strict=True) if value is not None}
            rows.append({**factors, "questions_tested": len(answers[key][0]), **line})
        roles = self.experiment.roles
        design = self.experiment.experiment
        first = self.run_of(next(iter(design.tasks)), design.seeds[0])
        results = {
            "experiment": self.kind,
            "question": QUESTIONS[self.kind],
            "design": design.model_dump(mode="json", exclude_none=True, exclude={"tasks"}),
            "tasks": {
                name: task.model_dump(mode="json", exclude_unset=True, exclude={"path", "test_path"})
                for name, task in design.tasks.items()
            },
            "teacher": {"model": roles.teacher.model, "scripted": roles.teacher.scripted},
            "solver": roles.solver.model,
            "student_base": first.base.id,
            "program": self.experiment.program.model_dump(),
            "train": self.experiment.train.model_dump(),
            "configuration": configuration_of(self.experiment),
            "rows": rows,
            "comparisons": self._comparisons(answers),
            "costs": self._costs(rows),
            "screening": self._screening(),
            "paid": self.store.paid(prices=first.prices()),
            "versions": package_versions(),
        }  # fmt: skip
        return results, answers

    def _parts(
        self, cell: _Cell, records: dict[str, dict[str, Any]]
    ) -> Iterator[tuple[int | None, dict[str, dict[str, Any]]]]:
        """The records whole, or for `depth` also by the number of steps that a question needs."""
        yield None, records
        if self.kind != "depth":
            return
        needed = {item.id: len(item.subquestions) for item in cell.run.task.test}
        for steps in sorted(set(needed.values())):
            yield steps, {key: record for key, record in records.items() if needed[key] == steps}

    def _comparisons(self, answers: dict[tuple[Any, ...], list[dict[str, dict[str, Any]]]]) -> list[dict[str, Any]]:
        """The planned comparisons, within each combination of the other factors; Holm's correction is over them all."""
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
        planned += self._across(answers)
        arms: dict[str, Any] = {}
        for n, (_, (a, one), (b, other)) in enumerate(planned):
            arms |= {f"{n}:{a}": one, f"{n}:{b}": other}
        pairs = [(f"{n}:{a}", f"{n}:{b}") for n, (_, (a, _), (b, _)) in enumerate(planned)]
        where = dict(zip(pairs, planned, strict=True))
        found = differences(arms, self.experiment.evaluate.resamples, pairs)
        lines = []
        for row in found:
            shared, (a, _), (b, _) = where[str(row["a"]), str(row["b"])]
            lines.append({**row, **shared, "a": a, "b": b})
        return lines

    def _across(
        self, answers: dict[tuple[Any, ...], list[dict[str, dict[str, Any]]]]
    ) -> Iterator[tuple[dict[str, Any], tuple[str, Any], tuple[str, Any]]]:
        """Planned comparisons of one arm with itself where the experiment varies something else.

        A student with those of other tasks; the largest training set with the one before; each cap with the one before.
        """
        varied = {"transfer": "trained_on", "curve": "questions", "cap": "cap"}.get(self.kind)
        if varied is None:
            return
        by_arm: dict[tuple[str, str], dict[Any, Any]] = defaultdict(dict)
        for key, found in answers.items():
            factors = dict(zip(FACTORS, key[:-1], strict=True))
            reached = key[-1] not in SINGLE if varied == "cap" else _trained(key[-1])
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

    def _costs(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """By task (and solver), where the rows differ in their program alone otherwise."""
        if self.kind not in ("main", "dynamic", "depth", "solvers"):
            return {}
        found = {}
        whole = [row for row in rows if "steps" not in row]
        for task, solver in dict.fromkeys((row["task"], row.get("solver")) for row in whole):
            where = {"task": task, **({"solver": solver} if solver else {})}
            lines = [row for row in whole if all(row.get(key) == value for key, value in where.items())]
            ran = [run for run in self._ran if self._cell_of(run).partition("/")[0] == task]
            students = ran[0].pipeline.students if ran else []
            before = {name: mean_upfront([run.upfront(name, self._cell_of(run)) for run in ran]) for name in students}
            found[", ".join(where.values())] = {"where": where, **compare_costs(lines, before)}
        return found

    def _screening(self) -> list[dict[str, Any]]:
        """What was screened and trained for each student of this experiment."""
        lines = []
        for run in self._ran:
            for student in run.pipeline.students:
                manifest = read_manifest(run.folder / "adapters" / student)
                lines.append(
                    {
                        "cell": self._cell_of(run),
                        "student": student,
                        "rows": manifest.rows,
                        **{key: manifest.screening.get(key) for key in ("collected", "kept", "lost")},
                        **{key: manifest.result[key] for key in ("steps", "first_loss", "last_loss", "seconds")},
                    }
                )
        return lines

    def _write(
        self,
        results: dict[str, Any],
        answers: dict[tuple[Any, ...], list[dict[str, dict[str, Any]]]],
        measured: Sequence[tuple[_Cell, dict[str, dict[str, Any]]]],
    ) -> None:
        """The figures as JSON and CSV, and the report, which shows the answers of the first seed."""
        text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
        write_whole(self.folder / f"{self.kind}.json", text)
        write_whole(self.folder / f"{self.kind}.csv", as_csv(results["rows"]))
        shown = []
        for task in self.experiment.experiment.tasks:
            items = next((cell.run.task.test for cell, _ in measured if cell.factors["task"] == task), [])
            arms = [
                (arm_label(row), answers[(*(row.get(name) for name in FACTORS), row["name"])][0])
                for row in results["rows"]
                if row["task"] == task and "steps" not in row
            ]
            shown.append(Shown(task, items, arms))
        write_experiment_report(results, shown, self.folder / f"{self.kind}.html")
        if tracking := self.experiment.tracking:
            files = [self.folder / f"{self.kind}.{end}" for end in ("json", "csv", "html")]
            log_to_mlflow(tracking.mlflow, tracking.experiment, f"{self.folder.name}/{self.kind}", results, files)


_ALL = "_all"  # no task may be called so


def _adapter_of(run: Run, arm: str) -> Path:
    return run.folder / "adapters" / arm.partition("/")[0]


def _trained(arm: str) -> bool:
    return arm.partition("/")[0] in TRAINED
