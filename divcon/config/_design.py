"""The experiment file: a design, which says what varies between the cells, and the sections of a pipeline file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from divcon.benchmarks.tasks import TASKS, Task
from divcon.config._program import CAP
from divcon.config._roles import Endpoint, Section
from divcon.config._sections import ArmName, Pipeline, Sections

Kind = Literal["main", "transfer", "solvers", "dynamic", "multitask", "depth", "curve", "cap"]
_NAMES_FOLDERS = r"[a-z0-9][a-z0-9_.-]*"


_DEFAULT_ARMS: dict[str, list[str]] = {
    "main": ["direct", "cot", "teacher", "references", "untuned", "sd-t", "sd-r", "se-untuned", "se-t", "se-a"],
    "transfer": ["cot", "teacher", "untuned", "sd-r", "se-a"],
    "solvers": ["direct", "cot", "teacher", "untuned", "sd-r"],
    "dynamic": ["direct", "cot", "teacher", "teacher/stepwise", "self-ask"],
    "multitask": ["cot", "teacher", "untuned", "sd-r"],
    "depth": ["direct", "cot", "teacher", "untuned", "sd-r", "se-a"],
    "curve": ["cot", "teacher", "sd-r", "se-t", "se-a"],
    "cap": ["cot", "teacher", "sd-r"],
}
_FEW_SHOT = ("none", "bootstrap", "BootstrapFewShot", "BootstrapFewShotWithRandomSearch", "LabeledFewShot")


class Design(Section):
    """The design of an experiment: what it varies, and what it measures.

    Attributes:
        kind: `main` (the paper's table), `transfer` (train on one task, test on another), `solvers` (one decomposer
            under several solvers), `dynamic` (static against dynamic), `multitask` (one decomposer for all tasks
            against one each), `depth` (by the number of steps needed), `curve` (over the number of training
            questions), `cap` (over the number of subquestions allowed).
        tasks: The tasks, by a name of your choice; each is written as `task` in a pipeline file, without seeds.
        seeds: A student is trained for each seed, which draws the training questions and seeds the training. The test
            questions are the same for all seeds.
        folds: Split the questions of each task into so many parts, and test each part with students that were trained
            on the others, so that every question is a test question once. `task.test` is then the number of questions
            in all parts, and `task.train` the number drawn from the other parts; both are lowered to what is there.
            Write `test: 100%` and `train: all` for all questions.
        teachers: The teachers of single tasks, by task, where they aren't `roles.teacher`.
        arms: The arms that are measured; each kind has a default.
        questions: For `curve`, the sizes of the training set.
        solvers: For `solvers`, the solvers, by a name of your choice; students are trained with `roles.solver`.
        caps: For `cap`, the values of `program.max_subquestions`.
    """

    kind: Kind
    tasks: dict[Annotated[str, Field(pattern=f"^{_NAMES_FOLDERS}$")], Task] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    folds: Annotated[int, Field(ge=2)] | None = None
    teachers: dict[str, Endpoint] = Field(default={})
    arms: list[ArmName] | None = None
    questions: list[Annotated[int, Field(ge=1)]] | None = None
    solvers: dict[Annotated[str, Field(pattern=f"^{_NAMES_FOLDERS}$")], Endpoint] | None = None
    caps: list[Annotated[int, Field(ge=1)]] | None = None

    @model_validator(mode="after")
    def _complete(self) -> Design:
        for key, kind in (("questions", "curve"), ("solvers", "solvers"), ("caps", "cap")):
            if bool(getattr(self, key)) != (self.kind == kind):
                verb = "needs" if self.kind == kind else "doesn't take"
                raise ValueError(f"the experiment {self.kind} {verb} {key}")
        if self.kind in ("transfer", "multitask") and len(self.tasks) < 2:
            raise ValueError(f"the experiment {self.kind} needs two tasks or more")
        for name, task in self.tasks.items():
            if task.train_seed is not None:
                raise ValueError(f"the task {name} has a train_seed; write an experiment's seeds in experiment.seeds")
        if unknown := set(self.teachers) - set(self.tasks):
            raise ValueError(f"experiment.teachers names {min(unknown)}, which isn't one of {', '.join(self.tasks)}")
        if self.teachers and self.kind == "multitask":
            raise ValueError("the experiment multitask takes one teacher for all tasks, in roles.teacher")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is listed twice")
        if self.folds is not None:
            self._require_one_set_each()
        return self

    def _require_one_set_each(self) -> None:
        """Refuse folds where they have no meaning: each task's questions have to be one given set."""
        if self.kind in ("curve", "cap"):
            raise ValueError(f"the experiment {self.kind} doesn't take folds")
        generated = [name for name, task in self.tasks.items() if TASKS[task.name].draw is not None]
        apart = [name for name, task in self.tasks.items() if task.test_path or task.test_split]
        reasons = {"generates its questions": generated, "has test questions apart (test_path or test_split)": apart}
        told = "; ".join(f"{name} {reason}" for reason, names in reasons.items() for name in names)
        if told:
            raise ValueError(f"experiment.folds splits one set of questions for each task, and {told}")

    @property
    def measured(self) -> list[str]:
        """The arms that are measured: `arms`, or the kind's default."""
        return list(self.arms or _DEFAULT_ARMS[self.kind])

    @property
    def solver_changes(self) -> dict[str, dict[str, Any]]:
        """The changes that `Experiment.pipeline` needs for each of `solvers`."""
        return {
            name: {"roles__solver": one.model_dump(exclude_unset=True)} for name, one in (self.solvers or {}).items()
        }


class Experiment(Sections):
    """A whole experiment file: a design, and the pipeline's sections except `task` and `evaluate.arms`.

    Attributes:
        experiment: The design.
    """

    experiment: Design

    @model_validator(mode="after")
    def _arms_stand_in_the_design(self) -> Experiment:
        if self.evaluate.arms:
            raise ValueError("write an experiment's arms in experiment.arms, not in evaluate.arms")
        if self.evaluate.recorded:
            raise ValueError("an experiment takes no evaluate.recorded; measure recorded arms in a pipeline file")
        return self

    @model_validator(mode="after")
    def _every_cell_is_a_pipeline(self) -> Experiment:
        design = self.experiment
        if design.kind in ("transfer", "multitask") and self.compile.optimizer not in _FEW_SHOT:
            raise ValueError(
                f"compile.optimizer {self.compile.optimizer} writes an instruction for each task, and a student of one "
                f"task answers no other's; {design.kind} takes {', '.join(_FEW_SHOT)}"
            )
        if design.kind == "cap" and self.program.instruction is not None and CAP not in self.program.instruction:
            raise ValueError(f"the experiment cap needs {CAP} in program.instruction, where the number goes")
        for task in design.tasks:
            for change in ({}, *design.solver_changes.values()):
                try:
                    self.pipeline(task, design.seeds[0], design.measured, **change)
                except ValidationError as error:
                    message = error.errors()[0]["msg"].removeprefix("Value error, ")
                    raise ValueError(f"task {task}: {message}") from error
        return self

    def pipeline(self, task: str, seed: int, arms: Sequence[str], **changes: Any) -> Pipeline:
        """The pipeline of one cell.

        Args:
            task: The task's name in the design.
            seed: One of the design's seeds.
            arms: The arms that it measures.
            changes: Other values, as in `--set` but with `__` for the dot: `program__max_subquestions=2`.
        """
        tree = self.model_dump(exclude={"experiment"}, exclude_unset=True)
        given = self.experiment.tasks[task].model_dump(exclude_unset=True)
        values = {f"task__{key}": value for key, value in given.items()}
        if task in self.experiment.teachers:
            values["roles__teacher"] = self.experiment.teachers[task].model_dump(exclude_unset=True)
        values |= {"task__train_seed": seed, "train__seed": seed, "evaluate__arms": list(arms), **changes}
        for key, value in values.items():
            *parents, last = key.split("__")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
        return Pipeline.model_validate(tree)
