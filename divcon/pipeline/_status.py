"""What of a run is there, what isn't, and why a station would run again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from divcon.distill import Key, ManifestError
from divcon.pipeline._arms import bound_arm
from divcon.pipeline._context import Context
from divcon.pipeline._errors import MissingStation
from divcon.pipeline._programs import Programs, compile_key, compiled_prompt
from divcon.pipeline._record import recorded_keys
from divcon.pipeline._stations import Stations

State = Literal["done", "partly", "to do", "again"]
_SHOWN = 3  # changes that are named


@dataclass(frozen=True)
class StationStatus:
    """A station of a run.

    Attributes:
        station: Its name: `collect`, `train sd-r`, `evaluate cot`.
        state: `done`; `partly`, where some of it is there; `to do`; or `again`, where it was done with something that
            has changed since.
        done: What is there, of what it counts.
        total: In all; 1 where it doesn't count.
        changes: What has changed: name, value then, value now.
    """

    station: str
    state: State
    done: int
    total: int
    changes: tuple[tuple[str, str, str], ...] = ()

    @property
    def note(self) -> str:
        """How far it is, and why it would run again."""
        counted = f"{self.done} of {self.total}" if self.total > 1 else ""
        changed = [f"{name}: {before} -> {now}" for name, before, now in self.changes[:_SHOWN]]
        more = len(self.changes) - _SHOWN
        return "; ".join(filter(None, [counted, *changed, f"{more} more" if more > 0 else ""]))


def run_status(context: Context) -> Iterator[StationStatus]:
    """The stations of a run in order. Nothing is asked and nothing written."""
    pipeline, recorded = context.pipeline, recorded_keys(context.folder)
    compiled = compiled_prompt(context)
    stations = Stations(context, Programs(context, compiled))
    keys, questions = stations.keys, context.task

    def told(station: str, key: Key, done: int, total: int) -> StationStatus:
        before = recorded.get(station, {})
        changed = before.get("digest") not in (None, key.digest)
        changes = tuple(_named(key, before["parts"])) if changed and done < total else ()
        state: State = "done" if done >= total else "again" if changed and not done else "partly" if done else "to do"
        return StationStatus(station, state, min(done, total), total, changes)

    if pipeline.compile.optimizer != "none":
        yield told("compile", compile_key(context), int(compiled is not None), 1)
    collection = keys.collection()
    samples = pipeline.collect.samples
    wanted = {(item.id, sample) for item in questions.train for sample in range(samples)}
    there = context.store.trace_keys(collection.digest) & wanted
    yield told("collect", collection, len(there), len(wanted))
    for rule in pipeline.screen.rules:
        key = keys.screening(rule)
        judged = set(context.store.verdicts(key.digest)) & wanted
        yield told(f"screen {rule}", key, len(judged), len(wanted))
    for student in pipeline.students:
        yield told(f"export {student.name}", keys.rows(student), int(stations.is_exported(student)), 1)
    for student in pipeline.students:
        key = stations.training_key(student)
        yield told(f"train {student.name}", key, int(stations.is_trained(student)), 1)
    for name in pipeline.arms:
        try:
            arm = bound_arm(context, compiled, name)
        except (MissingStation, ManifestError):
            yield StationStatus(f"evaluate {name}", "to do", 0, len(questions.test))
            continue
        outcomes = context.store.outcomes(name, arm.key.digest)
        answered = {item for item, record in outcomes.items() if record["outcome"] != "failed"}
        done = len(answered & {item.id for item in questions.test})
        yield told(f"evaluate {name}", arm.key, done, len(questions.test))


def _named(key: Key, before: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The changes of a key, each once: what a key inside has is named where that key's station stands."""
    inside = {name for name, part in key.parts.items() if isinstance(part, Key)}
    told = set()
    for name, then, now in key.changes(before):
        first = name.partition(".")[0]
        if first not in inside:
            yield name, then, now
        elif first not in told:
            told.add(first)
            yield first, "before", "changed"
