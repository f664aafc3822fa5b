"""The verdict of a precheck: the rules by which it is reached, and its reasons in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from divcon.benchmarks import percent, points, points_between
from divcon.benchmarks.arms import UNTUNED

Name = Literal["worth it", "not worth it", "not settled"]
STATUSES: dict[Name, int] = {"worth it": 0, "not worth it": 3, "not settled": 4}  # exit statuses of the command

SMALL = 0.05  # with a smaller share of the bill, nothing can be saved by moving the planner
LARGE = 0.2  # from this share on, moving it saves enough to pay for a training


@dataclass(frozen=True)
class Difference:
    """A paired difference of accuracy.

    Attributes:
        value: The difference, from -1 to 1.
        low: The lower end of its 95 % interval.
        high: The upper end.
        questions: The questions that it is over.
        to_settle: About how many questions would tell it from zero, or show that it is less than the margin where that
            decides; None where it is told from zero already, or no number would settle it.
    """

    value: float
    low: float
    high: float
    questions: int
    to_settle: int | None = None

    def __str__(self) -> str:
        ends = points_between((self.low, self.high))
        return f"{points(self.value)} points (95 % interval {ends}, {self.questions} questions)"


@dataclass(frozen=True)
class Findings:
    """What a precheck has found.

    Attributes:
        split: The two-stage program with the teacher, minus the better program without a planner.
        best: The label of that program.
        cost: US dollars for 1,000 questions with the teacher as planner; None where unknown.
        best_cost: The same for the program without a planner.
        planner_cost: The planner's part of `cost`; None where unknown.
        unknown: Why the planner's part is unknown, as a sentence.
        moved: The program with the student as planner, minus the one with the teacher; None where it has no score.
        student: What the student is called in sentences, such as "the base, asked untrained,".
        margin: The accuracy that may be given up, from 0 to 1.
    """

    split: Difference
    best: str
    cost: float | None
    best_cost: float | None
    planner_cost: float | None
    unknown: str
    moved: Difference | None
    student: str
    margin: float

    @property
    def share(self) -> float | None:
        """The planner's share of the bill: none of a bill of nothing; None where unknown."""
        if self.planner_cost is None or self.cost is None:
            return None
        return self.planner_cost / self.cost if self.cost else 0.0

    @property
    def dearer(self) -> bool | None:
        """Whether splitting costs more than the program without a planner; None where unknown."""
        return None if self.cost is None or self.best_cost is None else self.cost > self.best_cost


@dataclass(frozen=True)
class Verdict:
    """The verdict on moving the planner to a student.

    Attributes:
        name: `worth it`, `not worth it` or `not settled`.
        reasons: Why, in sentences; the first one decides.
    """

    name: Name
    reasons: tuple[str, ...]


def judge(found: Findings) -> Verdict:
    """Whether it is worth it to move the planner to a student.

    It isn't where splitting is shown to be worse than the best program without a planner and isn't known to cost less,
    where it is shown to gain less than the margin and costs more, or where the planner's share of the bill is small. It
    is where splitting is shown to be better, or no worse by the margin than a dearer program, and the planner's share
    is large or unknown, or the student is shown to plan as well. Everything else isn't settled.
    """
    split, share, margin = found.split, found.share, found.margin
    rest = [*_on_bill(found), *_on_student(found)]

    def verdict(name: Name, reason: str) -> Verdict:
        return Verdict(name, (reason, *(one for one in rest if one != reason)))

    if split.high < 0 and found.dearer is not False:
        more = " and costs more" if found.dearer else ""
        return verdict("not worth it", f"Splitting is worse than {found.best}{more}: {split}.")
    if split.high < margin and found.dearer:
        least = f"gains less than {100 * margin:.0f} points over {found.best} and costs more"
        return verdict("not worth it", f"Splitting {least}: {split}.")
    on_split = _on_split(found)
    rest.insert(0, on_split)
    if share is not None and share < SMALL:
        return verdict("not worth it", next(_on_bill(found)))
    pays = split.low > 0 or (split.low > -margin and found.dearer is False)
    movable = found.moved is not None and found.moved.low > -margin
    if pays and (share is None or share >= LARGE or movable):
        return verdict("worth it", on_split)
    if not pays:
        return verdict("not settled", on_split)
    middling = f"Splitting pays, but the planner makes only {percent(share, 1)} of the bill"
    number = found.moved.to_settle if found.moved is not None else None
    more = f" About {number:,} questions would settle it." if number else ""
    return verdict("not settled", f"{middling}, and a student isn't shown to plan as well.{more}")


def _on_split(found: Findings) -> str:
    split, cheap = found.split, f"Splitting costs no more than {found.best}"
    if split.low > 0:
        return f"Splitting is better than {found.best}: {split}."
    if split.low > -found.margin and found.dearer is False:
        return f"{cheap} and is no worse by {100 * found.margin:.0f} points: {split}."
    if split.high < 0:
        return f"{cheap} and is worse: {split}. Which of the two counts is yours to say."
    more = f" About {split.to_settle:,} questions would settle it." if split.to_settle else ""
    return f"Whether splitting is better than {found.best} isn't settled: {split}.{more}"


def _on_bill(found: Findings) -> Iterator[str]:
    if found.share is None or found.planner_cost is None:
        yield f"What moving the planner saves is unknown: {found.unknown}"
        return
    if not found.cost:
        yield "The whole program costs nothing at these prices, so moving the planner saves nothing."
        return
    bill = f"{percent(found.share, 1)} of the bill of ${found.cost:.4g} per 1,000 questions"
    yield f"The planner makes {bill}, so moving it saves at most ${found.planner_cost:.4g} of it."


def _on_student(found: Findings) -> Iterator[str]:
    moved, who = found.moved, f"With {found.student} as planner, the difference from the teacher is"
    if moved is None:
        return
    if moved.low > -found.margin:
        yield f"{who} {moved}: no worse by {100 * found.margin:.0f} points, so the plan can be moved."
    elif moved.high < 0:
        yield f"{who} {moved}: that is what training has to make up for."
    else:
        yield f"{who} {moved}: whether the plan can be moved isn't settled."


def which_half(both: Difference | None, planner: str | None, solver: str | None, trained: bool) -> str:
    """Which half to distil, as a sentence.

    Args:
        both: The student as planner minus the student as solver; None where one of the two has no score.
        planner: The share of the teacher's accuracy that is kept with the student as planner, in words; None where
            the teacher has nothing right.
        solver: The same with the student as solver.
        trained: Whether the students were trained, or the base was asked untrained.
    """
    if both is None:
        return "Which half to distil isn't settled: the student has no score as planner or as solver."
    who = "Small students keep" if trained else "The untrained base keeps"
    kept = (
        f" {who} {planner} of the teacher's accuracy as planner and {solver} as solver." if planner and solver else ""
    )
    if both.low > 0:
        return f"Distil the planner rather than the solver: {both}.{kept}"
    if both.high < 0:
        return f"Distil the solver rather than the planner: {both}.{kept}"
    more = f" About {both.to_settle:,} questions would settle it." if both.to_settle else ""
    return f"Which half to distil isn't settled: {both}.{more}{kept}"


def next_commands(found: Mapping[str, Any], given: str, asked: int | None = None, both: bool = False) -> list[str]:
    """The commands that come next.

    Args:
        found: The content of `precheck.json`.
        given: The file, and the options that every command takes.
        asked: The number of questions that were asked for; None for the default.
        both: Whether two small students were trained.
    """
    few = "" if asked is None else f" --questions {asked}"
    trained = " --both" if both else ""
    if found["verdict"] is None:
        return [f"divcon precheck {given}{few}{trained}"]
    if found["verdict"] == "worth it":
        return [f"divcon run {given} --dry-run", f"divcon run {given}"]
    if found["verdict"] == "not worth it":
        return [f"divcon precheck {given}{few}{trained} --set roles.solver.model=ANOTHER"]
    commands = []
    needed = found["split"]["to_settle"]
    if needed and found["questions"] < found["training_questions"]:
        commands.append(f"divcon precheck {given} --questions {min(needed, found['training_questions'])}{trained}")
    if found["half"]["planner"] == UNTUNED.name:
        commands.append(f"divcon precheck {given}{few} --both")
    return commands
