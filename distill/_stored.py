"""What a store holds, as objects: replies, calls and traces."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from divcon.distill._database import COLUMNS, JSON_COLUMNS


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A reply as it was stored."""

    response: dict[str, Any]
    seconds: float
    cost: float | None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A stored call as it was made: what was asked, and the reply.

    Attributes:
        role: The role that asked.
        model: The public name of the model.
        request: The request in JSON, without the model.
        response: The reply in JSON.
        input_tokens: The tokens that were read; None where the server didn't say.
        output_tokens: The tokens that were written; None where the server didn't say.
        cached_tokens: The part of the input that was read from a cache; None where the server didn't say.
        seconds: Until the reply.
        cost: US dollars; None where the price is unknown.
    """

    role: str
    model: str
    request: dict[str, Any]
    response: dict[str, Any]
    input_tokens: int | None
    output_tokens: int | None
    cached_tokens: int | None
    seconds: float
    cost: float | None

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Exchange:
        """The call of a row of the table `calls`."""
        named = dict(zip(COLUMNS["calls"], row, strict=True))
        decoded = {column: json.loads(named[column]) for column in JSON_COLUMNS["calls"]}
        return cls(**{name: {**named, **decoded}[name] for name in cls.__slots__})


@dataclass(frozen=True, slots=True)
class Trace:
    """One collected decomposition.

    Attributes:
        item: The item's id.
        sample: The number of the item's sample, from 0.
        subquestions: The subquestions of the reply, or None where the reply was refused.
        lost: Why it was refused at collection (`cut_off`, `empty`, `duplicate`, `unreadable`), else None.
        detail: The error message of the refusal.
        reply: The unchanged reply.
    """

    item: str
    sample: int
    subquestions: tuple[str, ...] | None
    lost: str | None = None
    detail: str | None = None
    reply: str | None = None

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Trace:
        """The trace of a row of the table `traces`."""
        _, item, sample, _, asked, lost, detail, reply = row
        return cls(item, sample, None if asked is None else tuple(json.loads(asked)), lost, detail, reply)
