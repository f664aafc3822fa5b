"""Graders: whether an answer is right, strictly, and which rule read it.

The paper's graders are lenient: any number in the reply that equals gold counts. Here a reply with several candidate
numbers and no marker is wrong, because nobody could act on it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from divcon.programs import Item

# thousands separators, decimals, fractions; a minus sign of either kind, a plus sign, a currency before or after it
_NUMBER = re.compile(
    r"(?<![\w.,])(?P<before>[-+−]?)[$€£¥]?\s?(?P<after>(?<=[$€£¥])[-−])?"
    # Possessive: a number that goes on (3.5kg, 1,00,000, 1.2M) is refused whole, not read as its first digits.
    r"(?P<whole>\d{1,3}(?:,\d{3})++(?!\d)|\d++)?+(?P<part>\.\d++)?+(?:\s?/\s?(?P<denominator>\d++))?+"
    r"(?!\w|[.,]\d)"
)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_HASHES = re.compile(r"####\s*([-+−$€£¥\d.][^\n]*)")
_MARKER = re.compile(r"(?im)^\W*(?:the )?(?:final )?answer\b(?: is)?\s*[:=]?\s*(.+)$")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a grader found.

    Attributes:
        right: Whether the answer equals gold.
        extracted: What was read as the answer, None where nothing could be.
        rule: Which rule read it.
    """

    right: bool
    extracted: str | None
    rule: str


def numbers(text: str) -> list[Fraction]:
    """The numbers in `text`, in order, exactly."""
    found = []
    for match in _NUMBER.finditer(text):
        if match["whole"] is None and match["part"] is None:
            continue
        value = Fraction((match["whole"] or "0").replace(",", "") + (match["part"] or ""))
        if match["denominator"]:
            if int(match["denominator"]) == 0:
                continue
            value /= int(match["denominator"])
        minus = (match["before"] or match["after"] or "+") in "-−"
        # "- 10" is an item of a list; a minus sign stands at its number
        apart = bool(re.match(r"[-−]\s", match[0]))
        found.append(-value if minus and not apart else value)
    return found


def grade_number(gold: str, reply: str) -> Verdict:
    """Compare a reply with a numeric gold answer.

    Rules, first that applies: `hashes` (GSM8K's ####), `boxed`, `marker` ("Answer: ..."), `only_number` of the first
    line, `equals` (what follows the last = of the first line), `ambiguous` (several numbers: wrong), `none`.

    Args:
        gold: A number in any of the written forms that a reply may have.
        reply: The program's answer.

    Raises:
        ValueError: Gold holds no number.
    """
    wanted = numbers(gold)
    if not wanted:
        raise ValueError(f"the gold answer {gold!r} holds no number")
    for rule, pattern in (("hashes", _HASHES), ("boxed", _BOXED), ("marker", _MARKER)):
        if hits := pattern.findall(reply):
            return _numeric_verdict(wanted[-1], hits[-1], rule)
    first_line = next((line for line in reply.strip().splitlines() if line.strip()), "")
    return _numeric_verdict(wanted[-1], first_line, "only_number")


def _numeric_verdict(gold: Fraction, text: str, rule: str) -> Verdict:
    found = numbers(text)
    if not found:
        return Verdict(False, None, "none")
    if len(found) > 1:
        _, equals, tail = text.rpartition("=")
        result = numbers(tail)
        if not equals or len(result) != 1:
            return Verdict(False, text.strip(), "ambiguous")
        found, rule = result, "equals"
    value = found[0]
    shown = str(value.numerator) if value.denominator == 1 else str(float(value))
    return Verdict(value == gold, shown, rule)


def normalized_text(text: str) -> str:
    """Case, articles, punctuation and accents' encoding taken away."""
    text = unicodedata.normalize("NFKC", text).casefold()
    words = re.sub(r"[^\w\s+#]", " ", text).split()  # C, C++ and C# are three answers
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words)


def grade_text(golds: Sequence[str], reply: str) -> Verdict:
    """Compare a reply's first line with any of the accepted answers, by normalized text."""
    if hits := _MARKER.findall(reply):
        said, rule = hits[-1], "marker"
    else:
        said, rule = next((line for line in reply.strip().splitlines() if line.strip()), ""), "first_line"
    text = normalized_text(said)
    if not text:
        return Verdict(False, None, "none")
    return Verdict(text in {normalized_text(gold) for gold in golds}, said.strip(), rule)


def grade(item: Item, reply: str) -> Verdict:
    """Grade by the kind of the gold answer: a number by value, anything else by normalized text."""
    if re.fullmatch(r"[-+−$€£¥\s\d.,/%]+", item.answer) and len(numbers(item.answer)) == 1:
        verdict = grade_number(item.answer, reply)
        return verdict if verdict.right or not item.aliases else grade_text([item.answer, *item.aliases], reply)
    return grade_text([item.answer, *item.aliases], reply)


def is_right(item: Item, reply: str) -> bool:
    """Whether `reply` answers `item`."""
    return grade(item, reply).right
