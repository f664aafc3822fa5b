"""Read a file from YAML into sections. Every error names the key, the line and the remedy."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from divcon.config._design import Experiment
from divcon.config._sections import Pipeline
from divcon.signatures import DivconError, learn_addresses, learn_variable


class ConfigError(DivconError):
    """A file can't be read, or holds an unknown key or an invalid value."""


def configuration_of(file: Pipeline | Experiment) -> dict[str, Any]:
    """The part of a file that a report shows: no task, which it shows elsewhere, and nothing on how jobs are run."""
    hidden: Any = dict.fromkeys(("run", "budget", "task", "experiment", "tracking"), True)
    hidden["roles"] = {"decomposer": {"server"}}
    return file.model_dump(mode="json", exclude_none=True, exclude=hidden)


def declared_pipelines(file: Path, overrides: Sequence[str] = ()) -> list[Pipeline]:
    """The pipeline of a file. For an experiment file, one for each task and one for each of `experiment.solvers`.

    Raises:
        ConfigError: See `load_pipeline`.
    """
    try:
        tree = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError):
        tree = None  # `load_pipeline` raises the error
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
        overrides: Overrides as given with `--set`: `a.b=value`, with the value in YAML.

    Raises:
        ConfigError: The file is missing or broken, a key is unknown, or a value is invalid; with its line.
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
    for told in (text, *overrides):
        learn_addresses(told)  # an address with a password is refused, and the refusal shows the address
    try:
        tree = YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{file}{line}: this is not YAML: {error.problem}.", "Correct that line.") from error
    except (YAMLError, ValueError) as error:  # such as an invalid date or number
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
    keyed: list[tuple[str, Any]] = [(f"roles.{role}", getattr(pipeline.roles, role)) for role in models]
    if isinstance(pipeline, Experiment):
        keyed += [(f"experiment.solvers.{name}", one) for name, one in (pipeline.experiment.solvers or {}).items()]
    part: str
    for part, endpoint in (*keyed, ("roles.decomposer.server", pipeline.roles.decomposer.server)):
        learn_variable(endpoint.api_key_env if endpoint else None)
        if endpoint and endpoint.api_key_env and not os.environ.get(endpoint.api_key_env):
            at = _line(tree, [*part.split("."), "api_key_env"])
            raise ConfigError(
                f"{file}, line {at}: {part}.api_key_env: the environment variable {endpoint.api_key_env} is not set.",
                "Set it, or name another.",
            )
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
    file = folder / "pipeline.json"
    try:
        return Pipeline.model_validate_json(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{folder} is no run folder: it has no pipeline.json.", "Run 'divcon run' first.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is damaged: it is not UTF-8.", "Run the pipeline again.") from error
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
    # For a union, pydantic adds the member that it tried to the location. Only the file's keys are shown.
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
    """The line, from 1, of the deepest part of `path` that is in the file."""
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
