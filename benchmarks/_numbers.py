"""The numbers in a text, as exact fractions, in any form in which data and models write them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice

from divcon.signatures import plain

_MINUS = "-−–‒﹣－"
# A number may have thousands separators, decimals, a fraction (also a mixed one) or a power of ten, a sign, and a
# currency before or after the sign.
_POWER = r"\s?(?:\^|\*\*)\s?[({]?\s?(?P<%s>[-−+]?\d{1,3})[)}]?"
_TEN = rf"(?:[eE](?P<e>[-+]?\d{{1,3}})|\s?[×x*·⋅]\s?10{_POWER % 'power'}|(?<=10)(?<![\d.,]10){_POWER % 'of_ten'})"
_NUMBER = re.compile(
    rf"(?<![\w.,^])(?<!\*\*)(?P<before>[{_MINUS}+]|(?i:minus|negative)\s)?[$€£¥]?\s?(?P<after>(?<=[$€£¥])[{_MINUS}])?"
    # The quantifiers are possessive, so that of 3.5kg, 1,00,000 or 1.2M the first digits aren't read as a number.
    r"(?:(?P<units>\d++)(?:\s|-|\s?\+\s?|\s?and\s)(?=\d+\s?/\s?\d))?+"
    r"(?P<whole>\d{1,3}(?:,\d{3})++(?!\d)|\d++)?+(?P<part>\.\d++)?+"
    rf"(?:\s?/\s?(?P<denominator>\d++)|{_TEN})?+"
    r"(?!\w|[.,]\d|\s?(?:\^|\*\*)\s?[-({\d])"  # 2^10 isn't 2
)
_PERCENT = re.compile(r"\s?(?:%|per ?cent\b)")
_MOST_DIGITS = 1_000  # of a number, so that its arithmetic takes no time; Python itself converts 4,300 at most
_BEYOND_FLOATS = 10**300

# Units that may follow a number without a space. Other letters ("1.2M", "5k", "3rd", "2x") change the number.
_UNITS = (
    "mg|g|kg|lbs?|oz|mm|cm|(?-i:m)|km|ft|in|yds?|mi|ml|cl|dl|l|gal|mph|kmh|km/h|kph|m/s|rpm|s|secs?|mins?|h|hrs?|hours?"
    "|days?|weeks?|months?|years?|yrs?|am|pm|a\\.m\\.|p\\.m\\.|usd|eur|gbp|dollars?|euros?|cents?|degrees?|kwh|wh|kw"
    "|gb|mb|kb|tb|pts?|points?|px|k?cal|hz|[km]hz"
)
_GLUED = re.compile(
    rf"(?<![\w.,$€£¥])[{_MINUS}+]?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?"
    rf"(?=(?:(?:{_UNITS})(?:\^?[23]|[²³])?|°[CF]?)(?![\w]))",
    re.IGNORECASE,
)

_ARGUMENT = r"\s*(?:\{([^{}]*)\}|(\d))"
_FRACTION = re.compile(rf"(?P<mixed>(?<=\d)\s*)?\\[dtc]?frac{_ARGUMENT}{_ARGUMENT}")
_VULGAR = re.compile("(?P<mixed>(?<=\\d)\\s?)?(?P<sign>[¼-¾⅐-⅞])")
_EXPONENT = re.compile(r"(?<=10)[⁺⁻]?[⁰¹²³⁴-⁹]{1,3}")


def numbers(text: str, percent: bool = False) -> list[Fraction]:
    """The numbers in `text`, in order, as exact fractions.

    Of a number's digits the first 1,000 count.

    Args:
        text: Any text.
        percent: Whether a number before a percent sign is divided by 100; otherwise the sign is ignored.
    """
    return list(_numbers(_as_plain(text), percent))


def first_numbers(text: str, count: int, percent: bool = False) -> list[Fraction]:
    """The first numbers in `text`, at most `count`; see `numbers`."""
    return list(islice(_numbers(_as_plain(text), percent), count))


def glued_number(text: str) -> str | None:
    """The only number in `text` that a unit follows without a space, as in 2600g; None where there is none, or more."""
    glued = _GLUED.findall(text)
    return glued[0] if len(glued) == 1 else None


def is_number(text: str) -> bool:
    """Whether a text is one number, with or without a currency or percent sign."""
    text = _as_plain(text)
    return len(list(_numbers(text))) == 1 and bool(re.fullmatch(r"[-+−$€£¥\s\d.,/%]*", _NUMBER.sub("", text)))


def shown(value: Fraction) -> str:
    """A number as a person reads it: whole, else with decimals, else as a fraction."""
    decimal = value.denominator > 1 and abs(value) < _BEYOND_FLOATS
    return str(float(value)) if decimal else str(value)


def _numbers(text: str, percent: bool = False) -> Iterator[Fraction]:
    for match in _NUMBER.finditer(text):
        if match["whole"] is None and match["part"] is None:
            continue
        whole, part = (match["whole"] or "").replace(",", ""), (match["part"] or ".")[1:]
        value = _fraction(whole or "0", part)
        if match["denominator"]:
            if not (denominator := _fraction(match["denominator"])):
                continue
            value /= denominator
        if match["units"]:
            if value < 1:  # 2 1/2
                value += _fraction(match["units"])
            else:  # 2 11/2
                yield _fraction(match["units"])
        if power := match["e"] or match["power"]:
            value *= Fraction(10) ** int(power.replace("−", "-"))
        if power := match["of_ten"]:
            value = Fraction(10) ** int(power.replace("−", "-"))
        if percent and _PERCENT.match(text, match.end()):
            value /= 100
        sign = match["before"] or match["after"] or "+"
        # "- 10" is an item of a list: a minus sign has no space behind it.
        apart = bool(re.match(rf"[{_MINUS}]\s", match[0]))
        yield -value if sign != "+" and not apart else value


def _fraction(whole: str, part: str = "") -> Fraction:
    """The number with these digits, of which only the first count where there are too many."""
    part = part[:_MOST_DIGITS]
    return Fraction(int(whole[:_MOST_DIGITS] + part), 10 ** len(part))


def _as_plain(text: str) -> str:
    """The text with its numbers in plain characters: 2 1/2 for `2\\frac{1}{2}` and 2½, 10^6 for 10⁶."""
    if "\\" in text:
        text = _FRACTION.sub(
            lambda found: f"{_gap(found)}{found[2] or found[3] or ''}/{found[4] or found[5] or ''}", plain(text)
        )
        text = re.sub(r"\^\{([^{}]*)\}", r"^\1", text)
    if text.isascii():
        return text
    text = _VULGAR.sub(lambda found: _gap(found) + unicodedata.normalize("NFKC", found["sign"]), text)
    text = _EXPONENT.sub(lambda found: f"^{unicodedata.normalize('NFKC', found[0])}", text)
    return re.sub(r"(?<=\d)[\u00a0\u2007\u2009\u202f](?=\d{3}(?!\d))", ",", text).translate({0x2044: "/", 0x2215: "/"})


def _gap(fraction: re.Match[str]) -> str:
    """What stands before a fraction: a blank where it is the rest of a mixed one."""
    return "" if fraction["mixed"] is None else " "
