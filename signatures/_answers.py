"""`read_answer`: finds the final answer in a reply, by the forms in which models give one.

The programs read a solver's replies with it and the graders grade with it, so that what is measured is what a user
gets. It names the rule that found the answer, and finds none in a reply to which no rule applies.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from divcon.signatures._errors import SubquestionsError
from divcon.signatures._turns import own_words


class Reading(NamedTuple):
    """What `read_answer` found.

    Attributes:
        text: The answer, without markup around it.
        rule: How it was found: `hashes` (`#### 7`), `final_answer` ("Final answer: 7"), `boxed` (`\\boxed{7}`),
            `answer_line` (a line "Answer: 7"), `answer_is` ("the answer is 7", or "Answer: 7" behind other text),
            `bold` (the last line has one thing in bold), `only_line` (the reply has one line), `last_line` (the last
            line is an answer alone), `conclusion` (the last line says "So ..." with one number at most),
            `first_line` (the first line is an answer alone, and explained below) or `list` (it is a list of answers).
        before: The text before the answer: the steps.
    """

    text: str
    rule: str
    before: str


# The version of these rules, which is part of every stored verdict's key. Raise it with each change of what they read.
READER = 2
# The rules by an explicit mark. They hold even where a reply was cut off after its answer.
MARKED = ("hashes", "final_answer", "boxed", "answer_line", "answer_is")

_LEAD = r"[ \t]*(?:[-*+•>]\s+|\#{1,6}[ \t]+)?[*_]{0,3}"
_SEPARATOR = r"[*_]{0,3}[ \t]*(?:[:：=]|[-–—](?=\s)|\bis\b[:：]?|\bare\b[:：]?)(?:[*_]{1,3}(?=\s|$))?[ \t]*"
_HASHES = re.compile(r"(?m)^[^\n#]*\#\#\#\#[ \t]*(?=[-+−$€£¥(\\*]*[.\d])(?!\d+[.)][ \t]+[A-Za-z])(?P<value>[^\n]*)")
_FINAL = re.compile(
    rf"(?im)(?P<start>^{_LEAD}|[.!?:;,]\s+|\b(?:the|my|our|so|thus|therefore|hence),?\s+)"
    rf"(?P<label>(?:the )?final (?:answer|result))(?: to [^:.\n]{{0,80}})?{_SEPARATOR}(?P<value>[^\n]*)"
)
_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{(?P<value>(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_LINE = re.compile(rf"(?im)^{_LEAD}(?:the )?(?:correct )?answer{_SEPARATOR}(?P<value>[^\n]*)")
_INLINE = re.compile(
    rf"(?i)\b(?:correct |right )?answer(?: to (?:the|this|your) [^:.\n]{{0,60}}?)?"
    rf"(?:{_SEPARATOR}|[ \t]+(?:would|will|must|should) be[ \t]+)(?P<value>[^\n]*)"
)
# The second label in "Final answer: Answer: 7".
_LABEL = re.compile(rf"(?i)(?:the )?(?:final |correct )?answer{_SEPARATOR}")
_BOLD = re.compile(r"\*\*(?=\S)(?P<value>[^*\n]+?)(?<=[^\s:])\*\*(?!\s*:)")
_CONCLUDES = re.compile(
    r"(?i)\W*(?:so|therefore|thus|hence|consequently|accordingly|in (?:total|conclusion|summary|all)|altogether|finally"
    r"|as a result|overall)\b"
)
# The beginning of a new problem, which the model has invented after its answer.
_NEW_PROBLEM = re.compile(
    rf"(?im)^{_LEAD}(?:(?:next |new |another )?(?:question|problem|exercise|example|passage|task|input)|q|###[ \t]*\w+)"
    r"[*_]{0,3}[ \t]*[:：]|^[ \t]*-{3,}[ \t]*$\n(?=.*\?)"
)
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+•]\s+|\(?[A-Za-z\d]{1,3}[.)]\s+)")
_STEP = re.compile(rf"{_LEAD}(?:\(?\d{1, 2}[.):]|step|sub-?question|part|[qa]\d|first|second|then|next)", re.IGNORECASE)
_PLACEHOLDERS = ("...", "…", "..")  # copied from the prompt's "Final answer: ..."
_ALONE = 6  # words of a line that is an answer and nothing else


def read_answer(reply: str, *, steps: bool = False) -> Reading | None:
    """Find the final answer in a reply; None where no rule finds one.

    Turns and problems that the model invents after its answer are ignored. The rules are tried in this order: `####`
    and then "Final answer:", each at its first place, since a reply ends with it; `\\boxed{}` or a line "Answer:",
    whichever stands last; the other rules of `Reading` in their order. An "Answer:" that opens the reply, with the
    steps below it, is no answer.

    Args:
        reply: As the model wrote it.
        steps: Whether the prompt asked for steps before the answer. A list, or one step alone, is no answer then.

    Examples:
        >>> read_answer("3 * 4 = 12.\\nThe answer is **12** apples.").text
        '12 apples'
        >>> read_answer("#### 96\\n\\nWhat is 3 + 4?\\n#### 7").text
        '96'
        >>> read_answer("First I count the bags on the table.\\nThen I count the apples in each of them.") is None
        True
    """
    try:
        text = own_words(reply).strip()
    except SubquestionsError:
        return None  # it ends inside its thoughts
    if not text:
        return None
    for pattern, rule in ((_HASHES, "hashes"), (_FINAL, "final_answer")):
        for match in pattern.finditer(text):
            if found := _value(text, match):
                return Reading(found, rule, text[: match.start()].strip())
    text = _own_problem(text)
    return _marked(text) or _unmarked(text, steps)


def _marked(text: str) -> Reading | None:
    boxed = [
        Reading(found, "boxed", text[: text.rfind("\n", 0, match.start()) + 1])
        for match in _BOXED.finditer(text)
        if (found := plain(match["value"]))
    ]
    lines = [
        Reading(found, "answer_line", text[: match.start()])
        for match in _LINE.finditer(text)
        if (found := _value(text, match)) and not _only_opens(text, match, found)
    ]
    # A box in the line "Answer:" is that line's.
    last = max((*lines[-1:], *boxed[-1:]), key=lambda found: len(found.before), default=None)
    if last is None:
        said = [
            (m, found) for m in _INLINE.finditer(text) if (found := _value(text, m)) and not _only_opens(text, m, found)
        ]
        if said:
            match, found = said[-1]
            start = text.rfind("\n", 0, match.start()) + 1
            last = Reading(found, "answer_is", text[:start])
    return last and last._replace(before=last.before.strip())


def _unmarked(text: str, steps: bool) -> Reading | None:
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return None
    *above, last = lines
    before = text[: text.rfind(last)].strip()
    if above and len(bold := _BOLD.findall(last)) == 1 and (found := plain(bold[0])):
        return Reading(found, "bold", before)
    if above and all(map(_LIST_ITEM.match, lines)):
        return None if steps else Reading("\n".join(map(plain, lines)), "list", "")
    if not above:
        if steps and _LIST_ITEM.match(last):
            return None
        opened = _LINE.match(last)  # "Answer:" alone, or the whole reply behind it
        found = plain(last[opened.start("value") :] if opened else last)
        return Reading(found, "only_line", "") if found else None
    found = plain(last)
    step = _LIST_ITEM.match(last) or _STEP.match(last)
    if _is_alone(found) and not step and not last.rstrip().endswith(("?", ":")):
        return Reading(found, "last_line", before)
    if _CONCLUDES.match(last) and not last.rstrip().endswith(("?", ":")) and _one_number(found):
        return Reading(found, "conclusion", before)
    first = plain(lines[0])
    if _is_alone(first) and not lines[0].rstrip().endswith(("?", ":")) and not _LIST_ITEM.match(lines[0]):
        return Reading(first, "first_line", "")
    return None


def _value(text: str, match: re.Match[str]) -> str:
    """The answer behind a mark: the rest of its line, else the line below, with all items where it begins a list."""
    value, end = match["value"], match.end("value")
    below = text[end:].split("\n")[1:]
    if not value.strip(" \t*_:$"):
        rest = [line for line in below if line.strip()]
        if not rest or (_STEP.match(rest[0]) and len(rest) > 1 and not _LIST_ITEM.match(rest[0])):
            return ""
        value, below = rest[0], below[below.index(rest[0]) + 1 :]
        if value.strip().startswith(("\\[", "$$")) and len(rest) > 1 and len(value.strip()) == 2:
            value, below = rest[1], []
    if _LIST_ITEM.match(value):
        for line in below:
            if not _LIST_ITEM.match(line):
                break
            value += "\n" + line
    found = plain(value)
    while again := _LABEL.match(found):
        found = found[again.end() :]
    return "" if found in _PLACEHOLDERS else found


def _only_opens(text: str, match: re.Match[str], found: str) -> bool:
    """Whether an "Answer:" opens the reply and has steps below it, so that it marks no answer."""
    if text[: match.start()].strip(" \t\n*#_"):
        return False
    below = [line for line in text[match.end("value") :].split("\n") if line.strip()]
    if not match["value"].strip(" \t*_"):
        return len(below) > 1 and not all(map(_LIST_ITEM.match, below))
    return bool(below) and not _is_alone(found)


def _own_problem(text: str) -> str:
    """The reply up to the first new problem that the model invents after its answer."""
    ends = [match.end() for pattern in (_BOXED, _LINE, _INLINE) if (match := pattern.search(text))]
    if not ends:  # one line, and then more
        first, blank, _ = text.partition("\n\n")
        if not blank or "\n" in first:
            return text
        if not _is_alone(plain(first)):
            return first if _NEW_PROBLEM.match(text[len(first) :].lstrip("\n")) else text
        ends = [len(first)]
    end = min(ends)
    stops = [match.start() for match in _NEW_PROBLEM.finditer(text, end)]
    stops += [start for start, paragraph in _paragraphs(text, end) if _poses(paragraph)]
    return text[: min(stops)].rstrip() if stops else text


def _paragraphs(text: str, start: int) -> Iterator[tuple[int, str]]:
    for match in re.finditer(r"\n[ \t]*\n+", text[start:]):
        at = start + match.end()
        yield at, re.split(r"\n[ \t]*\n", text[at:])[0]


def _poses(paragraph: str) -> bool:
    """Whether a paragraph poses a problem: statements, then a question. A question alone may be a subquestion."""
    first = paragraph.strip().split("\n")[0]
    if _LIST_ITEM.match(first) or _STEP.match(first):
        return False
    told, asked, _ = first.partition("?")
    return bool(asked) and bool(re.search(r"[.!]\s+[A-Z]", told))


def _is_alone(line: str) -> bool:
    """Whether a line is an answer and nothing else: few words, and no sentence."""
    words = line.split()
    if not words or len(words) > _ALONE or line.endswith((",", ";")):
        return False
    return not (len(words) > 3 and line.endswith(".") and words[0][0].isupper() and words[0].isalpha())


def _one_number(line: str) -> bool:
    return len(re.findall(r"\d+(?:[.,]\d+)*", line.rpartition("=")[2])) <= 1


# ---- markup

_WRAPPED = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|operatorname|mbox|boxed|fbox)\s*\{([^{}]*)\}")
_SPACE = re.compile(r"\\[,;:!]|\\ |~|\\q?quad\b|\\thinspace\b")
_DIGITS_APART = re.compile(r"(?<=\d)(?:\\[,;:!]|\\ |~|\{,\}|\\thinspace\b\s?)(?=\d{3}(?!\d))")


def plain(text: str) -> str:
    """Remove the markup that models put around an answer: Markdown's emphasis, LaTeX's delimiters and wrappers.

    Fractions stay in LaTeX.

    Examples:
        >>> plain(r"**\\(\\text{B}\\)**"), plain(r"48\\,250")
        ('B', '48,250')
    """
    text = _DIGITS_APART.sub(",", text)
    for _ in range(3):
        text = _WRAPPED.sub(r"\1", text)
    text = _SPACE.sub(" ", text)
    text = re.sub(r"\\[()\[\]]", "", text)
    text = re.sub(r"\$\$|(?<![\w$])\$(?=[^$\n]*[^\s$]\$(?![\w$]))([^$\n]*)\$(?![\w$])", lambda m: m[1] or "", text)
    text = re.sub(r"\\([%$&#_{}])", r"\1", text).replace("\\times", "×").replace("\\cdot", "·")
    text = re.sub(r"\*\*([^*\n]*)\*\*", r"\1", text)
    text = re.sub(r"(?<![\w*])\*(?=\S)([^*\n]+?)(?<=\S)\*(?![\w*])", r"\1", text)
    text = re.sub(r"(?<![\w_])__?(?=\S)([^_\n]+?)(?<=\S)__?(?![\w_])", r"\1", text)
    text = re.sub(r"\A[ \t]*(?:\*\*|__)|(?:\*\*|__)[ \t]*\Z", "", text)
    lines = [" ".join(line.split()) for line in text.strip().split("\n")]
    text = "\n".join(lines).strip("`").strip()
    return re.sub(r"(?<=[\w)%\]])\.$", "", text) if not re.search(r"\b[A-Z]\.$|\.\w\.$", text) else text
