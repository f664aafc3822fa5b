"""What a precheck has asked, and what is concluded from it: the content of `precheck.json`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from divcon._watch import in_words
from divcon.benchmarks import Records, percent, retained_share
from divcon.benchmarks._costs import MARGIN
from divcon.benchmarks.arms import CHAIN_OF_THOUGHT, DIRECT, TEACHER, UNTUNED, UNTUNED_SOLVES
from divcon.distill import RECORDED, Student
from divcon.pipeline import Run, total_of
from divcon.precheck._figures import compared, in_money, measured_of, planner_cost
from divcon.precheck._training import How
from divcon.precheck._verdict import Findings, judge, which_half
from divcon.programs import Item

_DECIDING = (DIRECT, CHAIN_OF_THOUGHT, TEACHER)


@dataclass(frozen=True)
class Asked:
    """The answers of a precheck.

    Attributes:
        run: The pipeline and its run folder.
        questions: The questions that were asked.
        lines: The results of the arms.
        records: The outcomes by arm.
        students: The arms of two small students, the planner first; empty where none was trained.
    """

    run: Run
    questions: Sequence[Item]
    lines: Sequence[dict[str, Any]]
    records: Mapping[str, Records]
    students: Sequence[str]

    def _line(self, name: str) -> dict[str, Any]:
        return next(line for line in self.lines if line["name"] == name)

    @property
    def lacking(self) -> list[dict[str, Any]]:
        """The results of the arms that have no score, and without which there is no verdict."""
        return [self._line(kind.name) for kind in _DECIDING if self._line(kind.name)["withheld"]]

    def _facts(self) -> dict[str, Any]:
        pipeline = self.run.pipeline
        return {
            "schema_version": 1,
            "verdict": None,
            "reasons": [],
            "notes": [],
            "task": pipeline.task.name,
            "questions": len(self.questions),
            "training_questions": len(self.run.task.train),
            "seed": pipeline.task.seed,
            "teacher": self.run.context.teacher.model_dump(exclude_none=True),
            "solver": pipeline.roles.solver.title,
            "student_base": self.run.models.base.id,
            "arms": list(self.lines),
        }

    def without_verdict(self) -> dict[str, Any]:
        """The content where too many answers failed."""
        why = "; ".join(f"{line['label']}: {line['withheld']}" for line in self.lacking)
        return {**self._facts(), "reasons": [f"There is no verdict, since too many answers failed. {why}"]}

    def with_verdict(self, rate: tuple[float, How], notes: Iterable[str]) -> dict[str, Any]:
        """The content with its verdict.

        Args:
            rate: Seconds of training for each row and pass, and how they are known.
            notes: What the figures leave out.
        """
        pipeline, teacher = self.run.pipeline, self._line(TEACHER.name)
        planner, solver = self.students or (UNTUNED.name, UNTUNED_SOLVES.name)
        best = max((self._line(kind.name) for kind in (DIRECT, CHAIN_OF_THOUGHT)), key=_accurate_and_cheap)
        cost, best_cost = (line["bill"]["cost_per_1000"] for line in (teacher, best))
        dearer = None if cost is None or best_cost is None else cost > best_cost
        split = compared(self.records, TEACHER.name, best["name"], pipeline, dearer)
        if split is None:
            why = f"no question was answered both by {teacher['label']} and by {best['label']}"
            return {**self._facts(), "reasons": [f"There is no verdict: {why}."]}
        part, unknown = planner_cost(teacher, pipeline)
        found = Findings(
            split,
            best["label"],
            cost,
            best_cost,
            part,
            unknown,
            compared(self.records, planner, TEACHER.name, pipeline, dearer=False),
            "a small student" if self.students else "the base, asked untrained,",
            MARGIN,
        )
        verdict, whole = judge(found), self._whole(rate)
        halves = compared(self.records, planner, solver, pipeline)
        kept = [retained_share(line) if line["retained"] else None for line in map(self._line, (planner, solver))]
        half = which_half(halves, kept[0], kept[1], bool(self.students))
        if split.to_settle is not None and split.to_settle > len(self.run.task.train):
            notes = [*notes, f"The {len(self.run.task.train):,} training questions are too few to settle it."]
        if unusable := self._unusable(teacher):
            notes = [*notes, f"{percent(unusable, 1)} of the teacher's plans can't be used to train a planner."]
        return {
            **self._facts(),
            "verdict": verdict.name,
            "reasons": [*verdict.reasons, half, *self._on_whole(whole, part)],
            "notes": list(notes),
            "split": {"best": best["name"], **asdict(split)},
            "bill": {"per_1000": found.cost, "planner": part, "share": found.share, "unknown": unknown or None},
            "half": {"planner": planner, "solver": solver, "difference": halves and asdict(halves)},
            "pipeline": whole,
        }

    def _whole(self, rate: tuple[float, How]) -> dict[str, Any]:
        """What the whole pipeline takes from here on: its stations, and its training."""
        pipeline, teacher = self.run.pipeline, self._line(TEACHER.name)
        untrained = [line for line in self.lines if line["name"] not in self.students]
        stations = self.run.estimate(measured_of(untrained, self.run.store, pipeline))
        plans = len(self.run.context.to_collect) * (1 - self._unusable(teacher))
        rows = plans * sum(self._kept(student, teacher["accuracy"]) for student in pipeline.students)
        seconds, total = rate[0] * rows * pipeline.train.epochs, total_of(stations)
        hour = pipeline.costs.training_hour
        return {
            "stations": [asdict(one) for one in stations],
            "usd": total.usd,
            "most_usd": total.most_usd,
            "seconds": total.seconds,
            "training": {
                "students": len(pipeline.students),
                "rows": round(rows),
                "seconds": seconds,
                "how": rate[1],
                "usd": None if hour is None else seconds / 3600 * hour,
            },
        }

    def _unusable(self, teacher: Mapping[str, Any]) -> float:
        """The share of the teacher's plans that no student can learn from."""
        whole = 0.0 if self.run.pipeline.screen.keep_whole else teacher["whole_rate"]
        return float(teacher["fell_back_rate"] + teacher["salvaged_rate"] + whole)

    def _kept(self, student: Student, solved: float) -> float:
        """The share of the plans that a student is expected to learn from."""
        if student.screened_by_solver:
            return float(1 - (1 - solved) ** self.run.pipeline.screen.samples)
        if student.rule == RECORDED:
            return mean(right or False for item in self.run.task.train for right in item.plans_right)
        return 1.0

    def _on_whole(self, whole: Mapping[str, Any], saved: float | None) -> Iterator[str]:
        """What the whole pipeline takes, in sentences."""
        usd, training = whole["usd"], whole["training"]
        money = "a sum that is unknown, since a price is" if usd is None else in_money(usd, whole["most_usd"])
        how = "measured on the real base" if training["how"] == "measured" else "estimated from the size of the base"
        yield (
            f"From here on the whole pipeline costs {money} and takes about {in_words(whole['seconds'])} of asking and "
            f"{in_words(training['seconds'])} of training on this machine ({how})."
        )
        if usd and saved and training["rows"]:
            least = f"It has paid for itself after {1000 * (usd + (training['usd'] or 0.0)) / saved:,.0f} questions"
            bare = "" if training["usd"] is not None else ", the machine that trains not counted"
            yield f"{least} at the earliest{bare}."


def _accurate_and_cheap(line: Mapping[str, Any]) -> tuple[float, float]:
    """Orders programs by their accuracy, and equal ones by their cost."""
    return line["accuracy"], -(line["bill"]["cost_per_1000"] or 0.0)
