"""Tables: objects of one kind by name. They hold divcon's own, and those that installed packages add by entry point."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from divcon.signatures import DivconError

T = TypeVar("T")


class UnknownName(DivconError, KeyError):
    """A name that isn't in a table."""

    __str__ = DivconError.__str__

    @property
    def brief(self) -> str:
        """Problem and remedy as one clause, for use inside a longer sentence."""
        problem, remedy = self.problem.rstrip("."), self.remedy.rstrip(".?")
        return f"{problem[0].lower()}{problem[1:]}; {remedy[0].lower()}{remedy[1:]}"


class PluginError(DivconError):
    """The object of an entry point can't be imported, or its name is taken."""


class Table(Mapping[str, T], Generic[T]):
    """Objects of one kind by name.

    An object of divcon's may be given as `module:attribute`. Such an object, or one of another package, is imported
    when it is first used. The names of other packages' objects come from the packages' metadata.

    Args:
        kind: What the messages call an object, such as `screening rule`.
        group: The entry-point group that other packages add to, such as `divcon.rules`.
        ours: divcon's own objects by name.

    Raises:
        PluginError: A package adds a name that divcon has.

    Examples:
        >>> sizes = Table("size", "divcon.sizes", {"small": 1, "large": 2})
        >>> sizes["small"]
        1
        >>> sizes["smal"]
        Traceback (most recent call last):
        divcon.distill._table.UnknownName: There is no size 'smal'. Did you mean small?
    """

    def __init__(self, kind: str, group: str, ours: Mapping[str, T | str]) -> None:
        self.kind = kind
        self.group = group
        self._ours = dict(ours)
        self._loaded: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._ours
        yield from self._theirs

    def __len__(self) -> int:
        return len(self._ours) + len(self._theirs)

    def __contains__(self, name: object) -> bool:
        return name in self._ours or name in self._theirs

    @property
    def own(self) -> list[str]:
        """The names of divcon's own objects, without those of installed packages."""
        return list(self._ours)

    def known(self, name: str) -> str:
        """Return the name if it is in the table. It is a pydantic validator, so it raises `ValueError`.

        Raises:
            ValueError: The name isn't in the table.
        """
        if name in self:
            return name
        raise ValueError(self._unknown(name).brief)

    @cached_property
    def _theirs(self) -> dict[str, EntryPoint]:
        found = {entry.name: entry for entry in entry_points(group=self.group)}
        if taken := sorted(set(found) & set(self._ours)):
            raise PluginError(
                f"{found[taken[0]].value} adds a {self.kind} called {taken[0]}, and divcon has one of that name.",
                f"Give it another name under {self.group}, or uninstall the package.",
            )
        return found

    def _load(self, name: str) -> T:
        ours = self._ours.get(name)
        if isinstance(ours, str):
            module, _, attribute = ours.partition(":")
            return cast(T, getattr(importlib.import_module(module), attribute))
        if ours is not None:
            return ours
        if name not in self._theirs:
            raise self._unknown(name)
        entry = self._theirs[name]
        try:
            return cast(T, entry.load())
        except (ImportError, AttributeError) as error:
            raise PluginError(
                f"The {self.kind} {name} ({entry.value}) can't be imported: {error}.",
                "Correct or uninstall the package that adds it.",
            ) from error

    def _unknown(self, name: str) -> UnknownName:
        near = difflib.get_close_matches(name, self, 1)
        return UnknownName(
            f"There is no {self.kind} '{name}'.",
            f"Did you mean {near[0]}?" if near else f"There are {', '.join(self)}.",
        )


@dataclass(frozen=True)
class Choices:
    """An annotation of a field with a name: it lists divcon's own names in the JSON schema, so that editors offer them.

    Attributes:
        names: Returns the names; called when a schema is made.
        more: Whether the schema also accepts other names, which installed packages may add.
    """

    names: Callable[[], Iterable[str]]
    more: bool = True

    def __get_pydantic_json_schema__(self, core: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        listed = {"enum": list(self.names()), "type": "string"}
        return {"anyOf": [listed, handler(core)]} if self.more else listed
