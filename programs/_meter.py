"""The meter: what a call has used, and what that costs. Every count is read and every price applied here."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


class UsageWarning(UserWarning):
    """A server's token counts can't be right, so the call's usage counts as unknown."""


@dataclass(slots=True)
class Usage:
    """What one role has used.

    Attributes:
        calls: Requests answered; `cached_calls` of them came from DSPy's cache and cost nothing.
        input_tokens: As the server counted them; `cached_tokens` of them came from the server's own cache.
        output_tokens: As the server counted them, reasoning included.
        seconds: Time spent waiting, summed over calls that may have overlapped.
        cost: US dollars, of the priced calls alone.
        unpriced_calls: Calls of unknown cost; they are not counted as free.
        unknown_calls: Calls whose tokens the server didn't count, or miscounted. The sums of tokens leave them out.
        cut_off_calls: Calls whose reply ran out of tokens.
    """

    calls: int = 0
    cached_calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    unpriced_calls: int = 0
    unknown_calls: int = 0
    cut_off_calls: int = 0

    def add(self, other: Usage) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; `cost` is None where no call was priced."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["seconds"] = round(self.seconds, 4)
        values["cost"] = None if self.unpriced_calls == self.calls else round(self.cost, 8)
        return values


@dataclass(frozen=True, slots=True)
class Counters:
    """The token counts of one call, each None where it is unknown.

    Attributes:
        input_tokens: Those read from the server's cache included.
        output_tokens: Reasoning included.
        cached_tokens: The part of the input that was read from the server's cache.
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None

    @property
    def known(self) -> bool:
        """Whether a price can be applied."""
        return self.input_tokens is not None and self.output_tokens is not None

    @classmethod
    def read(cls, counts: Mapping[str, Any]) -> Counters:
        """The counts that a server sent, checked.

        A count that can't be right is unknown: one that is no whole number or negative, and more tokens from the cache
        than input. So is an input of no token, which servers send that don't count. Reasoning tokens that a server
        counts beside the output, instead of in it, are added. Counts that were read once are read the same again.

        Args:
            counts: `input_tokens`, `output_tokens`, `cached_tokens`, `reasoning_tokens` and `total_tokens`, each as it
                was sent; any may be missing.
        """
        wrong = sorted(name for name, value in counts.items() if value is not None and whole_number(value) is None)
        read, written = whole_number(counts.get("input_tokens")), whole_number(counts.get("output_tokens"))
        cached, reasoned = whole_number(counts.get("cached_tokens")), whole_number(counts.get("reasoning_tokens")) or 0
        read = read or None
        if cached is not None and read is not None and cached > read:
            read, cached, wrong = None, None, [*wrong, "cached_tokens"]
        if written is not None and reasoned:
            total = whole_number(counts.get("total_tokens"))
            if reasoned > written or total == (read or 0) + written + reasoned:
                written += reasoned
        warn_of_counts([f"{name} {counts[name]!r}" for name in wrong])
        return cls(read, written, cached)


def warn_of_counts(wrong: Sequence[str]) -> None:
    """Warn of a server's counts that can't be right, each with its name and value; of none, where there is none."""
    if wrong:
        said = ", ".join(wrong)[:200]
        warnings.warn(f"A server's token counts can't be right: {said}.", UsageWarning, stacklevel=3)


def whole_number(value: Any) -> int | None:
    """A count of tokens; None where the value is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value < 1e15 and value == int(value) else None


def priced(price: Mapping[str, float], read: float, written: float, cached: float = 0) -> float:
    """US dollars for tokens.

    Args:
        price: US dollars per million tokens; see `Meter`.
        read: Tokens of input, or their mean over calls.
        written: Tokens of output, or their mean.
        cached: Those of the input that came from the server's own cache.
    """
    return (
        (read - cached) * price["input"] + cached * price.get("cached", price["input"]) + written * price["output"]
    ) / 1e6


# Tells the current price of a role's calls of a model by its stored name: US dollars per million tokens. None says that
# what was stored with the calls counts.
PriceOf = Callable[[str, str], Mapping[str, float] | None]


@dataclass(frozen=True, slots=True)
class Meter:
    """Reads what calls have used, and prices it.

    Attributes:
        price: US dollars per million tokens: `input`, `output`, and `cached` where cached input has its own price; None
            where the price is unknown.
    """

    price: Mapping[str, float] | None = None

    def cost(self, counters: Counters) -> float | None:
        """US dollars for a call; None where the price or the counts are unknown."""
        if self.price is None or counters.input_tokens is None or counters.output_tokens is None:
            return None
        return priced(self.price, counters.input_tokens, counters.output_tokens, counters.cached_tokens or 0)

    def measured(self, counters: Counters, *, free: bool = False, known_cost: float | None = None) -> Usage:
        """The usage of one call.

        Args:
            counters: Its counts.
            free: Whether it came from DSPy's cache.
            known_cost: US dollars that somebody else has worked out, for a call without a price here.
        """
        cost = 0.0 if free else self.cost(counters) if self.price is not None else known_cost
        return Usage(
            calls=1,
            cached_calls=int(free),
            input_tokens=counters.input_tokens or 0,
            cached_tokens=counters.cached_tokens or 0,
            output_tokens=counters.output_tokens or 0,
            cost=cost or 0.0,
            unpriced_calls=int(cost is None),
            unknown_calls=int(not free and not counters.known),
        )

    def repriced(self, used: Usage) -> Usage:
        """A sum of calls at this price; without a price, as it is. Calls with unknown counts stay unpriced."""
        if self.price is None:
            return used
        cost = self.cost(Counters(used.input_tokens, used.output_tokens, used.cached_tokens))
        return replace(used, cost=cost or 0.0, unpriced_calls=used.unknown_calls)
