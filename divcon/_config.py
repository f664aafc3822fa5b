"""The pipeline file: one YAML file that declares a run, validated on load.

Every error names the key, the line and the remedy. Secrets never stand in the file, only the names of the
environment variables that hold them.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from divcon.benchmarks.tasks import FAMILIES
from divcon.distill import SOLVER_STUDENTS, TrainSettings
from divcon.distill._table import UnknownName
from divcon.distill.serving import ENGINES, AdapterMode, AnyServerSettings
from divcon.distill.serving.embedded import WantedPrecision
from divcon.programs import Solving
from divcon.signatures import DEFAULT_MAX_SUBQUESTIONS, DivconError


class ConfigError(DivconError):
    """A pipeline file that can't be read or doesn't make sense."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Price(_Strict):
    """US dollars per million tokens.

    Attributes:
        cached: For input tokens that the provider read from its cache; as `input` where it isn't given.
    """

    input: float = Field(ge=0)
    output: float = Field(ge=0)
    cached: float | None = Field(None, ge=0)


class Faults(_Strict):
    """How often a scripted teacher errs, each as a share of its replies."""

    missing_step: float = Field(0.0, ge=0, le=1)
    restated_fact: float = Field(0.0, ge=0, le=1)
    wrong_order: float = Field(0.0, ge=0, le=1)
    too_many: float = Field(0.0, ge=0, le=1)
    cut_off: float = Field(0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _at_most_all(self) -> Faults:
        if sum(self.model_dump().values()) > 1:
            raise ValueError("the shares of all faults add up to more than 1")
        return self


EMBEDDED = ("base", "solver", "wide-solver")


class Endpoint(_Strict):
    """A model that is asked: over HTTP by LiteLLM's naming, `embedded/...` in this process, or `scripted/references`.

    Attributes:
        model: `openai/gpt-5-mini`, `hosted_vllm/NAME`, `embedded/solver`, `embedded/wide-solver`, `embedded/base`,
            `scripted/references`.
        api_base: The server's address, needed for `hosted_vllm/`.
        api_key_env: The environment variable that holds the key; the provider's usual one by default.
        engine: `auto` (DSPy's native client where it can) or `litellm`.
        price: Where known. An unknown price is reported as unknown, never as zero.
        adapter: `compact`, or `chat` for a model that is used to DSPy's ChatAdapter.
        retries: How often a request that failed is sent again at most.
        timeout: Seconds that a server may be silent between two tokens of a reply. However long a reply takes, it is
            waited for while tokens come.
        first_token: Seconds until a reply's first token, the time in a busy server's queue included. A server that
            can't stream has to give the whole reply by then.
        longest: Seconds that one reply may take in all.
        faults: Of a scripted teacher.
    """

    model: str
    api_base: str | None = None
    api_key_env: str | None = None
    engine: Literal["auto", "litellm"] = "auto"
    price: Price | None = None
    temperature: float | None = Field(None, ge=0)
    max_tokens: int | None = Field(None, ge=1)
    retries: int = Field(4, ge=0)
    timeout: float = Field(120.0, gt=0)
    first_token: float = Field(600.0, gt=0)
    longest: float = Field(3600.0, gt=0)
    adapter: Literal["compact", "chat"] = "compact"
    faults: Faults | None = None

    @field_validator("model")
    @classmethod
    def _known_prefix(cls, model: str) -> str:
        prefix, slash, name = model.partition("/")
        if not slash or not name:
            raise ValueError(f"'{model}' has no provider; write openai/NAME, hosted_vllm/NAME or embedded/solver")
        if prefix == "vllm":
            raise ValueError(f"'vllm/' would load the model inside this process; write hosted_vllm/{name} and api_base")
        if prefix == "embedded" and name not in EMBEDDED:
            raise ValueError(f"there is no '{model}'; write embedded/ and one of {', '.join(EMBEDDED)}")
        if prefix == "scripted" and name != "references":
            raise ValueError(f"there is no '{model}'; write scripted/references")
        return model

    @model_validator(mode="after")
    def _reachable(self) -> Endpoint:
        if self.model.startswith("hosted_vllm/") and not self.api_base:
            raise ValueError(f"{self.model} needs api_base, such as http://127.0.0.1:8000/v1")
        if self.faults and not self.scripted:
            raise ValueError("only a scripted teacher has faults")
        if self.api_base:
            parts = urlsplit(self.api_base)
            if parts.username or parts.password or parts.query:
                raise ValueError("api_base holds a user or a query, where secrets stand; give the address alone")
        return self

    @property
    def scripted(self) -> bool:
        return self.model.startswith("scripted/")

    @property
    def embedded(self) -> bool:
        return self.model.startswith("embedded/")


class Student(_Strict):
    """The model that becomes the decomposer.

    Attributes:
        base: `embedded`, a folder, or a hub name.
        serve: What it runs on, by its name in the table of serving engines: `embedded` is in this process, `vllm` a
            server on loopback or a running one.
        adapter: How a server serves a trained adapter: `lora` (unmerged), `merged` into a copy of the base, or `auto`.
        server: The server.
        guided: Have the server write nothing but a numbered list of questions. For a small untuned model.
        price: What serving it costs, per million tokens; free by default where it runs in this process.
    """

    base: str = "embedded"
    serve: str = "embedded"
    adapter: AdapterMode = "auto"
    server: AnyServerSettings | None = None
    guided: bool = False
    temperature: float = Field(0.0, ge=0)
    max_tokens: int = Field(128, ge=1)
    price: Price | None = None

    @field_validator("serve")
    @classmethod
    def _known_engine(cls, serve: str) -> str:
        try:
            ENGINES[serve]
        except UnknownName as error:
            raise ValueError(str(error)) from error
        return serve

    @field_validator("server", mode="before")
    @classmethod
    def _settings_of_the_engine(cls, server: Any, known: ValidationInfo) -> Any:
        if server is None or "serve" not in known.data:
            return server
        given = server.model_dump(exclude_unset=True) if isinstance(server, BaseModel) else server
        return ENGINES[known.data["serve"]].settings.model_validate(given)

    @model_validator(mode="after")
    def _taken_by_the_engine(self) -> Student:
        engine = ENGINES[self.serve]
        for key, given in (("server", self.server), ("adapter", self.adapter != "auto"), ("guided", self.guided)):
            if given and key not in engine.takes:
                others = " or ".join(name for name, other in ENGINES.items() if key in other.takes)
                raise ValueError(f"{key} is for 'serve: {others}', and this student is served {engine.where}")
        return self


class Roles(_Strict):
    """Who does what.

    Attributes:
        precision: What models on this machine compute in: the embedded engine, and a vLLM server that is started.
            `auto` is bfloat16 where the processor is fast in it, else float32. It decides replies.
    """

    teacher: Endpoint
    decomposer: Student = Student()
    solver: Endpoint
    precision: WantedPrecision = "auto"

    @model_validator(mode="after")
    def _one_precision(self) -> Roles:
        server = self.decomposer.server
        if self.precision != "auto" and server is not None and "dtype" in server.arguments:
            raise ValueError("precision is given, and decomposer.server.arguments has dtype; write one of them")
        return self

    @field_validator("solver")
    @classmethod
    def _solver_solves(cls, solver: Endpoint) -> Endpoint:
        if solver.scripted:
            raise ValueError("a scripted teacher only decomposes; the solver needs a model")
        return solver


class Task(_Strict):
    """Where the questions come from.

    Attributes:
        name: `word-problems`, `passage-hops`, `schedules`, `unit-conversion` or `deduction`, which are generated, or
            `offline`, the first two of them; `reasoning-gym`, which its package generates; `gsm8k`, `drop`,
            `bamboogle`, `musique`, `hotpotqa`, `strategyqa`, `svamp`, `multiarith` or `bbh`; or `jsonl`, your own.
        path: A file; for `bbh` also a folder of files. Training and test questions are drawn from it.
        test_path: A file of test questions, where they have one of their own; `path` holds training questions then.
        hub: A data set's hub name, instead of a path; training and test questions are drawn from all its splits.
        test_split: The hub's split with the test questions; the others hold training questions then.
        subtask: Of `bbh`, all of the folder without it; for `reasoning-gym` the data set's name.
        train: Questions to collect on.
        test: Held-out questions to evaluate on.
        seed: Of what is drawn, and where train and test part.
        train_seed: Of the training questions alone, so that several seeds share a test set; `seed` without it.
        percent: Whether answers are shares: "12 %" and "0.12" are the same then. Otherwise the sign says nothing.
        overlap: What to do with training questions that stand in the test set too, whole or in a run of 13 words:
            `refuse` the run, or `drop` them. `same` refuses equal questions only, for data made from one template.
    """

    name: Literal[
        "offline", "word-problems", "passage-hops", "schedules", "unit-conversion", "deduction", "reasoning-gym",
        "gsm8k", "drop", "bamboogle", "musique", "hotpotqa", "strategyqa", "svamp", "multiarith", "bbh", "jsonl",
    ]  # fmt: skip
    path: Path | None = None
    test_path: Path | None = None
    hub: str | None = None
    test_split: str | None = None
    subtask: str | None = None
    train: int = Field(ge=1)
    test: int = Field(ge=1)
    seed: int = 0
    train_seed: int | None = None
    percent: bool = False
    overlap: Literal["refuse", "drop", "same"] = "refuse"

    @model_validator(mode="after")
    def _has_source(self) -> Task:
        if self.name == "reasoning-gym" and not self.subtask:
            raise ValueError("the task reasoning-gym needs subtask (the name of one of its data sets)")
        if self.name not in ("offline", "reasoning-gym", *FAMILIES) and not (self.path or self.hub):
            raise ValueError(f"the task {self.name} needs path (a file) or hub (a data set's name)")
        if self.test_path and not self.path:
            raise ValueError("task.test_path goes with task.path (the training questions)")
        if self.test_split and not self.hub:
            raise ValueError("task.test_split goes with task.hub (a data set's name)")
        return self

    @property
    def training_seed(self) -> int:
        return self.seed if self.train_seed is None else self.train_seed


class Program(_Strict):
    """The two-stage program.

    Attributes:
        solving: `single_call`, `direct`, `stepwise` or `dag`.
        max_subquestions: The cap that the decomposer is told, and that lists are cut to.
        allow_whole: Offer the decomposer to write that no split helps. Off by default: small models take that way out
            of every question.
        salvage: Use what stands whole of a list that repeats itself or is cut off, rather than ask the question whole.
            Training rows are never made of such lists.
        reask: How often the solver is asked for the last line of a reply whose answer can't be read, paid and counted.
    """

    solving: Solving = "single_call"
    max_subquestions: int = Field(DEFAULT_MAX_SUBQUESTIONS, ge=1)
    allow_whole: bool = False
    salvage: bool = True
    reask: int = Field(1, ge=0, le=1)


class Compile(_Strict):
    """How the teacher's prompt is optimized.

    Attributes:
        optimizer: `none` or `bootstrap` (BootstrapFewShot), or another DSPy teleprompter by class name.
        examples: Training questions it may look at.
        arguments: Passed to the teleprompter.
    """

    optimizer: str = "none"
    examples: int = Field(20, ge=1)
    arguments: dict[str, Any] = Field(default_factory=dict)


class Collect(_Strict):
    samples: int = Field(1, ge=1)
    temperature: float | None = Field(0.7, ge=0)
    concurrency: int = Field(16, ge=1)

    @model_validator(mode="after")
    def _samples_differ(self) -> Collect:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("several samples at temperature 0 are one sample; raise temperature")
        return self


Rule = Literal["none", "oracle"]


class Screen(_Strict):
    """Which decompositions are kept.

    Attributes:
        rule: `none` gives the paper's SD-T, `oracle` its SD-R; a list trains a student for each.
        samples: Solver samples of the oracle; one right is enough.
        keep_whole: Keep replies that say no split helps. Off by default: a student that learns to say it too often
            stops decomposing.
    """

    rule: Rule | list[Rule] = "oracle"
    samples: int = Field(2, ge=1)
    temperature: float | None = Field(0.7, ge=0)
    keep_whole: bool = False
    concurrency: int = Field(64, ge=1)

    @property
    def rules(self) -> list[Rule]:
        return [self.rule] if isinstance(self.rule, str) else list(dict.fromkeys(self.rule))


STUDENTS = {"none": "sd-t", "oracle": "sd-r"}  # by the rule that screens what they learn from
SINGLE = ("direct", "cot")  # programs that don't split
PLANNED = ("teacher", "references", "untuned", "sd-t", "sd-r")  # may be solved in other ways: sd-r/dag
WAYS = tuple(way for way in get_args(Solving) if way != "single_call")
TRAINED = (*STUDENTS.values(), *SOLVER_STUDENTS)  # programs with a student that was trained
SOLVING = (*SOLVER_STUDENTS, "se-untuned")  # the teacher splits, and the student's base solves, trained or not
ARMS = (*SINGLE, *PLANNED, *SOLVING, "self-ask")


def _known_arm(name: str) -> str:
    base, slash, way = name.partition("/")
    if base not in ARMS:
        near = difflib.get_close_matches(base, ARMS, 1)
        hint = f"did you mean {near[0]}" if near else f"there are {', '.join(ARMS)}"
        raise ValueError(f"there is no arm '{name}'; {hint}")
    if slash and (base not in PLANNED or way not in WAYS):
        raise ValueError(f"there is no arm '{name}'; {', '.join(PLANNED)} may be followed by /{', /'.join(WAYS)}")
    return name


Arm = Annotated[str, AfterValidator(_known_arm)]


class Evaluate(_Strict):
    """What is measured.

    Attributes:
        arms: In the order of the table; by default direct, cot, teacher, untuned and the students that screen.rule
            gives. More are `references`, `self-ask` and the students of the solver: `se-t`, `se-a`, `se-t-direct`,
            `se-a-direct`, which are trained where they stand here, and `se-untuned`, what they were before.
            `teacher/dag` is the teacher's arm solved as a graph, and so on.
        grader: `strict`, or `paper` for the lenient graders of the paper's code, for comparison with its figures only;
            screening goes by it too.
        resamples: Of the paired bootstrap.
    """

    arms: list[Arm] | None = None
    grader: Literal["strict", "paper"] = "strict"
    concurrency: int = Field(64, ge=1)
    resamples: int = Field(10_000, ge=100)


class Costs(_Strict):
    """What isn't in the price of a token.

    Attributes:
        training_hour: US dollars an hour of the machine that trains, for the break-even; unknown without it.
    """

    training_hour: float | None = Field(None, ge=0)


class Tracking(_Strict):
    """Where results go besides the folder.

    Attributes:
        mlflow: MLflow's tracking address: a server's, or `file:` and a folder. Credentials come from the environment.
        experiment: The MLflow experiment.
    """

    mlflow: str
    experiment: str = "divcon"

    @field_validator("mlflow")
    @classmethod
    def _without_secrets(cls, uri: str) -> str:
        parts = urlsplit(uri)
        if parts.username or parts.password:
            raise ValueError("tracking.mlflow holds a user; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD")
        return uri


class Pipeline(_Strict):
    """A whole pipeline file."""

    task: Task
    roles: Roles
    program: Program = Program()
    compile: Compile = Compile()
    collect: Collect = Collect()
    screen: Screen = Screen()
    train: TrainSettings = TrainSettings()
    evaluate: Evaluate = Evaluate()
    costs: Costs = Costs()
    tracking: Tracking | None = None

    @model_validator(mode="after")
    def _whole_is_offered(self) -> Pipeline:
        if self.screen.keep_whole and not self.program.allow_whole:
            raise ValueError("screen.keep_whole keeps what is only offered with program.allow_whole: true")
        return self

    @model_validator(mode="after")
    def _arms_have_students(self) -> Pipeline:
        named = {arm.partition("/")[0] for arm in self.evaluate.arms or []}
        for rule, arm in STUDENTS.items():
            if arm in named and rule not in self.screen.rules:
                raise ValueError(f"the arm {arm} needs a student of rule '{rule}'; add it to screen.rule")
        return self

    @property
    def arms(self) -> list[str]:
        if self.evaluate.arms:
            return list(self.evaluate.arms)
        return ["direct", "cot", "teacher", "untuned", *(STUDENTS[rule] for rule in self.screen.rules)]

    @property
    def students(self) -> list[str]:
        """All that are trained: those of the decomposer, and of the solver."""
        return [*(STUDENTS[rule] for rule in self.screen.rules), *self.solver_students]

    @property
    def solver_students(self) -> list[str]:
        """The students of the solver that an arm asks for."""
        return [name for name in SOLVER_STUDENTS if name in self.arms]


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


class Design(_Strict):
    """What an experiment varies.

    Attributes:
        kind: `main` (the paper's table), `transfer` (train on one task, test on another), `solvers` (one decomposer
            under several solvers), `dynamic` (static against dynamic), `multitask` (one decomposer for all tasks
            against one each), `depth` (by the number of steps needed), `curve` (over the number of training
            questions), `cap` (over the number of subquestions allowed).
        tasks: By a name of your choice; each as `task` in a pipeline file, without seeds.
        seeds: A training each: they draw the training questions and seed the training. Test questions stay.
        arms: What is measured; each kind has its own by default.
        questions: Of `curve`: sizes of the training set.
        solvers: Of `solvers`: by a name of your choice; students are trained with `roles.solver`.
        caps: Of `cap`.
    """

    kind: Kind
    tasks: dict[Annotated[str, Field(pattern=f"^{_NAMES_FOLDERS}$")], Task] = Field(min_length=1)
    seeds: list[int] = Field(default=[0], min_length=1)
    arms: list[Arm] | None = None
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
                raise ValueError(f"the task {name} has a train_seed; an experiment's seeds stand in its own list")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands twice")
        return self

    @property
    def measured(self) -> list[str]:
        """The arms: those given, or the kind's own."""
        return list(self.arms or _DEFAULT_ARMS[self.kind])

    @property
    def solver_changes(self) -> dict[str, dict[str, Any]]:
        """What `Experiment.pipeline` has to change for each of `solvers`."""
        return {
            name: {"roles__solver": one.model_dump(exclude_unset=True)} for name, one in (self.solvers or {}).items()
        }


class Experiment(_Strict):
    """A whole experiment file: a design, and the pipeline's sections but for `task` and `evaluate.arms`."""

    experiment: Design
    roles: Roles
    program: Program = Program()
    compile: Compile = Compile()
    collect: Collect = Collect()
    screen: Screen = Screen()
    train: TrainSettings = TrainSettings()
    evaluate: Evaluate = Evaluate()
    costs: Costs = Costs()
    tracking: Tracking | None = None

    @model_validator(mode="after")
    def _arms_stand_in_the_design(self) -> Experiment:
        if self.evaluate.arms:
            raise ValueError("an experiment's arms stand in experiment.arms, not in evaluate.arms")
        return self

    @model_validator(mode="after")
    def _every_cell_is_a_pipeline(self) -> Experiment:
        design = self.experiment
        if design.kind in ("transfer", "multitask") and self.compile.optimizer not in _FEW_SHOT:
            raise ValueError(
                f"compile.optimizer {self.compile.optimizer} writes an instruction for each task, and a student of one "
                f"task answers no other's; {design.kind} takes {', '.join(_FEW_SHOT)}"
            )
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
            seed: One of the design's.
            arms: What it measures.
            changes: Other values, as in `--set` but with `__` for the dot: `program__max_subquestions=2`.
        """
        tree = self.model_dump(exclude={"experiment"}, exclude_unset=True)
        given = self.experiment.tasks[task].model_dump(exclude_unset=True)
        values = {f"task__{key}": value for key, value in given.items()}
        values |= {"task__train_seed": seed, "train__seed": seed, "evaluate__arms": list(arms), **changes}
        for key, value in values.items():
            *parents, last = key.split("__")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[last] = value
        return Pipeline.model_validate(tree)


def configuration_of(file: Pipeline | Experiment) -> dict[str, Any]:
    """What a report shows of a file: all but the questions' source, which it names elsewhere, and where servers run."""
    hidden: Any = {"task": True, "experiment": True, "tracking": True, "roles": {"decomposer": {"server"}}}
    return file.model_dump(mode="json", exclude_none=True, exclude=hidden)


def declared_pipelines(file: Path, overrides: Sequence[str] = ()) -> list[Pipeline]:
    """The pipeline of a file, or for an experiment file one for each task, and each solver of its own.

    Raises:
        ConfigError: See `load_pipeline`.
    """
    try:
        tree = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError):
        tree = None  # what is wrong is said below
    if not (isinstance(tree, dict) and "experiment" in tree):
        return [load_pipeline(file, overrides)]
    experiment = load_experiment(file, overrides)
    design = experiment.experiment
    first = next(iter(design.tasks))
    return [
        *(experiment.pipeline(task, design.seeds[0], design.measured) for task in design.tasks),
        *(
            experiment.pipeline(first, design.seeds[0], design.measured, **change)
            for change in design.solver_changes.values()
        ),
    ]


def load_experiment(file: Path, overrides: Sequence[str] = ()) -> Experiment:
    """Read and validate an experiment file; see `load_pipeline`."""
    return _load(file, overrides, Experiment)


def load_pipeline(file: Path, overrides: Sequence[str] = ()) -> Pipeline:
    """Read and validate a pipeline file.

    Args:
        file: The YAML file.
        overrides: `a.b=value` each, the value in YAML, as given with `--set`.

    Raises:
        ConfigError: The file is missing or broken, a key is unknown, or a value makes no sense; with its line.
    """
    return _load(file, overrides, Pipeline)


_Read = TypeVar("_Read", Pipeline, Experiment)


def _load(file: Path, overrides: Sequence[str], kind: type[_Read]) -> _Read:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The pipeline file {file} can't be read: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The pipeline file {file} is not UTF-8.", "Save it as UTF-8.") from error
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{file}{line}: this is not YAML: {error.problem}.", "Correct that line.") from error
    except (YAMLError, ValueError) as error:  # a date or number that is none
        raise ConfigError(f"{file}: this is not YAML: {error}.", "Correct the file.") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{file} holds no mapping of keys.", "Begin with 'task:' and 'roles:'; see examples/.")
    models = {role: _model_of(tree, role) for role in ("teacher", "solver")}
    given = {_override(tree, text) for text in overrides}
    for role, before in models.items():
        after = _model_of(tree, role)
        if before[0] != after[0] and after[1] and f"roles.{role}.api_base" not in given:
            raise ConfigError(
                f"--set roles.{role}.model names another provider, and roles.{role}.api_base is still {after[1]}, "
                "which would be sent the new provider's key.",
                f"Add --set roles.{role}.api_base=null, or the new address.",
            )
    try:
        pipeline = kind.model_validate(_plain({key: value for key, value in tree.items() if value is not None}))
    except ValidationError as error:
        raise _explained(file, tree, given, error, kind) from error
    keyed: list[tuple[str, Any]] = [
        ("roles.teacher", pipeline.roles.teacher), ("roles.solver", pipeline.roles.solver),
    ]  # fmt: skip
    if isinstance(pipeline, Experiment):
        keyed += [(f"experiment.solvers.{name}", one) for name, one in (pipeline.experiment.solvers or {}).items()]
    part: str
    for part, endpoint in (*keyed, ("roles.decomposer.server", pipeline.roles.decomposer.server)):
        if endpoint and endpoint.api_key_env and not os.environ.get(endpoint.api_key_env):
            at = _line(tree, [*part.split("."), "api_key_env"])
            raise ConfigError(
                f"{file}, line {at}: {part}.api_key_env: the environment variable {endpoint.api_key_env} is not set.",
                "Set it, or name another.",
            )
    return pipeline


def _model_of(tree: Any, role: str) -> tuple[str, Any]:
    """The provider and the address of a role as the file has them."""
    try:
        endpoint = tree["roles"][role]
        return str(endpoint["model"]).partition("/")[0], endpoint.get("api_base")
    except (KeyError, TypeError, AttributeError):
        return "", None


def load_saved_pipeline(folder: Path) -> Pipeline:
    """The pipeline that a run folder was made with.

    Raises:
        ConfigError: The folder is no run folder, or was written by another version.
    """
    file = folder / "pipeline.json"
    try:
        return Pipeline.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{folder} is no run folder: it has no pipeline.json.", "Run 'divcon run' first.") from error
    except ValidationError as error:
        raise ConfigError(f"{file} can't be used: {error.errors()[0]['msg']}.", "Run the pipeline again.") from error


def _override(tree: dict[str, Any], text: str) -> str:
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r} is not KEY=VALUE.", "Write for example --set train.epochs=3.")
    try:
        value = YAML(typ="safe").load(raw)
    except (YAMLError, ValueError) as error:
        raise ConfigError(f"--set {text!r}: the value is not YAML.", "Quote it.") from error
    *parents, last = key.strip().split(".")
    node: Any = tree
    for parent in parents:
        if node.get(parent) is None:
            node[parent] = {}
        if not isinstance(node[parent], dict):
            raise ConfigError(f"--set {text!r}: {parent} is a value, not a section.", "Set the whole section.")
        node = node[parent]
    node[last] = value
    return key.strip()


def _plain(node: Any) -> Any:
    if isinstance(node, dict):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    return node


def _explained(file: Path, tree: Any, given: set[str], error: ValidationError, kind: type[BaseModel]) -> ConfigError:
    first = error.errors()[0]
    # pydantic adds the tried member of a union to the location; only keys of the file are shown
    path: list[Any] = [part for part in first["loc"] if isinstance(part, int) or "[" not in part] or list(first["loc"])
    key = ".".join(str(part) for part in path)
    while path and path[-1] in ("str", "list", "literal"):
        path.pop()
    where = f"{file}, line {_line(tree, path)}"
    unknown = first["type"] == "extra_forbidden"
    if any(key == name or key.startswith(f"{name}.") or (unknown and name.startswith(f"{key}.")) for name in given):
        where = f"--set {key}"
    others = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if unknown:
        known = list(_model_at(kind, path[:-1]).model_fields)
        near = difflib.get_close_matches(str(path[-1]), known, 1)
        return ConfigError(
            f"{where}: there is no key '{key}'.{others}",
            f"Did you mean '{near[0]}'?" if near else f"Known here: {', '.join(known)}.",
        )
    if first["type"] == "missing":
        return ConfigError(f"{where}: the key '{key}' is missing.{others}", "Add it; see examples/.")
    message = first["msg"].removeprefix("Value error, ")
    shown = key or "the pipeline"
    stop = "" if message.endswith((".", "?")) else "."
    return ConfigError(f"{where}: {shown}: {message}{stop}{others}", "Correct the value.")


def _model_at(model: type[BaseModel], path: Sequence[Any]) -> type[BaseModel]:
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        for candidate in (annotation, *getattr(annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return model


def _line(tree: Any, path: Sequence[Any]) -> int:
    """The line of the deepest part of `path` that the file holds, from 1."""
    line = 1
    node = tree
    for part in path:
        try:
            if isinstance(node, CommentedMap) and part in node:
                line = node.lc.key(part)[0] + 1
            elif isinstance(node, CommentedSeq):
                line = node.lc.item(part)[0] + 1
            node = node[part]
        except (KeyError, IndexError, TypeError, AttributeError):
            break
    return line
