"""The status of a run: which stations are done, and why a station would run again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from divcon.benchmarks import Arm
from divcon.benchmarks.arms import read_arm
from divcon.distill import Key, ManifestError, Student, read_manifest
from divcon.pipeline._arms import bound_arm, recorded_arms
from divcon.pipeline._context import Context
from divcon.pipeline._errors import MissingStation
from divcon.pipeline._preflight import contents_of
from divcon.pipeline._programs import Programs, compile_key, compiled_prompt
from divcon.pipeline._record import recorded_keys
from divcon.pipeline._results import results_files
from divcon.pipeline._stations import Stations, adapter_folder

State = Literal["done", "partly", "to do", "again"]
_SHOWN = 3  # changes that a note names


@dataclass(frozen=True)
class StationStatus:
    """The status of a station.

    Attributes:
        station: The station's name, such as `collect`, `train sd-r` or `evaluate cot`.
        state: `done`; `partly`, where some of its results are there; `to do`; or `again`, where it was done, and
            something that it depends on has changed since.
        done: The number of results that are there.
        total: The number of all results; 1 for a station with a single result.
        changes: What has changed, as (name, earlier value, value now).
    """

    station: str
    state: State
    done: int
    total: int
    changes: tuple[tuple[str, str, str], ...] = ()

    @property
    def note(self) -> str:
        """The counts, and why the station would run again."""
        counted = f"{self.done} of {self.total}" if self.total > 1 else ""
        changed = [f"{name}: {before} -> {now}" for name, before, now in self.changes[:_SHOWN]]
        more = len(self.changes) - _SHOWN
        return "; ".join(filter(None, [counted, *changed, f"{more} more" if more > 0 else ""]))


def run_status(context: Context) -> Iterator[StationStatus]:
    """The status of the stations of a run, in order. No model is called and nothing is written."""
    pipeline, recorded = context.pipeline, recorded_keys(context.folder)
    context.store.require_same_items(contents_of((*context.task.train, *context.task.test)))
    compiled = compiled_prompt(context)
    stations = Stations(context, Programs(context, compiled))
    keys, questions = stations.keys, context.task

    def status(station: str, key: Key, done: int, total: int) -> StationStatus:
        before = recorded.get(station, {})
        changed = before.get("digest") not in (None, key.digest)
        changes = tuple(_named(key, before["parts"])) if changed and done < total else ()
        state: State = "done" if done >= total else "again" if changed and not done else "partly" if done else "to do"
        return StationStatus(station, state, min(done, total), total, changes)

    live = not pipeline.only_recorded
    if live and pipeline.compile.optimizer != "none":
        yield status("compile", compile_key(context), int(compiled is not None), 1)
    wanted = context.to_collect
    if live:
        collection = keys.collection()
        collected = context.store.trace_keys(collection.digest) & wanted
        yield status("collect", collection, len(collected), len(wanted))
    for rule in pipeline.screen.rules if live else ():
        key = keys.screening(rule)
        judged = set(context.store.verdicts(key.digest)) & wanted
        yield status(f"screen {rule}", key, len(judged), len(wanted))
    for student in pipeline.students:
        yield status(f"export {student.name}", keys.rows(student), int(stations.is_exported(student)), 1)
    unexported = _unexported(stations)
    for student in pipeline.students:
        trained = student.name in unexported or stations.is_trained(student)
        yield status(f"train {student.name}", stations.training_key(student), int(trained), 1)
    for name, arm in arms_there(context):
        if arm is None:
            yield StationStatus(f"evaluate {name}", "to do", 0, len(questions.test))
        else:
            yield status(f"evaluate {name}", arm.key, _answered(context, arm), len(questions.test))
    written = all(file.is_file() for file in results_files(context.folder, "results"))
    yield StationStatus("results", "done" if written else "to do", int(written), 1)


def arms_there(context: Context) -> Iterator[tuple[str, Arm | None]]:
    """The arms of a run by name; None for an arm whose student isn't trained yet. No model is called."""
    compiled = compiled_prompt(context)
    unexported = _unexported(Stations(context, Programs(context, compiled)))
    for name in context.pipeline.arms:
        student = read_arm(name)[0].student
        try:
            yield name, bound_arm(context, compiled, name, unexported.get(student.name) if student else None)
        except (MissingStation, ManifestError):
            yield name, None
    for arm in recorded_arms(context):
        yield arm.name, arm


def _unexported(stations: Stations) -> dict[str, Path]:
    """The adapters whose rows aren't there, by student: a run writes the rows again and trains nothing."""
    recorded, folder = recorded_keys(stations.context.folder), stations.context.folder
    return {
        student.name: adapter_folder(folder, student.name)
        for student in stations.context.pipeline.students
        if recorded.get(f"train {student.name}", {}).get("digest") == stations.training_key(student).digest
        and _has_adapter_alone(stations, student)
    }


def _answered(context: Context, arm: Arm) -> int:
    """The number of test questions that an arm has answered."""
    outcomes = context.store.outcomes(arm.name, arm.key.digest)
    answered = {item for item, record in outcomes.items() if record["outcome"] != "failed"}
    return len(answered & {item.id for item in context.task.test})


def _has_adapter_alone(stations: Stations, student: Student) -> bool:
    """Whether a student's adapter is whole, and the rows that it was trained on are gone."""
    try:
        read_manifest(adapter_folder(stations.context.folder, student.name))
    except ManifestError:
        return False
    return not stations.rows_file(student).exists()


def _named(key: Key, before: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The changes of a key. The parts of a nested key aren't listed here, since the nested key's station lists them."""
    nested = {name for name, part in key.parts.items() if isinstance(part, Key)}
    named = set()
    for name, then, now in key.changes(before):
        first = name.partition(".")[0]
        if first not in nested:
            yield name, then, now
        elif first not in named:
            named.add(first)
            yield first, "before", "changed"
