"""Graders: whether an answer is right, and by which rule it was read.

The paper's graders are lenient: a reply is right if any number in it equals the gold answer. Here a reply with several
numbers and no marked answer is wrong, because a reader couldn't tell which one is meant.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from divcon.benchmarks._drop import exact_match_and_f1, lists_of, normalized_span
from divcon.benchmarks._numbers import first_numbers, glued_number, is_number, numbers, shown
from divcon.programs import Item
from divcon.signatures import own_words, read_answer

_LONGEST = 8_192  # characters of a reply whose numbers the paper's grader compares
_MOST_SPANS = 1_000  # characters that may list spans


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of a grader.

    Attributes:
        right: Whether the answer equals the gold answer.
        extracted: The answer that was read, or None.
        rule: The rule that read it.
        score: DROP's F1; for other graders 1 where the answer is right, else 0.
    """

    right: bool
    extracted: str | None
    rule: str
    score: float = field(default=-1.0)

    def __post_init__(self) -> None:
        if self.score < 0:
            object.__setattr__(self, "score", float(self.right))


def grade_number(gold: str, reply: str, percent: bool = False) -> Verdict:
    """Compare a reply with a numeric gold answer.

    The reply is read by `divcon.signatures.read_answer`, as in a program. The verdict's rule is the reader's, or one of
    these: `equals` (the answer has several numbers, and one of them after the last =), `glued_unit` (its only number is
    followed by a unit without a space, as in 2600g), `ambiguous` (it has several numbers, and is wrong), `none`.

    Args:
        gold: A number, in any form that a reply may have.
        reply: The program's answer.
        percent: See `numbers`.

    Raises:
        ValueError: The gold answer holds no number.
    """
    wanted = numbers(gold, percent)
    if not wanted:
        raise ValueError(f"the gold answer {gold!r} holds no number")
    said, rule = _said(reply)
    return _numeric_verdict(wanted[-1], said, rule, percent)


def _numeric_verdict(gold: Fraction, text: str, rule: str, percent: bool) -> Verdict:
    found = first_numbers(text, 2, percent)
    if not found and (glued := glued_number(text)):
        found, rule = numbers(glued, percent), "glued_unit"
    if not found:
        return Verdict(False, None, "none")
    if len(found) > 1:
        _, equals, tail = text.rpartition("=")
        found = first_numbers(tail, 2, percent)
        if not equals or len(found) != 1:
            return Verdict(False, text.strip(), "ambiguous")
        rule = "equals"
    return Verdict(found[0] == gold, shown(found[0]), rule)


_COMPARISONS = {
    "!=": "≠", "<=": "≤", ">=": "≥", "\\neq": "≠", "\\leq": "≤", "\\geq": "≥", "\\ne": "≠", "\\le": "≤", "\\ge": "≥",
    "\\lt": "<", "\\gt": ">",
}  # fmt: skip
_COMPARISON = re.compile("|".join(map(re.escape, _COMPARISONS)) + r"(?![a-z])")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
# What isn't punctuation: a minus sign, which isn't a hyphen or a dash, and what stands between digits in 3.5, 1/2, 3:2.
_SIGN = re.compile(r"(?<!\w)-(?=[\w.(])|(?<=\d)[./:](?=\d)")
_KEPT = str.maketrans("-./:", "\ue000\ue001\ue002\ue003")  # for as long as punctuation is removed
_GIVEN_BACK = str.maketrans("\ue000\ue001\ue002\ue003", "-./:")
_PUNCTUATION = re.compile("[^\\w\\s+#<>=≤≥≠±×÷\ue000-\ue003]|_")  # C, C++ and C# are three answers


def normalized_text(text: str) -> str:
    """The text without case, articles and punctuation, in Unicode normal form. A text of punctuation alone is kept.

    Signs that carry meaning are kept too: a minus before a number or a name, comparisons, and what stands inside a
    number or a ratio.
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("−", "-")
    kept = re.sub(r"(?<!\w)[–‒](?=[\d.])", "-", text)
    kept = _COMPARISON.sub(lambda found: _COMPARISONS[found[0]], _THOUSANDS.sub("", kept))
    kept = _SIGN.sub(lambda found: found[0].translate(_KEPT), kept)
    kept = re.sub(r"([<>=≤≥≠±×÷])", r" \1 ", _PUNCTUATION.sub(" ", kept)).translate(_GIVEN_BACK)
    words = kept.split()
    if not any(any(map(str.isalnum, word)) for word in words):
        return " ".join(text.split())
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words)


def grade_text(golds: Sequence[str], reply: str) -> Verdict:
    """Compare the answer in a reply with the accepted answers, by normalized text."""
    said, rule = _said(reply)
    text = normalized_text(said)
    if not text:
        return Verdict(False, None, "none")
    return Verdict(text in {normalized_text(gold) for gold in golds}, said.strip(), rule)


def grade_drop(references: Sequence[Sequence[str]], reply: str) -> Verdict:
    """Compare a reply with DROP's gold answers by the official exact match and F1. The best of all gold answers counts.

    The reply is read as one span; for a gold answer with several spans it is read as a list of spans.

    Args:
        references: The gold answers, each as its spans.
        reply: The program's answer.
    """
    said, rule = _said(reply)
    said = said.rstrip(" .")  # with the full stop of a sentence, "50.6." would be another number
    if not normalized_span(said):
        return Verdict(False, None, "none")
    # Without a marked answer, spans may be listed one per line, up to the first blank line.
    unmarked = rule in ("first_line", "last_line", "conclusion")
    lines = re.split(r"\n[ \t]*\n", own_words(reply).strip(), maxsplit=1)[0] if unmarked else said
    listed = lists_of(lines[:_MOST_SPANS])
    best = (0.0, 0.0)
    for gold in references:
        for spans in listed if len(gold) > 1 else ((said,),):
            best = max(best, exact_match_and_f1(gold, spans))
    return Verdict(best[0] == 1.0, said, rule, best[1])


YES_NO = ("yes", "no", "true", "false", "valid", "invalid")
_NOT = r"(?:\bnot\b|\bcannot(?: be)?\b|\b\w+n['’]t(?: be)?\b)"
# "No" in "No tree is older" isn't an answer; in "No, ..." and "No it isn't" it is.
_DETERMINES = (
    r"no[ \t]+(?!(?:it|he|she|we|they|i|you|there|this|that|these|those|the|his|her|its|their|our|your|my|because|since"
    r"|as|but|and|or|if|when|while|although|though|unless|so|in|on|at|by|for|to|from|of|with|not)\b)[\"'“‘]?[^\W_]"
)
_WORD = rf"\b(?!{_DETERMINES})(?:{'|'.join(YES_NO)})\b"
_YES_NO = re.compile(rf"(?i)(?P<nots>(?:{_NOT}[\s(]*+)++)(?P<denied>{_WORD})?|(?P<word>{_WORD})")
_DENIED = re.compile(rf"(?i){_NOT}|\bnever\b|\bneither\b|\bno longer\b")
# "No tree shows that it is true"; but not "No tree is older, so it is true" or "There is no doubt that it is true"
_NONE_OF = re.compile(rf"(?i)\b(?!no (?:doubt|question)\b){_DETERMINES}[^,]*\Z")
_SAME = {"true": "yes", "false": "no", "valid": "yes", "invalid": "no"}


def grade_yes_no(gold: str, reply: str) -> Verdict:
    """Compare a reply with yes or no (true or false, valid or invalid).

    The word that the answer begins with counts. If it begins with neither, only one of the two may occur in it. "Not
    true" is no.
    """
    said, rule = _said(reply)
    hits = [match for match in _YES_NO.finditer(said) if match["word"] or match["denied"]]
    if not hits:
        return Verdict(False, None, "none")
    words = [_yes_or_no(match) for match in hits]
    before = said[: hits[0].start()]
    begins = not before.strip(" *_\"'(`")
    before = re.split(r"[.!?;\n]", before)[-1]
    if not begins and (len(set(words)) > 1 or _DENIED.search(before) or _NONE_OF.search(before)):
        return Verdict(False, said, "ambiguous")
    wanted = _SAME.get(gold.strip().casefold(), gold.strip().casefold())
    return Verdict(words[0] == wanted, words[0], rule)


def _yes_or_no(match: re.Match[str]) -> str:
    word = (match["word"] or match["denied"]).casefold()
    word = _SAME.get(word, word)
    nots = re.findall(_NOT, (match["nots"] or "").casefold())
    return {"yes": "no", "no": "yes"}[word] if len(nots) % 2 else word


_LETTER = re.compile(r"\(([A-Za-z])\)|(?:(?<=^)|(?<=\s)|(?<=\*))([A-Z])(?=[).:*]|$)")
_OPTION = re.compile(r"(?m)^\(([A-Z])\)\s*(.+)$")


def grade_choice(gold: str, question: str, reply: str) -> Verdict:
    """Compare a reply with the letter of an option, by the letter or by the option's text.

    Args:
        gold: The letter, with or without brackets.
        question: The question with its options, one per line: `(A) text`.
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
    """The answer in a reply, and the rule that found it; an empty text and `none` where there is no answer."""
    found = read_answer(reply)
    return (found.text, found.rule) if found else ("", "none")


def grade_as_paper(item: Item, reply: str) -> Verdict:
    """Grade as leniently as the paper's published code, for comparison with its figures only.

    For a gold answer that is a number, any number in the reply that equals it counts, without decimals; of a reply of
    more than 8,192 characters the last ones count. Any other gold answer has to occur somewhere in the reply; of
    several spans only the first one is looked for.
    """
    gold = item.references[0][0] if item.references else item.answer
    wanted = [int(value) for value in numbers(gold)]
    if wanted and is_number(gold):
        found = [int(value) for value in numbers(reply[-_LONGEST:].replace("=", " ").replace("*", " "))]
        return Verdict(wanted[0] in found, str(wanted[0]) if wanted[0] in found else None, "any_number")
    stands = gold.casefold() in reply.casefold()
    return Verdict(stands, gold if stands else None, "substring")


KINDS = ("number", "percent", "text", "yes_no", "choice", "drop")


def kind_of(answer: str) -> str:
    """The grader for a gold answer, chosen by the answer's form."""
    if re.fullmatch(r"\([A-Za-z]\)", answer.strip()):
        return "choice"
    if answer.strip().casefold() in YES_NO:
        return "yes_no"
    return "number" if is_number(answer) else "text"


def grade(item: Item, reply: str) -> Verdict:
    """Grade an answer strictly, with the item's grader. Without one, the form of the gold answer decides."""
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
    """An item for grading a reply, made from its gold answers.

    Args:
        kind: The kind of the answers, one of `KINDS`; empty to choose it by their form.
        golds: The accepted answers; for DROP, the spans of an answer are separated by semicolons.
        question: The question, needed where the answer is one of its options.
        family: The task's name.
    """
    form = kind_of(golds[0])
    kind = form if form in ("choice", "yes_no") else kind
    references = tuple(tuple(span.strip() for span in gold.split(";")) for gold in golds) if kind == "drop" else ()
    answer, *aliases = (gold.strip() for gold in golds)
    return Item(
        id="",
        question=question,
        answer=answer,
        aliases=tuple(aliases),
        references=references,
        grader=kind,
        family=family,
    )


def is_right(item: Item, reply: str) -> bool:
    """Whether `reply` answers `item`."""
    return grade(item, reply).right
