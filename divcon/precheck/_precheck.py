"""`Precheck`: asks the programs of a pipeline on some of its training questions, and judges whether to go on."""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from divcon._data import too_few_steps
from divcon._doctor import diagnose
from divcon._watch import Reporter, Silent, in_words
from divcon.benchmarks import Arm, Records
from divcon.benchmarks.arms import CHAIN_OF_THOUGHT, DIRECT, REFERENCES, TEACHER, UNTUNED, UNTUNED_SOLVES, ArmKind
from divcon.benchmarks.tasks import COMMON, TASKS, LoadedTask
from divcon.distill import NothingToLearn, booked_to, overlapping, read_manifest, students_of, write_whole
from divcon.pipeline import (
    Failures,
    Incomplete,
    Measured,
    Run,
    StationEstimate,
    Unfit,
    announce_conversion,
    total_of,
)
from divcon.precheck._asked import Asked
from divcon.precheck._figures import BASE_CELL, CELL, in_money, measured_of, summarize
from divcon.precheck._training import ROWS, STEPS, How, seconds_a_row, seconds_by_size, seconds_of
from divcon.programs import Item

QUESTIONS = 200
_FIRST = 8  # questions whose time tells that of the others
_LEARNT = 100  # training questions of the small students
_SOLVES = "se-t"  # the small student of the solver


class Precheck:
    """A precheck of a pipeline. It trains nothing but a few steps, whose time it measures.

    It asks training questions of the pipeline and no test question. All replies are kept in the store of the run, so
    that the run finds those that it needs too.

    Args:
        run: The pipeline and its run folder; the precheck's own files lie in its folder `precheck`.
        questions: How many questions are asked at most.
        both: Also train two small students, one as planner and one as solver.
    """

    def __init__(self, run: Run, questions: int = QUESTIONS, *, both: bool = False) -> None:
        self.run = run
        self.folder = run.folder / "precheck"
        self.wanted = questions
        self.both = both
        self.notes: list[str] = []  # on what was found meanwhile

    @cached_property
    def _shuffled(self) -> list[Item]:
        """The training questions in the order that they are asked in; fewer questions are the beginning of more."""
        found = list(self.run.task.train)
        random.Random(self.run.pipeline.task.seed).shuffle(found)
        return found

    @cached_property
    def questions(self) -> list[Item]:
        """The questions that are asked. With two students, half of the training questions are left to learn from."""
        most = len(self._shuffled) // 2 if self.both else len(self._shuffled)
        return self._shuffled[: max(1, min(self.wanted, most))]

    @cached_property
    def _replies(self) -> dict[str, int]:
        """For each recorded arm, how many of the questions have a reply."""
        recordings = self.run.context.recordings
        return {name: len(recording.match(self.questions).rows) for name, recording in recordings.items()}

    @property
    def arms(self) -> list[str]:
        """The arms that need no training, without the recorded ones."""
        kinds: list[ArmKind] = [DIRECT, CHAIN_OF_THOUGHT, TEACHER]
        if all(item.subquestions for item in self.questions):
            kinds.append(REFERENCES)
        return [kind.name for kind in (*kinds, UNTUNED, UNTUNED_SOLVES)]

    def do(self) -> dict[str, Any]:
        """Ask what is missing, judge, and write `precheck.json`. Returns its content.

        Raises:
            Incomplete: Too many answers failed for a verdict; the error carries the content.
            DivconError: Something would stop the precheck, or the budget is spent.
        """
        started = time.perf_counter()
        self.run.hold()
        missing = self._checked()
        with contextlib.closing(self._asking()) as asking:
            calls = total_of([*missing, *self._expected_students()])
            expected = calls.seconds + self._expected_training(asking)
            asked = f"{len(self.questions)} of {len(self._shuffled)} training questions, no test question"
            money = "an unknown price" if calls.usd is None else in_money(calls.usd, calls.most_usd)
            self._station(f"{asked}; {len(asking.arms())} programs, ~{in_words(expected)}, {money}")
            records, after_first = self._records(asking, started, bool(missing))
            arms = asking.arms()
        if self.both:
            arms += self._trained_both(records)
        lines = [summarize(arm, records, asking.pipeline) for arm in arms]
        found = self._content(records, lines)
        found["seconds"] = {
            "expected": round(expected, 1),
            "expected_after_first": after_first,
            "took": round(time.perf_counter() - started, 1),
        }
        write_whole(self.folder / "precheck.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
        if found["verdict"] is None:
            incomplete = Incomplete(found["reasons"][0], "Run the same command again; only failed calls are repeated.")
            incomplete.results = found
            raise incomplete
        return found

    # -- asking ----------------------------------------------------------------------------------------------------

    def _asking(self, reporter: Reporter | None = None) -> Run:
        """The run whose programs are asked: no optimized prompt, one plan a question, and failures are tolerated."""
        pipeline = self.run.pipeline
        whole = [name for name, replies in self._replies.items() if replies == len(self.questions)]
        recorded = {name: pipeline.evaluate.recorded[name] for name in whole}
        evaluate = pipeline.evaluate.model_copy(update={"arms": self.arms, "recorded": recorded})
        most = max(pipeline.collect.max_failed, evaluate.max_failed)
        collect = pipeline.collect.model_copy(update={"samples": 1, "max_failed": most})
        changes = {
            "compile": pipeline.compile.model_copy(update={"optimizer": "none"}),
            "collect": collect,
            "evaluate": evaluate,
            "tracking": None,
        }
        asked = LoadedTask(self.questions, self.questions)
        changed = pipeline.model_copy(update=changes)
        return Run(changed, self.folder, reporter or self.run.reporter, self.run.store, asked)

    def _checked(self) -> list[StationEstimate]:
        """Check everything that can fail before a call is paid for. Returns what is missing.

        Raises:
            Unfit: Something would stop the precheck. Models are looked at only where they will be called.
        """
        failures = Failures(self.run.reporter)
        with failures.gathering("data"):
            if not self.run.task.train:
                raise Unfit(
                    "The precheck asks training questions, and task.train is 0.", "Give some: task.train=200, or 50%."
                )
            for covered in self.run.context.coverage():
                self.run.reporter.finished("check", covered)
        if failures:  # without questions there are no programs that could be looked at
            failures.look_at(diagnose(self.run.pipeline, self.run.folder, data=False))
        failures.require_none()
        with contextlib.closing(self._asking(Silent())) as asking:
            asking.check(failures)
            failures.require_none()
            expected = asking.estimate(rounds=1 + bool(self.questions[_FIRST:]))
            missing = [one for one in expected if one.station.startswith(("collect", "evaluate"))]
            if missing:
                announce_conversion(asking.pipeline, self.run.reporter)
                failures.look_at(diagnose(asking.pipeline, self.run.folder, data=False))
        failures.require_none()
        return missing

    def _expected_students(self, measured: Measured | None = None) -> list[StationEstimate]:
        """What asking takes for the two small students.

        Args:
            measured: What the first questions have told.
        """
        if not self.both:
            return []
        with contextlib.closing(self._small(Silent())) as small:
            return small.estimate(measured) if small.task.train else []

    def _expected_training(self, asking: Run) -> float:
        """Seconds that the precheck trains, as the size of the base tells."""
        train = asking.pipeline.train
        rows = 2 * _LEARNT if self.both else STEPS * min(ROWS, train.batch_size)
        return rows * seconds_by_size(asking.models.base, train)

    def _records(self, asking: Run, started: float, missing: bool) -> tuple[dict[str, Records], float | None]:
        """The outcomes by arm, and the seconds of the whole precheck as the first questions tell; None without these.

        The teacher's plans are collected first, so that they are recorded as what a student costs.
        """
        with booked_to(CELL):
            asking.collect()
        arms = asking.arms()
        fresh, known = self._unanswered(arms)
        first, after_first, rest = fresh[:_FIRST], None, fresh[_FIRST:]
        began = time.perf_counter()
        answered = self._answers(asking, arms, first)
        if missing and rest:
            now = time.perf_counter()
            lines = [summarize(arm, answered, asking.pipeline) for arm in arms]
            students = sum(
                one.seconds for one in self._expected_students(measured_of(lines, self.run.store, asking.pipeline))
            )
            left = (now - began) / len(first) * len(rest) + students + self._expected_training(asking)
            after_first = round(now - started + left, 1)
            took = f"the first {len(first)} questions took {in_words(now - began)}"
            self.run.reporter.finished("precheck", f"{took}, so all of it takes {in_words(after_first)} at most")
        later = self._answers(asking, arms, [*rest, *known])
        return {name: {**records, **later[name]} for name, records in answered.items()}, after_first

    def _unanswered(self, arms: Sequence[Arm]) -> tuple[list[Item], list[Item]]:
        """The questions that a program hasn't answered, the least answered ones first, and those that all have."""
        there = [self.run.store.outcomes(arm.name, arm.key.digest) for arm in arms]
        count = {item.id: sum(item.id in records for records in there) for item in self.questions}
        in_order = sorted(self.questions, key=lambda item: count[item.id])
        fresh = [item for item in in_order if count[item.id] < len(arms)]
        return fresh, in_order[len(fresh) :]

    def _answers(self, asking: Run, arms: Sequence[Arm], items: Sequence[Item]) -> dict[str, Records]:
        """The outcomes by arm. The base that solves is recorded apart, since its speed isn't the solver's."""
        found: dict[str, Records] = {}
        for cell, own in ((CELL, False), (BASE_CELL, True)):
            batch = [arm for arm in arms if ("solver" in arm.local) == own]
            with booked_to(cell):
                found |= asking.outcomes(batch, items, "precheck")
        return {arm.name: found[arm.name] for arm in arms}

    # -- two small students ----------------------------------------------------------------------------------------

    def _small(self, reporter: Reporter | None = None) -> Run:
        """The run of two small students, which learn from training questions that nobody is asked here."""
        pipeline, train = self._asking().pipeline, self.run.pipeline.train
        changes: dict[str, Any] = {
            "screen": pipeline.screen.model_copy(update={"rule": pipeline.screen.rules[0]}),
            "train": train.model_copy(update={"epochs": 1.0, "method": train.methods[0]}),
            "evaluate": pipeline.evaluate.model_copy(update={"arms": self._students, "recorded": {}}),
        }
        asked = LoadedTask(self._learnt, self.questions)
        small = pipeline.model_copy(update=changes)
        return Run(small, self.folder / "both", reporter or self.run.reporter, self.run.store, asked)

    @cached_property
    def _learnt(self) -> list[Item]:
        """The questions that the two small students learn from."""
        return self._apart(self._shuffled[len(self.questions) :])[:_LEARNT]

    @property
    def _students(self) -> list[str]:
        """The arms of the two small students."""
        pipeline = self.run.pipeline
        [planner] = students_of(pipeline.screen.rules[:1], pipeline.train.methods[:1])
        return [planner.name, _SOLVES]

    def _apart(self, items: Sequence[Item]) -> list[Item]:
        """Those of some questions that don't overlap with the questions that are asked."""
        task = self.run.pipeline.task
        source = TASKS[task.name]
        read = COMMON if source.draw is None else source.common
        common = 0 if task.overlap == "same" or source.template_made else read
        near = task.near_duplicate if source.draw is None else None
        overlap = {pair[0].id for pair in overlapping(items, self.questions, common, near, task.allows).pairs}
        return [item for item in items if item.id not in overlap]

    def _trained_both(self, records: dict[str, Records]) -> list[Arm]:
        """Train two small students and add their outcomes. Returns their arms; none where nothing can be learnt."""
        with contextlib.closing(self._small()) as small, booked_to(f"{CELL}-both"):
            if not small.task.train:
                self.notes.append("No student could be trained: no training question is left to learn from.")
                return []
            self._station(f"two students on {len(small.task.train)} questions, one pass each")
            small.check()
            small.collect()
            try:
                small.export(small.screen())
            except NothingToLearn as error:
                self.notes.append(f"No student could be trained: {error.problem}")
                return []
            small.train()
            arms = small.arms()
            records |= self._answers(small, arms, self.questions)
            return arms

    # -- what was found --------------------------------------------------------------------------------------------

    def _content(self, records: dict[str, Records], lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The content of `precheck.json`, without its times."""
        students = tuple(line["name"] for line in lines if line["name"] in self._students)
        asked = Asked(self.run, self.questions, lines, records, students)
        if asked.lacking:
            return asked.without_verdict()
        return asked.with_verdict(self._rate(bool(students)), self._notes)

    def _rate(self, trained: bool) -> tuple[float, How]:
        """Seconds of training for each row and pass."""
        if trained:
            adapters = self.folder / "both" / "adapters"
            return seconds_of([read_manifest(adapters / name) for name in self._students]), "measured"
        return seconds_a_row(self._asking(), self.questions, self.folder / "timed")

    @property
    def _notes(self) -> Iterator[str]:
        """What the figures leave out, in sentences."""
        if (optimizer := self.run.pipeline.compile.optimizer) != "none":
            yield f"The teacher's prompt isn't optimized here; {optimizer} may improve its plans."
        if (few := too_few_steps(self.run.pipeline, len(self.run.task.train))) is not None:
            yield f"Training is short: {few.text}. {few.remedy}"
        if REFERENCES.name not in self.arms:
            yield "Reference plans aren't measured: not every question has one."
        for name, replies in self._replies.items():
            if replies < len(self.questions):
                yield f"The recorded program {name} isn't measured: it has a reply to {replies:,} of these questions."
        yield from self.notes

    def _station(self, text: str) -> None:
        self.run.reporter.station("precheck", text)
