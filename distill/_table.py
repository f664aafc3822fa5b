"""Tables: objects of one kind by name. They hold divcon's own, and those that installed packages add by entry point."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from divcon.signatures import DivconError, FatalError

T = TypeVar("T")


class UnknownName(DivconError, KeyError):
    """A name that isn't in a table."""

    __str__ = DivconError.__str__

    @property
    def brief(self) -> str:
        """Problem and remedy as one clause, for use inside a longer sentence."""
        problem, remedy = self.problem.rstrip("."), self.remedy.rstrip(".?")
        return f"{problem[0].lower()}{problem[1:]}; {remedy[0].lower()}{remedy[1:]}"


class PluginError(FatalError):
    """A package adds something that can't be imported, has a name that is taken, or lacks what it has to have."""


@lru_cache(maxsize=1)
def _installed(path: tuple[str, ...]) -> Any:  # EntryPoints, which older stubs don't know
    """All entry points of the packages on a path. Looking for them takes tens of milliseconds."""
    return entry_points()


class Table(Mapping[str, T], Generic[T]):
    """Objects of one kind by name.

    An object of divcon's may be given as `module:attribute`. Such an object, or one of another package, is imported
    when it is first used. The names of other packages' objects come from the packages' metadata.

    Args:
        kind: What the messages call an object, such as `screening rule`.
        group: The entry-point group that other packages add to, such as `divcon.rules`.
        ours: divcon's own objects by name.
        needs: The attributes that an object has to have.

    Raises:
        PluginError: A package adds a name that divcon or another package has.

    Examples:
        >>> sizes = Table("size", "divcon.sizes", {"small": 1, "large": 2})
        >>> sizes["small"]
        1
        >>> sizes["smal"]
        Traceback (most recent call last):
        divcon.distill._table.UnknownName: There is no size 'smal'. Did you mean small?
    """

    def __init__(self, kind: str, group: str, ours: Mapping[str, T | str], needs: Sequence[str] = ()) -> None:
        self.kind = kind
        self.group = group
        self._ours = dict(ours)
        self._needs = tuple(needs)
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
        found: dict[str, EntryPoint] = {}
        for entry in _installed(tuple(sys.path)).select(group=self.group):
            before = found.setdefault(entry.name, entry)
            other = "divcon" if entry.name in self._ours else before.value if before.value != entry.value else None
            if other is not None:
                raise PluginError(
                    f"{entry.value} adds a {self.kind} called {entry.name}, and {other} has one of that name.",
                    f"Give it another name under {self.group}, or uninstall the package.",
                )
        return found

    def _load(self, name: str) -> T:
        theirs, ours = self._theirs, self._ours.get(name)
        if isinstance(ours, str):
            module, _, attribute = ours.partition(":")
            return cast(T, getattr(importlib.import_module(module), attribute))
        if ours is not None:
            return ours
        if name not in theirs:
            raise self._unknown(name)
        entry = theirs[name]
        remedy = "Correct or uninstall the package that adds it."
        try:
            found = entry.load()
        except Exception as error:
            raise PluginError(
                f"The {self.kind} {name} ({entry.value}) can't be imported: {type(error).__name__}: {error}.", remedy
            ) from error
        if missing := [attribute for attribute in self._needs if not hasattr(found, attribute)]:
            raise PluginError(f"The {self.kind} {name} ({entry.value}) has no {', '.join(missing)}.", remedy)
        return cast(T, found)

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
