"""YAML as files of settings need it: plain values, whatever anchors, tags and numbers YAML has besides.

A file may come from anybody, so everything that YAML allows is either read or refused with its line.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from divcon.signatures import DivconError, learn_addresses

_DEEPEST = 40  # sections within sections; a file of settings has six
_MOST = 20_000  # values, counted once more for every alias; ten aliases of ten aliases are soon a billion
_KEYS = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "merge"))
# Besides its own errors, ruamel.yaml raises what Python does for an impossible date, number, tag or merged key.
_UNREADABLE = (YAMLError, ValueError, TypeError, KeyError, AttributeError, IndexError, AssertionError, ArithmeticError)


class ConfigError(DivconError):
    """A file can't be read, or holds an unknown key or an invalid value."""


@dataclass(frozen=True)
class Tree:
    """The values of a file, and where they stand in it.

    Attributes:
        values: Sections, lists, text, finite numbers, true, false and null. Nothing in it is shared, so that a change
            of one value changes no other.
    """

    values: dict[str, Any]
    _root: Node

    def line(self, path: Sequence[Any]) -> int:
        """The line, from 1, of the deepest part of `path` that is in the file."""
        return _line(self._root, path)


def read_tree(file: Path) -> Tree:
    """The values of a file.

    Raises:
        ConfigError: The file is missing, no UTF-8, no YAML, or holds no mapping of keys; or something in it is no value
            for a setting, refers to itself, or is too large or too deep. The line is named.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"The file {file} can't be read: {error.strerror}.", "Check the path.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"The file {file} is not UTF-8.", "Save it as UTF-8.") from error
    except ValueError as error:
        raise ConfigError(f"The file {str(file)!a} can't be read: {error}.", "Check the path.") from error
    learn_addresses(text)  # an address with a password is refused, and the refusal shows the address
    try:
        root, values = _read(text)
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{file}{line}: this is not YAML: {error.problem}.", "Correct that line.") from error
    except _Refused as error:
        where = "" if error.line is None else f", line {error.line}"
        raise ConfigError(f"{file}{where}: {error}.", "Correct the value.") from error
    except _UNREADABLE as error:
        raise ConfigError(f"{file}: this is not YAML: {_said(error)}.", "Correct the file.") from error
    if not isinstance(values, dict):
        raise ConfigError(
            f"{file} holds no mapping of keys.", "Begin with the name of a section, such as 'roles:'; see examples/."
        )
    return Tree(values, root)


def read_value(text: str) -> Any:
    """A single value in YAML, as `--set` takes it.

    Raises:
        ValueError: It is no YAML, or no value for a setting; with the reason alone.
    """
    try:
        return _read(text)[1]
    except _Refused:
        raise
    except _UNREADABLE as error:
        raise ValueError(f"this is not YAML: {_said(error)}") from error


class _Refused(ValueError):
    """YAML that is no setting.

    Attributes:
        line: The line, from 1; None where there is none.
    """

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.line = line


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read(text: str) -> tuple[Any, Any]:
    try:
        root = YAML(typ="safe", pure=True).compose(text)
        if root is None:
            return None, None
        _Sizes().of(root)  # before values are made of it, which may take for ever
        return root, _plain(root, YAML(typ="safe", pure=True).load(text), ())
    except RecursionError as error:
        raise _Refused("the brackets or sections are nested too deeply") from error


class _Sizes:
    """Counts the values under a node, as many as they are once aliases are written out."""

    def __init__(self) -> None:
        self._known: dict[int, int] = {}
        self._above: list[int] = []

    def of(self, node: Node) -> int:
        line = node.start_mark.line + 1
        if id(node) in self._above:
            raise _Refused("this refers to itself", line)
        if len(self._above) > _DEEPEST:
            raise _Refused("the brackets or sections are nested too deeply", line)
        if id(node) not in self._known:
            _require_named(node)
            self._above.append(id(node))
            self._known[id(node)] = 1 + sum(map(self.of, _children(node)))
            self._above.pop()
        if self._known[id(node)] > _MOST:
            raise _Refused(f"there are over {_MOST:,} values here, once aliases are written out", line)
        return self._known[id(node)]


def _require_named(node: Node) -> None:
    """Refuse keys such as `.nan`, `null` or a list, which name no setting."""
    for key, _ in node.value if isinstance(node, MappingNode) else ():
        if not isinstance(key, ScalarNode) or str(key.tag) not in _KEYS:
            shown = f"{key.value!a:.40}" if isinstance(key, ScalarNode) else "that is a list or a section"
            raise _Refused(f"the key {shown} is no text", key.start_mark.line + 1)


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []


def _plain(root: Node, value: Any, path: tuple[Any, ...]) -> Any:
    """A copy of a value in which nothing is shared.

    Raises:
        _Refused: It holds something that is no setting.
    """

    def refused(why: str) -> _Refused:
        shown = ".".join(part if isinstance(part, str) and part.isprintable() else ascii(part) for part in path)
        return _Refused(f"{shown}: {why}" if shown else why, _line(root, path))

    if isinstance(value, dict):
        return {_text(str(key), refused): _plain(root, held, (*path, key)) for key, held in value.items()}
    if isinstance(value, list):
        return [_plain(root, held, (*path, number)) for number, held in enumerate(value)]
    if isinstance(value, str):
        return _text(value, refused)
    if isinstance(value, float) and not math.isfinite(value):
        raise refused(f"{value} is no finite number")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    raise refused(f"this is a {type(value).__name__}, and neither text, a number, a list nor a section")


def _text(text: str, refused: Any) -> str:
    if any("\ud800" <= char <= "\udfff" for char in text):
        raise refused("this holds half of a character (a lone surrogate)")
    return text


def _line(node: Node, path: Sequence[Any]) -> int:
    line: int = 1
    for part in path:
        if isinstance(node, MappingNode):
            pairs = ((key, value) for key, value in node.value if getattr(key, "value", None) == str(part))
        elif isinstance(node, SequenceNode):
            pairs = ((value, value) for number, value in enumerate(node.value) if number == part)
        else:
            break
        if (found := next(pairs, None)) is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
