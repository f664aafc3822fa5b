"""Graders: whether an answer is right, strictly, and which rule read it.

The paper's graders are lenient: any number in the reply that equals gold counts. Here a reply with several candidate
numbers and no marker is wrong, because nobody could act on it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from divcon.benchmarks._drop import exact_match_and_f1, lists_of, normalized_span
from divcon.programs import Item
from divcon.signatures import read_answer

# thousands separators, decimals, fractions, mixed ones too, powers of ten; a minus sign of either kind, a plus sign, a
# currency before or after it
_TEN = r"(?:[eE](?P<e>[-+]?\d{1,3})|\s?[×x*]\s?10\s?(?:\^|\*\*)\s?[({]?\s?(?P<power>[-−+]?\d{1,3})[)}]?)"
_NUMBER = re.compile(
    r"(?<![\w.,])(?P<before>[-+−]?)[$€£¥]?\s?(?P<after>(?<=[$€£¥])[-−])?"
    # Possessive: a number that goes on (3.5kg, 1,00,000, 1.2M) is refused whole, not read as its first digits.
    r"(?:(?P<units>\d++)(?:\s|\s?-\s?|\s?\+\s?|\s?and\s)(?=\d+\s?/\s?\d))?+"
    r"(?P<whole>\d{1,3}(?:,\d{3})++(?!\d)|\d++)?+(?P<part>\.\d++)?+"
    rf"(?:\s?/\s?(?P<denominator>\d++)|{_TEN})?+"
    r"(?!\w|[.,]\d)"
)
# A unit right behind its number, by name: what else may stand there ("1.2M", "5k", "3rd", "2x") changes the number.
_UNITS = (
    "mg|g|kg|lbs?|oz|mm|cm|(?-i:m)|km|ft|in|yd|mi|ml|cl|dl|l|mph|kmh|kph|s|sec|secs|min|mins|h|hr|hrs|hours?|days?|weeks?"
    "|months?|years?|am|pm|a\\.m\\.|p\\.m\\.|usd|eur|gbp|cents?|degrees?|kwh|wh|kw|gb|mb|kb|tb|pts?|px"
)
_GLUED = re.compile(
    rf"(?<![\w.,$€£¥])[-−+]?(?:\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.\d+)?(?=(?:{_UNITS}|°[CF]?)(?![\w]))", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a grader found.

    Attributes:
        right: Whether the answer equals gold.
        extracted: What was read as the answer, None where nothing could be.
        rule: Which rule read it.
        score: DROP's F1; for other graders 1 where it is right, else 0.
    """

    right: bool
    extracted: str | None
    rule: str
    score: float = field(default=-1.0)

    def __post_init__(self) -> None:
        if self.score < 0:
            object.__setattr__(self, "score", float(self.right))


_LATEX = (
    (re.compile(r"(?<=\d)\s*\\[dtc]?frac\{([^{}]*)\}\{([^{}]*)\}"), r" \1/\2"),  # a mixed fraction
    (re.compile(r"\\[dtc]?frac\{([^{}]*)\}\{([^{}]*)\}"), r"\1/\2"),
    (re.compile(r"(?<=\d)\{,\}(?=\d)"), ","),
    (re.compile(r"(?<=\d)(?:\\[,;:!]|\\ |~)(?=\d{3}(?!\d))"), ","),
    (re.compile(r"\\times"), "×"),
    (re.compile(r"\^\{([^{}]*)\}"), r"^\1"),
)


def numbers(text: str, percent: bool = False) -> list[Fraction]:
    """The numbers in `text`, in order, exactly.

    Args:
        text: Any.
        percent: Whether a number before a percent sign is a hundredth of itself; otherwise the sign says nothing.
    """
    found = []
    for written, plain in _LATEX:
        text = written.sub(plain, text)
    for match in _NUMBER.finditer(text):
        if match["whole"] is None and match["part"] is None:
            continue
        value = Fraction((match["whole"] or "0").replace(",", "") + (match["part"] or ""))
        if match["denominator"]:
            if int(match["denominator"]) == 0:
                continue
            value /= int(match["denominator"])
        if match["units"]:
            value += int(match["units"])
        if power := match["e"] or match["power"]:
            value *= Fraction(10) ** int(power.replace("−", "-"))
        if percent and re.match(r"\s?(?:%|per ?cent\b)", text[match.end() :]):
            value /= 100
        minus = (match["before"] or match["after"] or "+") in "-−"
        # "- 10" is an item of a list; a minus sign stands at its number
        apart = bool(re.match(r"[-−]\s", match[0]))
        found.append(-value if minus and not apart else value)
    return found


def grade_number(gold: str, reply: str, percent: bool = False) -> Verdict:
    """Compare a reply with a numeric gold answer.

    The reply is read as a program reads it (`divcon.signatures.read_answer`), and the verdict carries the rule by which
    its answer was found, or: `equals` (the answer has several numbers, and one behind the last =), `glued_unit` (its
    one number has a unit of measure right behind it: 2600g), `ambiguous` (several numbers: wrong), `none`.

    Args:
        gold: A number in any of the written forms that a reply may have.
        reply: The program's answer.
        percent: See `numbers`.

    Raises:
        ValueError: Gold holds no number.
    """
    wanted = numbers(gold, percent)
    if not wanted:
        raise ValueError(f"the gold answer {gold!r} holds no number")
    said, rule = _said(reply)
    return _numeric_verdict(wanted[-1], said.split("\n")[0], rule, percent)


def _numeric_verdict(gold: Fraction, text: str, rule: str, percent: bool) -> Verdict:
    found = numbers(text, percent)
    if not found and len(glued := _GLUED.findall(text)) == 1:
        found, rule = numbers(glued[0], percent), "glued_unit"
    if not found:
        return Verdict(False, None, "none")
    if len(found) > 1:
        _, equals, tail = text.rpartition("=")
        result = numbers(tail, percent)
        if not equals or len(result) != 1:
            return Verdict(False, text.strip(), "ambiguous")
        found, rule = result, "equals"
    value = found[0]
    shown = str(value.numerator) if value.denominator == 1 else str(float(value))
    return Verdict(value == gold, shown, rule)


def normalized_text(text: str) -> str:
    """Case, articles, punctuation and accents' encoding taken away; what is all punctuation stays as it is.

    Signs that carry meaning stay: a minus before a number, and comparisons.
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("−", "-")
    kept = re.sub(r"(?<!\w)-(?=[\d.])", "\0", text)  # a minus sign, which isn't a hyphen
    kept = re.sub(r"([<>=≤≥≠]+)", r" \1 ", kept)
    kept = re.sub(r"[^\w\s+#<>=≤≥≠\0]", " ", kept).replace("\0", "-")  # C, C++ and C# are three answers
    words = kept.split()
    if not any(any(map(str.isalnum, word)) for word in words):
        return " ".join(text.split())
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words)


def grade_text(golds: Sequence[str], reply: str) -> Verdict:
    """Compare what a reply gives as its answer with any of the accepted ones, by normalized text."""
    said, rule = _said(reply)
    text = normalized_text(said)
    if not text:
        return Verdict(False, None, "none")
    return Verdict(text in {normalized_text(gold) for gold in golds}, said.strip(), rule)


def grade_drop(references: Sequence[Sequence[str]], reply: str) -> Verdict:
    """Compare a reply with DROP's gold answers by the official exact match and F1, the best of all gold answers.

    The reply is read as one span and, where a gold answer has several, as a list of spans.

    Args:
        references: Gold answers, each one or more spans.
        reply: The program's answer.
    """
    said, rule = _said(reply)
    said = said.rstrip(" .")  # the end of a sentence, which would make "50.6." another number
    if not normalized_span(said):
        return Verdict(False, None, "none")
    # Without a marker, spans may stand on a line each; what follows a blank line is no part of them.
    lines = re.split(r"\n\s*\n", reply.strip())[0] if rule in ("first_line", "last_line", "conclusion") else said
    listed = lists_of(lines)
    best = (0.0, 0.0)
    for gold in references:
        for spans in listed if len(gold) > 1 else ((said,),):
            best = max(best, exact_match_and_f1(gold, spans))
    return Verdict(best[0] == 1.0, said, rule, best[1])


YES_NO = ("yes", "no", "true", "false", "valid", "invalid")
_NOT = r"(?:\bnot\b|\bcannot(?: be)?\b|\b\w+n['’]t(?: be)?\b)"
# "No tree is older" says nothing yet; "No, ..." and "No it isn't" do.
_DETERMINES = (
    r"no[ \t]+(?!(?:it|he|she|we|they|i|there|this|that|these|those|the|because|since|as|but|and|or|if|when|although"
    r"|though|so|in|on|at|by|for|to|from|of|with|not)\b)[a-z]"
)
_YES_NO = re.compile(
    rf"(?i)(?!{_DETERMINES})(?P<nots>(?:{_NOT}[\s(]*)*)\b(?!{_DETERMINES})(?P<word>{'|'.join(YES_NO)})\b"
)
_DENIED = re.compile(rf"(?i){_NOT}|\bnever\b|\bneither\b|\bno longer\b")
_SAME = {"true": "yes", "false": "no", "valid": "yes", "invalid": "no"}


def grade_yes_no(gold: str, reply: str) -> Verdict:
    """Compare a reply with yes or no (true or false, valid or invalid).

    It is what the answer begins with; elsewhere in it only one of the two may stand. "Not true" is no.
    """
    said, rule = _said(reply)
    hits = list(_YES_NO.finditer(said))
    if not hits:
        return Verdict(False, None, "none")
    words = [_yes_or_no(match) for match in hits]
    begins = _YES_NO.match(said.lstrip(" *_\"'(`"))
    before = re.split(r"[.!?;\n]", said[: hits[0].start()])[-1]
    if not begins and (len(set(words)) > 1 or _DENIED.search(before)):
        return Verdict(False, said, "ambiguous")
    wanted = _SAME.get(gold.strip().casefold(), gold.strip().casefold())
    return Verdict(words[0] == wanted, words[0], rule)


def _yes_or_no(match: re.Match[str]) -> str:
    word = match["word"].casefold()
    denied = len(re.findall(_NOT, match["nots"].casefold())) % 2
    return {"yes": "no", "no": "yes"}[_SAME.get(word, word)] if denied else _SAME.get(word, word)


_LETTER = re.compile(r"\(([A-Za-z])\)|(?:(?<=^)|(?<=\s)|(?<=\*))([A-Z])(?=[).:*]|$)")
_OPTION = re.compile(r"(?m)^\(([A-Z])\)\s*(.+)$")


def grade_choice(gold: str, question: str, reply: str) -> Verdict:
    """Compare a reply with the letter of an option, by the letter or by the option's text.

    Args:
        gold: The letter, in brackets or not.
        question: With the options, a line each: `(A) text`.
        reply: The program's answer.
    """
    said, rule = _said(reply)
    wanted = gold.strip("() ").upper()
    letters = {(a or b).upper() for a, b in _LETTER.findall(said)}
    if len(letters) > 1:
        return Verdict(False, said, "ambiguous")
    if letters:
        letter = letters.pop()
        return Verdict(letter == wanted, letter, rule)
    texts = {normalized_text(text): letter for letter, text in _OPTION.findall(question)}
    letter = texts.get(normalized_text(said), "")
    return Verdict(letter == wanted, letter, "option_text") if letter else Verdict(False, said or None, "none")


def _said(reply: str) -> tuple[str, str]:
    """What a reply gives as its answer, and the rule that found it; nothing by the rule `none`."""
    found = read_answer(reply)
    return (found.text, found.rule) if found else ("", "none")


def grade_as_paper(item: Item, reply: str) -> Verdict:
    """Grade as the paper's published code does, for comparison with its figures only: it is lenient.

    Any number in the reply that equals gold counts, with decimals cut off; otherwise gold standing anywhere in the
    reply does, and only the first span of a gold answer with several.
    """
    gold = item.references[0][0] if item.references else item.answer
    wanted = [int(value) for value in numbers(gold)]
    if wanted and is_number(gold):
        found = [int(value) for value in numbers(reply.replace("=", " ").replace("*", " "))]
        return Verdict(wanted[0] in found, str(wanted[0]) if wanted[0] in found else None, "any_number")
    stands = gold.casefold() in reply.casefold()
    return Verdict(stands, gold if stands else None, "substring")


def is_number(text: str) -> bool:
    """Whether a text is one number, with a currency or a percent sign or none."""
    return bool(re.fullmatch(r"[-+−$€£¥\s\d.,/%]+", text)) and len(numbers(text)) == 1


KINDS = ("number", "percent", "text", "yes_no", "choice", "drop")


def kind_of(answer: str) -> str:
    """The grader for a gold answer of which nothing else is known: by its form."""
    if re.fullmatch(r"\([A-Za-z]\)", answer.strip()):
        return "choice"
    if answer.strip().casefold() in YES_NO:
        return "yes_no"
    return "number" if is_number(answer) else "text"


def grade(item: Item, reply: str) -> Verdict:
    """Grade an answer strictly, by the item's grader; without one, by the form of its gold answer."""
    golds = [item.answer, *item.aliases]
    kind = item.grader or kind_of(item.answer)
    if kind == "drop":
        return grade_drop(item.references or [(gold,) for gold in golds], reply)
    if kind == "yes_no":
        return grade_yes_no(item.answer, reply)
    if kind == "choice":
        return grade_choice(item.answer, item.question, reply)
    if kind == "percent":
        return grade_number(item.answer, reply, percent=True)
    if kind == "number":
        verdict = grade_number(item.answer, reply)
        return verdict if verdict.right or not item.aliases else grade_text(golds, reply)
    return grade_text(golds, reply)


GRADERS: dict[str, Callable[[Item, str], Verdict]] = {"strict": grade, "paper": grade_as_paper}


def item_of(kind: str, golds: Sequence[str], question: str = "", family: str = "") -> Item:
    """An item to grade a reply with, from gold answers alone.

    Args:
        kind: What the answers are, one of `KINDS`; empty where their form says it.
        golds: Accepted answers; for DROP the spans of one are separated by semicolons.
        question: Needed where the answer is one of its options.
        family: The task's name.
    """
    form = kind_of(golds[0])
    kind = form if form in ("choice", "yes_no") else kind
    references = tuple(tuple(span.strip() for span in gold.split(";")) for gold in golds) if kind == "drop" else ()
    return Item(
        id="", question=question, answer=golds[0].strip(), aliases=tuple(gold.strip() for gold in golds[1:]),
        references=references, grader=kind, family=family,
    )  # fmt: skip


def is_right(item: Item, reply: str) -> bool:
    """Whether `reply` answers `item`."""
    return grade(item, reply).right
