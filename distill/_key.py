"""Keys: everything that a result depends on, by name. A key finds a stored result, and shows what has changed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from divcon.distill._store import fingerprint
from divcon.signatures import masked_json

_ABSENT = "nothing"
_LONGEST = 60  # characters of a value that are shown


@dataclass(frozen=True)
class Key:
    """Everything that the result of a station or an arm depends on.

    Attributes:
        parts: JSON-ready values, or keys of other results, by name. The digest depends on their order and not on
            their names.

    Examples:
        >>> before, now = Key({"model": "small", "seed": 0}), Key({"model": "large", "seed": 0})
        >>> list(now.changes(before.parts))
        [('model', 'small', 'large')]
    """

    parts: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The hash that results are stored under."""
        return fingerprint(*(part.digest if isinstance(part, Key) else part for part in self.parts.values()))

    def plain(self) -> dict[str, Any]:
        """The parts as plain JSON values, masked of secrets, with the parts of nested keys as nested dicts."""
        found = {name: part.plain() if isinstance(part, Key) else part for name, part in self.parts.items()}
        plain: dict[str, Any] = json.loads(masked_json(json.dumps(found, default=str)))
        return plain

    def changes(self, before: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
        """The parts that differ from an earlier key: (name, earlier value, value now). Nested names are dotted."""
        yield from _changes("", dict(before), self.plain())


def _changes(name: str, before: Any, now: Any) -> Iterator[tuple[str, str, str]]:
    if before == now:
        return
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            inner = f"{name}.{key}" if name else key
            yield from _changes(inner, before.get(key, _ABSENT), now.get(key, _ABSENT))
        return
    then, later = _text(before), _text(now)
    same = next((at for at, (one, other) in enumerate(zip(then, later, strict=False)) if one != other), 0)
    yield name, _around(then, same), _around(later, same)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _around(text: str, at: int) -> str:
    """A text; a long text is cut to the part around the difference."""
    if len(text) <= _LONGEST:
        return text
    start = max(0, at - _LONGEST // 3)
    part = text[start : start + _LONGEST]
    return f"{'...' if start else ''}{part}{'...' if start + _LONGEST < len(text) else ''}"
