"""What the generated families draw their stories from, and how they keep arithmetic out of the way of planning."""

from __future__ import annotations

import random
from collections.abc import Sequence

NAMES = [
    "Ada", "Ben", "Cleo", "Dara", "Eli", "Fay", "Gus", "Hana", "Ivo", "June", "Kai", "Lena", "Milo", "Nora", "Otis",
    "Pia", "Quin", "Rosa", "Sami", "Tess", "Uma", "Vera", "Will", "Xena", "Yara", "Zane", "Alma", "Boris", "Cora",
    "Dina", "Emil", "Flora", "Greta", "Hugo", "Iris", "Jonas", "Kira", "Leo", "Mara", "Nils",
]  # fmt: skip


def without_carry(amount: int, change: int) -> bool:
    """Whether adding `change` (or taking it away, where it is negative) needs no carry and no borrowing."""
    digits = zip(reversed(str(amount).zfill(6)), reversed(str(abs(change)).zfill(6)), strict=True)
    if change < 0:
        return all(int(a) >= int(b) for a, b in digits)
    return all(int(a) + int(b) < 10 for a, b in digits)


def fitting(rng: random.Random, amount: int, changes: Sequence[int]) -> int | None:
    """One of `changes` that needs no carry, or None."""
    fits = [change for change in changes if without_carry(amount, change)]
    return rng.choice(fits) if fits else None
