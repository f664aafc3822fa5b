"""The sections of a pipeline file, and the file as a whole.

The file holds no secrets, only the names of the environment variables that hold them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, field_validator, model_validator

from divcon.benchmarks import MAX_FAILED, RowFields
from divcon.benchmarks.arms import ARMS, CHAIN_OF_THOUGHT, DIRECT, SELF_ASK, TEACHER, UNTUNED, own_arms, read_arm
from divcon.benchmarks.tasks import Task
from divcon.config._program import Program
from divcon.config._roles import Roles, Section
from divcon.distill import (
    OPTIMIZERS,
    RECORDED,
    RULES,
    SOLVER_STUDENTS,
    Choices,
    Limits,
    Student,
    TrainSettings,
    UnknownName,
    find_student,
    students_of,
)
from divcon.distill._paths import Address, Arguments, WrittenPath
from divcon.distill.executors import Execution


class Compile(Section):
    """How the teacher's prompt is optimized.

    Attributes:
        optimizer: `none` or `bootstrap` (BootstrapFewShot), or another DSPy teleprompter by class name.
        examples: The number of training questions that it gets.
        arguments: Arguments of the teleprompter.
    """

    optimizer: Annotated[str, Choices(lambda: ("none", "bootstrap", *OPTIMIZERS), more=False)] = "none"
    examples: int = Field(20, ge=1)
    arguments: Arguments = Field(default_factory=dict)


class Collect(Section):
    """How the teacher is asked for decompositions.

    Attributes:
        samples: Decompositions of each training question.
        temperature: The sampling temperature for several samples; a single sample has the teacher's own.
        concurrency: The largest number of requests at a time.
        max_failed: The share of calls that may fail without ending the run, such as questions that a provider always
            refuses. They are asked again by each run.
    """

    samples: int = Field(1, ge=1)
    temperature: float | None = Field(0.7, ge=0)
    concurrency: int = Field(16, ge=1)
    max_failed: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _samples_differ(self) -> Collect:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several samples at temperature 0 are one sample; raise temperature")
        return self


RuleName = Annotated[str, AfterValidator(RULES.known), Choices(lambda: RULES.own)]


class Screen(Section):
    """Which decompositions are kept.

    Attributes:
        rule: The screening rule: `none` gives the paper's SD-T, `oracle` its SD-R. `recorded` keeps the plans of a
            recorded teacher that led to a right answer where they were written. With a list of rules, a student is
            trained for each.
        samples: The number of solver samples of the rule `oracle`; one right answer is enough.
        keep_whole: Keep replies that say that no decomposition helps. Off by default, since a student that learns such
            replies too often stops decomposing.
        temperature: The sampling temperature of the solver's samples after the first.
        concurrency: The largest number of requests at a time.
        max_failed: The share of decompositions that may stay unjudged, because calls failed, without ending the run.
    """

    rule: RuleName | list[RuleName] = "oracle"
    samples: int = Field(2, ge=1)
    temperature: float | None = Field(0.7, ge=0)
    keep_whole: bool = False
    concurrency: int = Field(64, ge=1)
    max_failed: float = Field(0.0, ge=0, le=1)

    @property
    def rules(self) -> list[str]:
        return [self.rule] if isinstance(self.rule, str) else list(dict.fromkeys(self.rule))


def _known_arm(name: str) -> str:
    try:
        read_arm(name)
    except UnknownName as error:
        raise ValueError(error.brief) from error
    return name


def _once(names: list[str]) -> list[str]:
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"{twice} is named twice")
    return names


ArmName = Annotated[str, AfterValidator(_known_arm), Choices(own_arms)]


class RecordedArm(Section):
    """A program that ran elsewhere: the plan and the reply of each question.

    Attributes:
        path: The file: JSON Lines or one JSON array, which may be packed (`.gz`).
        label: The name in reports; the arm's name by default.
        fields: The names of the file's fields.
    """

    path: WrittenPath
    label: str | None = Field(None, min_length=1)
    fields: RowFields = RowFields()

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value


RecordedName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]


class Evaluate(Section):
    """What is measured.

    Attributes:
        arms: The arms, in the order of the table. By default `direct`, `cot`, `teacher`, `untuned` and the students of
            screen.rule. Others are `references`, `self-ask`, the students of the solver (`se-t`, `se-a`,
            `se-t-direct`, `se-a-direct`), which are trained where they are listed here, and `se-untuned`, their
            untrained base. A suffix names another way of solving, as in `teacher/dag`. With an empty list, the recorded
            arms alone are measured, no student is trained, and no model of `roles` is used.
        recorded: Programs that ran elsewhere, by a name of your choice; each is a file, or a section with `path`,
            `label` and `fields`. They are graded and compared beside the arms.
        grader: `strict`, or `paper` for the lenient graders of the paper's code, for comparison with its figures only.
            Screening uses the same grader.
        concurrency: The largest number of questions at a time.
        resamples: The number of resamples of the paired bootstrap.
        max_failed: The largest share of questions that may fail, from 0 to 1. Where more of an arm's answers failed, it
            has no score, and is neither compared nor advised.
    """

    arms: Annotated[list[ArmName], AfterValidator(_once)] | None = None
    recorded: dict[RecordedName, RecordedArm] = Field(default_factory=dict)
    grader: Literal["strict", "paper"] = "strict"
    concurrency: int = Field(64, ge=1)
    resamples: int = Field(10_000, ge=100)
    max_failed: float = Field(MAX_FAILED, ge=0, le=1)


class Costs(Section):
    """Costs besides the prices of tokens.

    Attributes:
        training_hour: US dollars per hour of the machine that trains. Without it, the break-even point is unknown.
    """

    training_hour: float | None = Field(None, ge=0)


Station = Literal["compile", "collect", "screen", "evaluate"]


class BudgetLimits(Limits):
    """What a run may use, and its stations. The limits are checked before each call, with the most that it can use.

    Attributes:
        stations: The limits of single stations: `compile`, `collect`, `screen` or `evaluate`.
    """

    stations: dict[Station, Limits] = Field(default_factory=dict)

    @property
    def limits_dollars(self) -> bool:
        """Whether money is limited anywhere."""
        return any(limits.usd is not None for limits in (self, *self.stations.values()))


class Tracking(Section):
    """Where results are written besides the run folder.

    Attributes:
        mlflow: MLflow's tracking address: a server's, or `file:` and a folder. Credentials come from the environment.
        experiment: The MLflow experiment.
    """

    mlflow: Address
    experiment: str = "divcon"

    @field_validator("mlflow")
    @classmethod
    def _without_secrets(cls, uri: str) -> str:
        parts = urlsplit(uri)
        if parts.username or parts.password:
            raise ValueError("tracking.mlflow holds a user; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        return uri


class Sections(Section):
    """The sections that a pipeline file and an experiment file share.

    Attributes:
        roles: The models of the teacher, the decomposer and the solver.
        program: The two-stage program.
        compile: How the teacher's prompt is optimized.
        collect: How the teacher is asked for decompositions.
        screen: Which decompositions are kept.
        train: How students are trained.
        evaluate: What is measured.
        costs: Costs besides the prices of tokens.
        budget: What the run may use.
        run: Where jobs are done.
        tracking: Where results are written besides the run folder.
    """

    roles: Roles
    program: Program = Program()
    compile: Compile = Compile()
    collect: Collect = Collect()
    screen: Screen = Screen()
    train: TrainSettings = TrainSettings()
    evaluate: Evaluate = Evaluate()
    costs: Costs = Costs()
    budget: BudgetLimits = BudgetLimits()
    run: Execution = Execution()
    tracking: Tracking | None = None

    @property
    def prices(self) -> dict[str, dict[str, float]]:
        """The prices in the file: US dollars per million tokens, by role."""
        roles = self.roles
        given = {"teacher": roles.teacher.price, "decomposer": roles.decomposer.price, "solver": roles.solver.price}
        return {role: price.model_dump(exclude_none=True) for role, price in given.items() if price}

    @property
    def unpaid(self) -> frozenset[str]:
        """Roles whose calls ask nobody: those of a recorded teacher, whose price is what its plans have cost."""
        return frozenset({"teacher"} if self.roles.teacher.recorded else ())

    def price_of(self, role: str, model: str) -> dict[str, float] | None:
        """The price in the file of a role's calls; see `PriceOf`.

        A role's calls may be of other models than the one that the file names: of students that stand in for it, of an
        experiment's other teachers and solvers, or of a model that an earlier file named. These cost what was stored.

        Args:
            role: The role.
            model: The model that was asked, by its stored name.
        """
        named = {"teacher": self.roles.teacher, "solver": self.roles.solver}.get(role)
        if named is not None and not named.stored_as(model):
            return None
        if named is None and model.startswith(("scripted/", "recorded/")):
            return None
        return self.prices.get(role)


class Pipeline(Sections):
    """A whole pipeline file.

    Attributes:
        task: Where the questions come from.
    """

    task: Task

    @model_validator(mode="after")
    def _sections_fit(self) -> Pipeline:
        wrong = [*self._about_whole(), *self._about_turns(), *self._about_students(), *self._about_recorded()]
        if len(wrong) == 1:
            raise ValueError(wrong[0])
        if wrong:
            raise ValueError(f"{len(wrong)} things don't fit together:" + "".join(f"\n  - {one}" for one in wrong))
        return self

    def _about_whole(self) -> Iterator[str]:
        if self.screen.keep_whole and not self.program.allow_whole:
            yield "screen.keep_whole needs program.allow_whole: true"

    def _about_turns(self) -> Iterator[str]:
        roles, optimizer = self.roles, self.compile.optimizer
        if roles.servers == "together":
            return
        if self.run.executor != "threads":
            yield "roles.servers: turns is for run.executor: threads; other workers load what they are sent"
        one, other = roles.teacher.own, roles.solver.own
        if one is None or other is None or one == other:
            return
        both = [f"the optimizer {optimizer}"] if optimizer not in ("none", "LabeledFewShot") else []
        both += [f"the arm {arm}" for arm in self.arms if read_arm(arm)[0] == SELF_ASK]
        if both:
            yield (
                f"{both[0]} asks teacher and solver in turn for each question, and roles.servers: turns would load "
                "them each time; write servers: together, or leave it out"
            )

    def _about_students(self) -> Iterator[str]:
        names = [student.name for student in self.decomposer_students]
        for name in dict.fromkeys(names):
            if names.count(name) > 1 or name in ARMS:
                other = "an arm" if name in ARMS else "another rule's student"
                yield f"a rule's student is called {name}, as is {other}; take one rule of the two"
        for arm in self.evaluate.arms or []:
            student = read_arm(arm)[0].student
            if student is not None and student.rule is not None and student.name not in names:
                yield f"the arm {arm} needs a student of rule '{student.rule}'; add it to screen.rule"

    def _about_recorded(self) -> Iterator[str]:
        for name in self.evaluate.recorded:
            if name in ARMS or find_student(name) is not None:
                yield f"the recorded arm {name} is called like an arm of divcon's; name it otherwise"
        if not (self.task.train or self.only_recorded):
            yield "task.train is 0, which is for recorded arms alone (evaluate.arms: []); raise it"
        if not self.roles.teacher.recorded:
            if RECORDED in self.screen.rules and self.arms:
                yield "the rule recorded needs a recorded teacher; set roles.teacher.model to recorded"
            return
        if self.compile.optimizer != "none":
            yield "compile.optimizer changes a prompt that a recorded teacher never gets; set it to none"
        if SELF_ASK.name in self.arms:
            yield "self-ask asks for one subquestion after the other, and a recorded plan is a whole list"

    @property
    def only_recorded(self) -> bool:
        """Whether recorded arms alone are measured."""
        return bool(self.evaluate.recorded) and self.evaluate.arms == []

    @property
    def arms(self) -> list[str]:
        """The arms that are measured, in the order of the table, without the recorded ones."""
        if self.evaluate.arms or self.only_recorded:
            return list(self.evaluate.arms or [])
        ours = (DIRECT, CHAIN_OF_THOUGHT, TEACHER, UNTUNED)
        return [*(kind.name for kind in ours), *(student.name for student in self.decomposer_students)]

    @property
    def students(self) -> list[Student]:
        """All students that are trained, of the decomposer and of the solver."""
        return [*self.decomposer_students, *self.solver_students]

    @property
    def decomposer_students(self) -> list[Student]:
        """The students of the decomposer, one for every rule and training method; none for recorded arms alone."""
        if self.only_recorded:
            return []
        return students_of(self.screen.rules, self.train.methods)

    @property
    def solver_students(self) -> list[Student]:
        """The students of the solver that an arm needs."""
        asked = {read_arm(arm)[0].name for arm in self.arms}
        return [student for name, student in SOLVER_STUDENTS.items() if name in asked]
