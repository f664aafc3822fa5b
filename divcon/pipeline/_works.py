"""Works: the functions that do the jobs of a run's stations, made in a worker from the pipeline and the run folder."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from divcon._models import sampling_temperature
from divcon.benchmarks import answered_by
from divcon.benchmarks.tasks import LoadedTask
from divcon.config import Pipeline
from divcon.distill import RULES, Job, RunStore, collecting, judging, solving
from divcon.distill.executors import Recipe
from divcon.pipeline._arms import bound_arm
from divcon.pipeline._context import Context
from divcon.pipeline._programs import Programs, compiled_prompt
from divcon.pipeline._stations import Stations
from divcon.signatures import FatalError

_LOADED = TypeAdapter(LoadedTask)
Work = Callable[[Job], Any]


class MissingSecret(FatalError):
    """A worker's environment lacks a key that a role needs."""


def recipe_of(context: Context, maker: str = "divcon.pipeline._works:make_works", **more: Any) -> Recipe:
    """The recipe by which a worker makes the function that does a run's jobs."""
    elsewhere = context.pipeline.run.model_copy(update={"executor": "threads"})
    pipeline = context.pipeline.model_copy(update={"run": elsewhere})
    loaded = None if context.loaded is None else _LOADED.dump_python(context.loaded, mode="json")
    arguments = {
        "pipeline": pipeline.model_dump(mode="json", exclude_unset=True),
        "folder": str(context.folder.absolute()),
        "loaded": loaded,
        **more,
    }
    return Recipe(maker, arguments)


def worker_context(arguments: dict[str, Any], store: RunStore) -> Context:
    """A run's context in a worker.

    Raises:
        MissingSecret: The worker's environment lacks a key.
    """
    pipeline = Pipeline.model_validate(arguments["pipeline"])
    for role in (pipeline.roles.teacher, pipeline.roles.solver):
        if role.api_key_env and not os.environ.get(role.api_key_env):
            raise MissingSecret(
                f"The environment variable {role.api_key_env} is not set for a worker.",
                "Set it where 'ray start' is run on that node: jobs are sent without keys.",
            )
    loaded = None if arguments["loaded"] is None else _LOADED.validate_python(arguments["loaded"])
    return Context(pipeline, Path(arguments["folder"]), shared=store, loaded=loaded)


def make_works(arguments: dict[str, Any], store: RunStore) -> Callable[[Job], Any]:
    """The function that does any job of a run's stations, by the name of the job's work."""
    context = worker_context(arguments, store)
    made: dict[tuple[str, str | None], Work] = {}
    making = threading.Lock()

    def do(job: Job) -> Any:
        with making:
            if (job.work, job.lora) not in made:
                made[job.work, job.lora] = _work(context, job.work, job.lora)
            work = made[job.work, job.lora]
        return work(job)

    return do


def _work(context: Context, name: str, lora: str | None) -> Work:
    kind, _, what = name.partition(" ")
    return _WORKS[kind](context, what, None if lora is None else Path(lora))


def _collect(context: Context, what: str, lora: Path | None) -> Work:
    settings, teacher = context.pipeline.collect, context.models.teacher
    decompose = Programs(context, compiled_prompt(context)).planned_by_teacher().decompose
    return collecting(decompose, settings.samples, sampling_temperature(teacher, settings.temperature))


def _screen(context: Context, rule: str, lora: Path | None) -> Work:
    stations = Stations(context, Programs(context, compiled_prompt(context)))
    return judging(RULES[rule], stations.solver() if RULES[rule].asks_solver else None)


def _solve(context: Context, what: str, lora: Path | None) -> Work:
    return solving(Programs(context, compiled_prompt(context)).asking_solver().solve)


def _evaluate(context: Context, name: str, lora: Path | None) -> Work:
    arm = bound_arm(context, compiled_prompt(context), name, lora)
    return lambda job: answered_by(arm, job)


_WORKS: dict[str, Callable[[Context, str, Path | None], Work]] = {
    "collect": _collect,
    "screen": _screen,
    "solve": _solve,
    "evaluate": _evaluate,
}
