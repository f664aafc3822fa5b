"""The budget of a run: limits on calls, tokens, money and hours, checked before each call."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from divcon.programs import Counters, Meter, PriceOf, Usage
from divcon.signatures import FatalError

_ANY_REPLY = 16_384  # tokens that a reply without a limit may have
_TICK = 0.05  # seconds between two looks of a call that waits for others to end
_REREAD = 2.0  # seconds


class BudgetSpent(FatalError):
    """The next call could exceed the budget. All replies are kept."""


class Limits(BaseModel):
    """Limits on what a run or a station may use. Calls, tokens and dollars of earlier runs in the folder count.

    Attributes:
        usd: US dollars, for the models with a price.
        tokens: Input and output tokens of all models.
        calls: Calls of all models.
        hours: Hours since the command began.
    """

    model_config = ConfigDict(extra="forbid")

    usd: float | None = Field(None, ge=0)
    tokens: int | None = Field(None, ge=0)
    calls: int | None = Field(None, ge=0)
    hours: float | None = Field(None, ge=0)

    @property
    def any(self) -> bool:
        """Whether there is a limit."""
        return any(value is not None for value in (self.usd, self.tokens, self.calls, self.hours))


class Bill(Protocol):
    """What was paid so far, as a run store knows it."""

    def paid(
        self,
        station: str | None = None,
        cell: str | None = None,
        price_of: PriceOf | None = None,
    ) -> dict[str, dict[str, float]]: ...

    def uncounted(self, station: str | None = None) -> Sequence[tuple[str, str, int, int | None, int, int]]: ...


@dataclass
class _Account:
    """What one scope, the run or a station, has used and may use.

    Attributes:
        scope: Its name in messages.
        key: Its key in the file.
        limits: Its limits.
        spent: What was used.
        held: The most that the calls in flight can use.
    """

    scope: str
    key: str
    limits: Limits
    spent: Usage
    held: Usage = field(default_factory=Usage)

    def lacks(self, worst: Usage) -> tuple[str, str, str] | None:
        """The limit that another call could exceed: its name, what is spent, and what the call may take."""
        limits = self.limits
        tokens = _tokens(self.spent) + _tokens(self.held)
        if limits.calls is not None and self.spent.calls + self.held.calls + worst.calls > limits.calls:
            return "calls", f"{self.spent.calls:,} of {limits.calls:,} calls", "one call"
        if limits.tokens is not None and tokens + _tokens(worst) > limits.tokens:
            return "tokens", f"{_tokens(self.spent):,} of {limits.tokens:,} tokens", f"{_tokens(worst):,} tokens"
        if limits.usd is not None and self.spent.cost + self.held.cost + worst.cost > limits.usd:
            return "usd", f"${self.spent.cost:.4f} of ${limits.usd:g}", f"${worst.cost:.4f}"
        return None


def _tokens(used: Usage) -> int:
    return used.input_tokens + used.output_tokens


@dataclass(frozen=True)
class Reservation:
    """The most that a call in flight can use.

    Attributes:
        station: The call's station.
        worst: The most that it can use.
    """

    station: str
    worst: Usage


class Budget:
    """The budget of a run, shared by its calls. Threads may share it.

    Args:
        whole: The limits of the whole run.
        stations: The limits of single stations, by name.
        bill: Knows what was paid before.
        price_of: Tells current prices.
        clock: Returns the time in seconds; tests replace it.
        unpaid: Roles whose calls ask nobody, and so aren't paid for; see `RecordedTeacher`.
    """

    def __init__(
        self,
        whole: Limits,
        stations: Mapping[str, Limits],
        bill: Bill,
        price_of: PriceOf | None = None,
        clock: Callable[[], float] = time.monotonic,
        unpaid: Collection[str] = (),
    ) -> None:
        self._unpaid = frozenset(unpaid)
        self._bill = bill
        self._price_of = price_of
        self._clock = clock
        self._began = self._read_at = clock()
        self._changed = threading.Condition()
        self._whole = _Account("the run", "budget", whole, self._read(None))
        self._stations = {
            name: _Account(f"the station {name}", f"budget.stations.{name}", limits, self._read(name))
            for name, limits in stations.items()
        }

    def _read(self, station: str | None) -> Usage:
        total = Usage()
        for role, paid in self._bill.paid(station, price_of=self._price_of).items():
            if role in self._unpaid:
                continue
            values = {name: paid[name] or 0 for name in ("calls", "input_tokens", "output_tokens", "cost")}
            total.add(Usage(**values))  # type: ignore[arg-type]
        # What a server didn't count is taken for the worst case, as it was when the reply came; see `settle`.
        for role, model, size, max_tokens, read, written in self._bill.uncounted(station):
            if role not in self._unpaid:
                meter = Meter(self._price_of(role, model) if self._price_of is not None else None)
                total.add(worst_case(meter, size, max_tokens))
                total.add(_negative(meter.measured(Counters(read, written))))  # these are in the sums above
        return total

    def _accounts(self, station: str) -> list[_Account]:
        return [self._whole, *([self._stations[station]] if station in self._stations else [])]

    def check(self, station: str) -> None:
        """Raise where the budget of a station, or of the run, is spent. The bill is read again where it is old.

        It is called before a station's jobs, whose calls may be made in other processes.

        Raises:
            BudgetSpent: See `admit`.
        """
        with self._changed:
            if self._clock() - self._read_at > _REREAD:
                self._read_at = self._clock()
                self._whole.spent = self._read(None)
                for name, account in self._stations.items():
                    account.spent = self._read(name)
        self._require_time(station)
        for account in self._accounts(station):
            if (lack := account.lacks(Usage(calls=1))) is not None:
                raise _spent(account, *lack)

    def admit(self, station: str, worst: Usage) -> Reservation:
        """Wait until a call can't exceed the budget, whatever the calls in flight still use.

        Args:
            station: The call's station.
            worst: The most that the call can use.

        Raises:
            BudgetSpent: No call is in flight that could end below its worst case, and this one could exceed a limit.
        """
        with self._changed:
            while (hold := self._tried(station, worst)) is None:
                self._changed.wait(_TICK)
            return hold

    async def aadmit(self, station: str, worst: Usage) -> Reservation:
        """`admit`, awaited."""
        while True:
            with self._changed:
                if (hold := self._tried(station, worst)) is not None:
                    return hold
            await asyncio.sleep(_TICK)

    def _tried(self, station: str, worst: Usage) -> Reservation | None:
        self._require_time(station)
        accounts = self._accounts(station)
        for account in accounts:
            if (lack := account.lacks(worst)) is not None:
                if account.held.calls:
                    return None
                raise _spent(account, *lack)
        for account in accounts:
            account.held.add(worst)
        return Reservation(station, worst)

    def settle(self, hold: Reservation, used: Usage | None) -> None:
        """Take what a call has really used in place of its worst case.

        Args:
            hold: What `admit` gave.
            used: What it has used; None where it failed and was given no reply. A reply whose tokens weren't counted
                is taken for the worst case.
        """
        worst = hold.worst
        with self._changed:
            for account in self._accounts(hold.station):
                account.held.add(_negative(worst))
                if used is not None:
                    account.spent.add(worst if used.unknown_calls else used)
            self._changed.notify_all()

    def _require_time(self, station: str) -> None:
        hours = (self._clock() - self._began) / 3600
        for account in self._accounts(station):
            limit = account.limits.hours
            if limit is not None and hours >= limit:
                raise _spent(account, "hours", f"{hours:.2f} of {limit:g} hours", "time")


def worst_case(meter: Meter, text_bytes: int, max_tokens: int | None) -> Usage:
    """The most that a call can use.

    Args:
        meter: Of the role that asks.
        text_bytes: The size of its request. No tokenizer in use makes more tokens than bytes.
        max_tokens: The limit of its reply; without one, a long reply is assumed.
    """
    return meter.measured(Counters(text_bytes, max_tokens or _ANY_REPLY))


def _negative(used: Usage) -> Usage:
    return Usage(**{name: -getattr(used, name) for name in used.__slots__})


def _spent(account: _Account, limit: str, spent: str, more: str) -> BudgetSpent:
    return BudgetSpent(
        f"The budget of {account.scope} is spent: {spent} are used, and one more call may take {more}.",
        f"All replies are kept. Raise {account.key}.{limit} and run again; the run goes on where it stopped.",
    )
