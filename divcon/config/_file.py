"""Read a file from YAML into sections. Every error names the key, the line and the remedy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from divcon.config._design import Experiment
from divcon.config._explained import all_of, explained
from divcon.config._sections import Pipeline
from divcon.config._yaml import ConfigError, read_tree, read_value
from divcon.distill._paths import expanded_path
from divcon.signatures import learn_addresses, learn_variable

EXPERIMENT_FILE = "experiment.json"  # in an experiment's folder
_Read = TypeVar("_Read", Pipeline, Experiment)


def configuration_of(file: Pipeline | Experiment) -> dict[str, Any]:
    """The part of a file that a report shows: no task, which it shows elsewhere, and nothing on how jobs are run."""
    hidden: Any = dict.fromkeys(("run", "budget", "task", "experiment", "tracking"), True)
    hidden["roles"] = {role: {"server"} for role in ("teacher", "decomposer", "solver")}
    hidden["roles"]["teacher"] |= {"path"}
    hidden["evaluate"] = {"recorded": {name: {"path"} for name in file.evaluate.recorded}}
    return file.model_dump(mode="json", exclude_none=True, exclude=hidden)


def declared_pipelines(file: Path, overrides: Sequence[str] = ()) -> list[Pipeline]:
    """The pipeline of a file. For an experiment file, one for each task and one for each of `experiment.solvers`.

    Raises:
        ConfigError: See `load_pipeline`.
    """
    if "experiment" not in read_tree(file).values:
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


def load_experiment(file: Path | str, overrides: Sequence[str] = ()) -> Experiment:
    """Read and validate an experiment file; see `load_pipeline`."""
    return _load(expanded_path(file), overrides, Experiment)


def load_pipeline(file: Path | str, overrides: Sequence[str] = ()) -> Pipeline:
    """Read and validate a pipeline file.

    Args:
        file: The YAML file.
        overrides: Overrides as given with `--set`: `a.b=value`, with the value in YAML.

    Raises:
        ConfigError: The file is missing or broken, a key is unknown, or a value is invalid; with its line.
    """
    return _load(expanded_path(file), overrides, Pipeline)


def _load(file: Path, overrides: Sequence[str], kind: type[_Read]) -> _Read:
    for told in overrides:
        learn_addresses(told)  # an address with a password is refused, and the refusal shows the address
    tree = read_tree(file)
    values = tree.values
    models: dict[str, tuple[str, Any]] = {role: _model_of(values, role) for role in ("teacher", "solver")}
    given = {_override(values, text) for text in overrides}
    for role, before in models.items():
        after = _model_of(values, role)
        there = given.isdisjoint({f"roles.{role}.api_base", f"roles.{role}", "roles"})
        if before[0] != after[0] and after[1] and there:
            raise ConfigError(
                f"--set roles.{role}.model names another provider, and roles.{role}.api_base is still {after[1]}, "
                "which would be sent the new provider's key.",
                f"Add --set roles.{role}.api_base=null, or the new address.",
            )
    filled = {key: value for key, value in values.items() if value is not None}
    try:
        pipeline = kind.model_validate(filled)
    except ValidationError as error:
        raise explained(file, tree, given, error, kind, filled) from error
    keyed: list[tuple[str, Any]] = [(f"roles.{role}", getattr(pipeline.roles, role)) for role in models]
    keyed += [(f"roles.{role}.server", getattr(pipeline.roles, role).server) for role in (*models, "decomposer")]
    if isinstance(pipeline, Experiment):
        keyed += [(f"experiment.solvers.{name}", one) for name, one in (pipeline.experiment.solvers or {}).items()]
    part: str
    unset = []
    for part, endpoint in keyed:
        learn_variable(endpoint.api_key_env if endpoint else None)
        if endpoint and endpoint.api_key_env and not os.environ.get(endpoint.api_key_env):
            at = tree.line([*part.split("."), "api_key_env"])
            unset.append(
                ConfigError(
                    f"{file}, line {at}: {part}.api_key_env: "
                    f"the environment variable {endpoint.api_key_env} is not set.",
                    "Set it, or name another.",
                )
            )
    if unset:
        raise all_of(file, unset)
    return pipeline


def _model_of(tree: Any, role: str) -> tuple[str, Any]:
    """The provider and the address of a role in the file."""
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
    return _saved(folder, "pipeline.json", Pipeline, "run")


def load_saved_experiment(folder: Path) -> Experiment:
    """The experiment that was last started in a folder.

    Raises:
        ConfigError: None was, or by another version.
    """
    return _saved(folder, EXPERIMENT_FILE, Experiment, "experiment")


def _saved(folder: Path, name: str, kind: type[_Read], command: str) -> _Read:
    file, again = folder / name, f"Run 'divcon {command}' again."
    try:
        return kind.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{folder} is no {'run folder' if command == 'run' else 'folder of an experiment'}: it has no {name}.",
            f"Run 'divcon {command}' first.",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is damaged: it is not UTF-8.", again) from error
    except ValidationError as error:
        raise ConfigError(f"{file} can't be used: {error.errors()[0]['msg']}.", again) from error


def split_override(text: str) -> tuple[str, Any]:
    """The key and the value of an override as given with `--set`.

    Raises:
        ConfigError: It isn't `KEY=VALUE`, or the value is no YAML.
    """
    key, equals, raw = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {text!r} is not KEY=VALUE.", "Write for example --set train.epochs=3.")
    try:
        value = read_value(raw)
    except ValueError as error:
        raise ConfigError(f"--set {key.strip()}: {error}.", "Correct the value, or quote it.") from error
    if isinstance(value, str) and "#" in raw and "#" not in value:
        raise ConfigError(f"--set {key.strip()}: in YAML, ' #' begins a comment.", "Quote the value, or leave it out.")
    return key.strip(), value


def _override(tree: dict[str, Any], text: str) -> str:
    key, value = split_override(text)
    node: Any = tree
    before: list[str] = []
    rest = key.split(".")
    while True:
        # A name that somebody gave, as to a recorded program, may have dots.
        width = next((n for n in range(len(rest), 1, -1) if ".".join(rest[:n]) in node), 1)
        name, rest = ".".join(rest[:width]), rest[width:]
        if not rest:
            node[name] = value
            return key
        if node.get(name) is None:
            node[name] = {}
        if before == ["evaluate", "recorded"] and isinstance(node[name], str):
            node[name] = {"path": node[name]}  # the short form
        if not isinstance(node[name], dict):
            raise ConfigError(f"--set {text!r}: {name} is a value, not a section.", "Set the whole section.")
        node = node[name]
        before.append(name)
