"""Figures as reports and tables show them."""

from __future__ import annotations

from collections.abc import Mapping
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


def dollars(bill: Mapping[str, Any] | None) -> str:
    """What a question costs in US dollars, as far as it is known."""
    if bill is None:
        return "–"
    if bill["cost"] is not None:
        return f"{bill['cost']:.6f}"
    if bill["at_least"] is None:
        return "unknown"
    return f"at least {bill['at_least']:.6f} ({bill['unpriced_calls']} calls unpriced)"
