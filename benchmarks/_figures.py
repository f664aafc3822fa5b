"""Figures as reports and tables show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def percent(value: float | None, digits: int = 0) -> str:
    """A share in per cent; a dash for None."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def score(line: Mapping[str, Any]) -> str:
    """An accuracy in per cent with the number of answers that failed; a dash where there is no score.

    Args:
        line: The results of an arm, as `summarize_arm` returns them.
    """
    failed = line["failed"]
    if line["accuracy"] is None and failed:
        return f"– ({failed} of {failed + line['right'] + line['wrong']} failed)"
    return percent(line["accuracy"], 1) + (f" ({failed} failed)" if failed else "")


def p_value(p: float) -> str:
    """A p-value with two digits behind the point, or three significant ones where it is below 0.05."""
    return f"{p:.3g}" if p < 0.05 else f"{p:.2f}"


def p_in_words(p: float) -> str:
    """A p-value as a sentence has it, such as `p = 0.012`."""
    return f"p = {p:.2g}" if p >= 0.0001 else "p < 0.0001"


def failures(count: int, first: str) -> str:
    """How many answers failed, with the first error."""
    counted = "1 answer failed and is" if count == 1 else f"{count:,} answers failed and are"
    return f"{counted} in no accuracy; the first: {first}"


def points(share: float) -> str:
    """A difference of two shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}"


def points_between(limits: Sequence[float]) -> str:
    """An interval of a difference of two shares in percentage points."""
    low, high = limits
    return f"{points(low)} to {points(high)}"


def points_with_interval(difference: float, limits: Sequence[float]) -> str:
    """A difference of two shares in percentage points, and its interval in brackets."""
    return f"{points(difference)} ({points_between(limits)})"


def dollars_per_1000(cost: float) -> str:
    """What 1,000 questions cost, where one costs `cost` US dollars."""
    amount = 1000 * cost
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.4f}"


def dollars(bill: Mapping[str, Any] | None) -> str:
    """What 1,000 questions cost in US dollars, as far as it is known; a dash where there is no bill."""
    if bill is None:
        return "–"
    if bill["cost"] is not None:
        return dollars_per_1000(bill["cost"])
    if bill.get("at_least") is None:
        return "unknown"
    return f"at least {dollars_per_1000(bill['at_least'])} ({bill['unpriced_calls']} calls unpriced)"


def retained_share(line: Mapping[str, Any]) -> str:
    """The share of the teacher's accuracy that a student keeps, with its interval; a dash where there is none.

    Args:
        line: The results of an arm, as `summarize_arm` returns them.
    """
    kept = line.get("retained")
    if kept is None:
        return "–"
    low, high = kept["ci95"]
    limits = f"at least {100 * low:.0f}, no upper limit" if high is None else f"{100 * low:.0f} to {100 * high:.0f}"
    return f"{percent(kept['share'])} ({limits})"


def interval(limits: Sequence[float] | None) -> str:
    """An interval of shares in per cent, without the sign; a dash for None."""
    return "–" if limits is None else f"{100 * limits[0]:.0f} to {100 * limits[1]:.0f}"
