"""What is wrong with the values of a file: all of it at once, each with its key, its line and its remedy."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from divcon.config._yaml import ConfigError, Tree

_ALIKE = 0.6  # from which similarity on a missing key is taken for a misspelt one


@dataclass(frozen=True)
class _Wrong:
    """One error of pydantic's.

    Attributes:
        path: The keys that lead to it, without the names that pydantic gives to the members of a union.
        error: The error.
    """

    path: tuple[Any, ...]
    error: ErrorDetails

    @property
    def key(self) -> str:
        return ".".join(map(str, self.path))

    @property
    def unknown(self) -> bool:
        return self.error["type"] == "extra_forbidden"


def explained(
    file: Path,
    tree: Tree,
    given: set[str],
    error: ValidationError,
    kind: type[BaseModel],
    values: Mapping[str, Any],
) -> ConfigError:
    """The error of a file that isn't valid.

    Args:
        file: The file.
        tree: Its values, and where they stand.
        given: The keys that were given with `--set`.
        error: What pydantic says.
        kind: The model of the file.
        values: The values that were validated.
    """
    wrong = _all_wrong(error)
    unknown = [one for one in wrong if one.unknown]
    if unknown:
        there = {one.path for one in wrong}
        wrong += [one for one in _behind(unknown, kind, values) if one.path not in there]
    misspelt = [one for one in wrong if not one.unknown and _is_misspelt(one, unknown)]
    ordered = sorted(
        (one for one in wrong if one not in misspelt), key=lambda one: (not one.unknown, tree.line(one.path))
    )
    return all_of(file, [_error(file, tree, given, one, kind) for one in ordered])


def all_of(file: Path, errors: Sequence[ConfigError]) -> ConfigError:
    """Several errors of a file as one, which lists them."""
    if len(errors) == 1:
        return errors[0]
    lines = "".join(f"\n- {one.problem.removeprefix(f'{file}, ')} {one.remedy}" for one in errors)
    return ConfigError(f"{file} has {len(errors)} errors:{lines}", "Correct them all; nothing was asked of a model.")


def _all_wrong(error: ValidationError) -> list[_Wrong]:
    """The errors, one for each key: of a union, pydantic gives one for each member."""
    found: dict[tuple[Any, ...], _Wrong] = {}
    for one in error.errors():
        path = [part for part in one["loc"] if isinstance(part, int) or "[" not in part] or list(one["loc"])
        while len(path) > 1 and path[-1] in ("str", "list", "literal", "int", "float", "bool"):
            path.pop()
        found.setdefault(tuple(path), _Wrong(tuple(path), one))
    return list(found.values())


def _behind(unknown: Sequence[_Wrong], kind: type[BaseModel], values: Mapping[str, Any]) -> Iterator[_Wrong]:
    """The errors that unknown keys hide, since a section is only looked at as a whole where all its keys are known."""
    rest = copy.deepcopy(dict(values))
    for one in unknown:
        node: Any = rest
        for part in one.path[:-1]:
            node = node[part]
        del node[one.path[-1]]
    try:
        kind.model_validate(rest)
    except ValidationError as error:
        sections = {one.path[:-1] for one in unknown}
        # What a section with an unknown key lacks is what was misspelt.
        yield from (one for one in _all_wrong(error) if one.path not in sections)


def _is_misspelt(missing: _Wrong, unknown: Sequence[_Wrong]) -> bool:
    """Whether a key is only missing because it is misspelt."""
    names = [str(one.path[-1]) for one in unknown if one.path[:-1] == missing.path[:-1]]
    is_missing = missing.error["type"] == "missing"
    return is_missing and bool(difflib.get_close_matches(str(missing.path[-1]), names, 1, _ALIKE))


def _error(file: Path, tree: Tree, given: set[str], wrong: _Wrong, kind: type[BaseModel]) -> ConfigError:
    path, key = wrong.path, wrong.key
    where = f"{file}, line {tree.line(path)}"
    if any(
        key == name or key.startswith(f"{name}.") or (wrong.unknown and name.startswith(f"{key}.")) for name in given
    ):
        where = f"--set {key}"
    if wrong.unknown:
        known = list(_model_at(kind, path[:-1]).model_fields)
        near = difflib.get_close_matches(str(path[-1]), known, 1)
        return ConfigError(
            f"{where}: there is no key '{key}'.",
            f"Did you mean '{near[0]}'?" if near else f"Known here: {', '.join(known)}.",
        )
    if wrong.error["type"] == "missing":
        return ConfigError(f"{where}: the key '{key}' is missing.", "Add it; see examples/.")
    message = wrong.error["msg"].removeprefix("Value error, ")
    if wrong.error["type"] == "string_type" and isinstance(wrong.error["input"], (dict, list)):
        remedy = "Quote a text that has ': ' in it, or begins with '-', '[' or '{'."
    else:
        remedy = "Correct the value."
    stop = "" if message.endswith((".", "?")) else "."
    return ConfigError(f"{where}: {key or 'the pipeline'}: {message}{stop}", remedy)


def _model_at(model: type[BaseModel], path: Sequence[Any]) -> type[BaseModel]:
    for part in path:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        for candidate in (annotation, *getattr(annotation, "__args__", ())):
            if isinstance(candidate, type) and issubclass(candidate, BaseModel):
                model = candidate
    return model
