"""DROP's exact match and F1, by the definition of its authors (Dua et al. 2019, section 5).

A gold answer has one or more spans, and so has a reply. Spans are normalized, and aligned one to one so that the sum of
their F1 is largest. A gold span with numbers scores only where it shares a number with the reply's.
"""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import scipy  # loads `scipy.optimize` when it is first used

_ARTICLE = re.compile(r"\b(a|an|the)\b")
_SPLIT = re.compile(r"[ \-]")
# The ways in which a reply may separate spans, the clearest first. A span may contain a comma or an "and" itself.
_SEPARATORS = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (r"\n[ \t]*+(?:\d+[.)]\s+|[-*•]\s+)?", r";|\|", r",(?!\d)|\band\b|&", r",(?!\d)(?:\s*+and\b)?")
)
_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _number(token: str) -> str | None:
    try:
        return str(float(token.replace(",", "")))
    except ValueError:
        return None


@lru_cache(maxsize=65_536)
def normalized_span(text: str) -> str:
    """A span without case, articles and punctuation, with its numbers in one form."""
    tokens = []
    for token in _SPLIT.split(text.casefold()):
        number = _number(token)
        plain = number if number is not None else token.translate(_PUNCTUATION)
        number = number if number is not None else _number(plain)
        plain = " ".join(_ARTICLE.sub(" ", number if number is not None else plain).split())
        if plain:
            tokens.append(plain)
    return " ".join(tokens)


def lists_of(reply: str) -> set[tuple[str, ...]]:
    """The lists of spans that a reply may mean, split by lines, semicolons, commas and "and", or commas alone."""
    first = re.sub(r"\A(?:\d+[.)]\s+|[-*•]\s+)", "", reply.strip())
    found = set()
    for separator in _SEPARATORS:
        found.add(tuple(part for part in (part.strip().strip(" .") for part in separator.split(first)) if part))
    return found


def exact_match_and_f1(gold: Sequence[str], said: Sequence[str]) -> tuple[float, float]:
    """Exact match (0 or 1) and F1 (0 to 1, two decimals) of a reply's spans against one gold answer's.

    Args:
        gold: The spans of one gold answer.
        said: The spans of the reply.
    """
    wanted, given = [normalized_span(span) for span in gold], [normalized_span(span) for span in said]
    exact = float(set(wanted) == set(given) and len(wanted) == len(given))
    bags, others = [frozenset(span.split()) for span in wanted], [frozenset(span.split()) for span in given]
    return exact, 1.0 if exact else round(_aligned(bags, others) / max(len(bags), len(others), 1), 2)


def _aligned(gold: Sequence[frozenset[str]], said: Sequence[frozenset[str]]) -> float:
    """The largest sum of F1 over one-to-one alignments."""
    if len(gold) == 1 or len(said) == 1:
        return max((_bag_f1(a, b) for a in gold for b in said), default=0.0)
    scores = np.array([[_bag_f1(a, b) for b in said] for a in gold])
    return float(scores[scipy.optimize.linear_sum_assignment(-scores)].sum()) if scores.size else 0.0


def _bag_f1(gold: frozenset[str], said: frozenset[str]) -> float:
    numbers = {token for token in gold if _number(token) is not None}
    if numbers and not numbers & said:
        return 0.0
    shared = len(gold & said)
    if not shared:
        return 0.0
    precision, recall = shared / len(said), shared / len(gold)
    return 2 * precision * recall / (precision + recall)
