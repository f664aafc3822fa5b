"""`read_answer`: finds the final answer in a reply, by the forms in which models give one.

The programs read a solver's replies with it and the graders grade with it, so that what is measured is what a user
gets. It names the rule that found the answer, and finds none in a reply to which no rule applies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile
from typing import NamedTuple

from divcon.signatures._errors import SubquestionsError
from divcon.signatures._markup import plain
from divcon.signatures._turns import own_words


class Reading(NamedTuple):
    """What `read_answer` found.

    Attributes:
        text: The answer, without markup around it.
        rule: How it was found: `hashes` (`#### 7`), `final_answer` ("Final answer: 7"), `boxed` (`\\boxed{7}`),
            `answer_line` (a line "Answer: 7"), `answer_is` ("the answer is 7", or "Answer: 7" behind other text),
            `bold` (the last line has one thing in bold), `only_line` (the reply has one line), `last_line` (the last
            line is an answer alone), `conclusion` (the last line says "So ..." with one number at most),
            `first_line` (the first line is an answer alone, and explained below) or `list` (it is a list of answers, or
            begins with one).
        before: The text before the answer: the steps.
    """

    text: str
    rule: str
    before: str

    def is_whole_in(self, reply: str) -> bool:
        """Whether the answer stands whole in a reply that ran out of tokens: it has a mark, and isn't in its last line.

        The last line may be half of one, and "Answer: 1" the beginning of "Answer: 12"; a closed box is whole anywhere.
        """
        if self.rule == "boxed":
            return True
        lines = read_answer(reply[: reply.rfind("\n") + 1]) if self.rule in MARKED else None
        return lines is not None and lines[:2] == self[:2]


# The version of these rules, which is part of every stored verdict's key. Raise it with each change of what they read.
READER = 4
# The rules by an explicit mark. They hold even where a reply was cut off after its answer.
MARKED = ("hashes", "final_answer", "boxed", "answer_line", "answer_is")

# A longer reply is a looping model's, or goes on after its answer: it is read at both ends. What stands behind a mark,
# or on a line, is read up to the second length, and a list up to so many items.
_LONGEST = 16_384  # characters
_LONGEST_LINE = 4_096
_MOST_ITEMS = 200

_LEAD = r"[ \t]*(?:[-*+•>]\s+|\#{1,6}[ \t]+)?[*_]{0,3}"
_SEPARATOR = r"[*_]{0,3}[ \t]*(?:[:：=]|[-–—](?=\s)|\bis\b[:：]?|\bare\b[:：]?)(?:[*_]{1,3}(?=\s|$))?[ \t]*"
_HASHES = re.compile(r"(?m)^[^\n#]*\#\#\#\#[ \t]*(?=[-+−–$€£¥(\\*]*[.\d])(?!\d+[.)][ \t]+[A-Za-z])(?P<value>[^\n]*)")
_FINAL = re.compile(
    rf"(?im)(?P<start>^{_LEAD}|[.!?:;,]\s+|\b(?:the|my|our|so|thus|therefore|hence),?\s+)"
    rf"(?P<label>(?:the )?final (?:answer|result))(?: to [^:.\n]{{0,80}})?{_SEPARATOR}(?P<value>[^\n]*)"
)
_BOX_OR_BRACE = re.compile(r"(?P<box>\\(?:boxed|fbox)\s*\{)|\\[\\{}]|[{}]")
_LINE = re.compile(rf"(?im)^{_LEAD}(?:the )?(?:correct )?answer{_SEPARATOR}(?P<value>[^\n]*)")
_INLINE = re.compile(
    rf"(?i)\b(?:correct |right )?answer(?: to (?:the|this|your) [^:.\n]{{0,60}}?)?"
    rf"(?:{_SEPARATOR}|[ \t]+(?:would|will|must|should) be[ \t]+)(?P<value>[^\n]*)"
)
# The second label in "Final answer: Answer: 7".
_LABELS = re.compile(rf"(?i)\A(?:[ \t*_]*(?:the )?(?:final |correct )?answer{_SEPARATOR})++")
_BOLD = re.compile(r"\*\*(?=\S)(?P<value>[^*\n]+?)(?<=[^\s:])\*\*(?!\s*:)")
_CONCLUDES = re.compile(
    r"(?i)\W*(?:so|therefore|thus|hence|consequently|accordingly|in (?:total|conclusion|summary|all)|altogether|finally"
    r"|as a result|overall)\b"
)
# The beginning of a new problem, which the model has invented after its answer.
_NEW_PROBLEM = re.compile(
    rf"(?im)^{_LEAD}(?:(?:next |new |another )?(?:question|instruction|(?:problem|exercise|example|passage|task|input)"
    r"(?:[ \t]+\d{1,3})?)|q)[*_]{0,3}[ \t]*[:：]|^[ \t]*-{3,}[ \t]*$\n(?=.*\?)"
)
_BLANK_LINES = re.compile(r"\n[ \t]*\n+")
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+•]\s+|\(?(?:\d{1,3}|[A-Za-z]|[ivx]{2,4})[.)]\s+)")
# "1. Add them", "Step 2: ...", "Q1: ...", "First she buys 3", "Then 2 are left"; but not "12:30" or "first half"
_STEP = re.compile(
    rf"{_LEAD}(?:\(?\d{{1,2}}[.):]\s+\S|(?:step|sub-?question|part)s?[ \t]*(?:\#?\d|[a-z]\b|[*_]*[:：])"
    r"|[qa]\d{1,3}[.):：]|(?:first|second|third)(?:ly)?(?:[,:：]|[ \t]+(?:i|we|you|he|she|it|they)\b)"
    r"|(?:then|next)(?:[,:：]|[ \t]+(?-i:[a-z\d$(]|I\b)))",
    re.IGNORECASE,
)
_LABELLED = re.compile(r"=|[^\W\d][^\n:]{0,60}:\s")  # "3 * 6 = 18", "First day: 18 tiles"
_PLACEHOLDERS = ("...", "…", "..")  # copied from the prompt's "Final answer: ..."
_ALONE = 6  # words of a line that is an answer and nothing else
_MOST_WORDS = 12  # of an answer in a list


def read_answer(reply: str, *, steps: bool = False) -> Reading | None:
    """Find the final answer in a reply; None where no rule finds one.

    Turns and problems that the model invents after its answer are ignored. The rules are tried in this order: `####`
    or "Final answer:", whichever paragraph has one first, since a reply ends with it; `\\boxed{}` or a line "Answer:",
    whichever stands last; the other rules of `Reading` in their order. An "Answer:" that opens the reply, with the
    steps below it, is no answer.

    Of a reply of more than 16,384 characters the middle isn't read; the answer stands at one of its ends.

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
        text = _both_ends(own_words(reply).strip())
    except SubquestionsError:
        return None  # it ends inside its thoughts
    if not text:
        return None
    own = _own_problem(text, (_HASHES, _FINAL, _LINE))
    if ended := _ended(own):
        return ended
    own = _own_problem(own, (_INLINE,))
    return _marked(own) or _unmarked(own, steps)


def _ended(text: str) -> Reading | None:
    """The answer by a mark that ends the reply, at its first place."""
    hashes, final = next(_said(text, _HASHES), None), next(_said(text, _FINAL), None)
    # "The final answer is 3 * 40 = 120 pints\n#### 120": both stand in one paragraph, and #### marks a number alone.
    if final and (not hashes or _BLANK_LINES.search(text, final[0].end(), hashes[0].start())):
        return Reading(final[1], "final_answer", text[: final[0].start()].strip())
    return Reading(hashes[1], "hashes", text[: hashes[0].start()].strip()) if hashes else None


def _both_ends(text: str) -> str:
    if len(text) <= _LONGEST:
        return text
    end = text[-_LONGEST // 2 :]
    return f"{text[: _LONGEST // 2]}\n{end[end.find(chr(10)) + 1 :]}"


def _said(text: str, mark: re.Pattern[str], last: bool = False) -> Iterator[tuple[re.Match[str], str]]:
    """The places of a mark with an answer behind them, and the answers; from the last one where `last` says so."""
    matches: Iterable[re.Match[str]] = mark.finditer(text)
    for match in reversed(list(matches)) if last else matches:
        if (found := _value(text, match)) and not (mark in (_LINE, _INLINE) and _only_opens(text, match, found)):
            yield match, found


def _marked(text: str) -> Reading | None:
    boxes = ((start, found) for start, box in reversed(list(_boxes(text))) if (found := plain(box[:_LONGEST_LINE])))
    start, found = next(boxes, (-1, ""))
    boxed = Reading(found, "boxed", text[: text.rfind("\n", 0, start) + 1]) if found else None
    line, said = next(_said(text, _LINE, last=True), (None, ""))
    # A box in the line "Answer:" is that line's.
    if line and (not boxed or line.start() >= len(boxed.before)):
        last = Reading(said, "answer_line", text[: line.start()])
    elif boxed:
        last = boxed
    else:
        inline, said = next(_said(text, _INLINE, last=True), (None, ""))
        if not inline:
            return None
        last = Reading(said, "answer_is", text[: text.rfind("\n", 0, inline.start()) + 1])
    return last._replace(before=last.before.strip())


def _boxes(text: str) -> Iterator[tuple[int, str]]:
    """Where each `\\boxed{}` begins, and what it holds, up to the brace that closes it."""
    if "boxed" not in text and "fbox" not in text:
        return
    opened: list[re.Match[str]] = []
    found: list[tuple[int, str]] = []
    for brace in _BOX_OR_BRACE.finditer(text):
        if brace["box"] or brace[0] == "{":
            opened.append(brace)
        elif brace[0] == "}" and opened and (box := opened.pop())["box"]:
            found.append((box.start(), text[box.end() : brace.start()]))
    yield from sorted(found)


def _unmarked(text: str, steps: bool) -> Reading | None:
    lines = [line[:_LONGEST_LINE] for line in text.split("\n") if line.strip()]
    if not lines:
        return None
    *above, last = lines
    before = text[: text.rfind(last)].strip()
    if above and len(bold := _BOLD.findall(last)) == 1 and (found := plain(bold[0])):
        return Reading(found, "bold", before)
    if above and len(lines) <= _MOST_ITEMS and all(map(_LIST_ITEM.match, lines)):
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
    return _answered_first(text, lines, steps)


def _answered_first(text: str, lines: list[str], steps: bool) -> Reading | None:
    """The answer in the first line, which the rest explains, or the answers in the lines of the first paragraph."""
    first = plain(lines[0])
    if not _is_alone(first) or not _is_answer(lines[0]):
        return None
    paragraph = _BLANK_LINES.split(text, maxsplit=1)[0].split("\n")
    if len(paragraph) > 1 and len(paragraph) <= _MOST_ITEMS and all(map(_is_answer, paragraph)):
        return None if steps else Reading("\n".join(map(plain, paragraph)), "list", "")
    # "Ann has 3", with "Ben has 5" below it, is a step.
    return Reading(first, "first_line", "") if not _is_alone(plain(lines[1])) else None


def _is_answer(line: str) -> bool:
    """Whether a line may be an answer, or one of several: no step, and no sentence."""
    if _LIST_ITEM.match(line) or _STEP.match(line) or _LABELLED.search(line):
        return False
    words = line.split(maxsplit=_MOST_WORDS)
    ends = ("?", ":", ",", ";", ".") if len(words) > 3 else ("?", ":", ",", ";")
    return len(words) <= _MOST_WORDS and not line.rstrip().endswith(ends)


def _value(text: str, match: re.Match[str]) -> str:
    """The answer behind a mark: the rest of its line, else the line below, with all items where it begins a list."""
    value, below = match["value"], _lines_below(text, match.end("value"))
    if not value.strip(" \t*_:$"):
        value = next(filter(str.strip, below), "")
        if _STEP.match(value) and not _LIST_ITEM.match(value) and any(map(str.strip, below)):
            return ""
        if value.strip() in ("\\[", "$$"):
            value = next(filter(str.strip, below), value)
    if not (value := _LABELS.sub("", value)):
        return ""
    if _LIST_ITEM.match(value):
        value = "\n".join([value, *takewhile(_LIST_ITEM.match, islice(below, _MOST_ITEMS))])
    found = plain(value[:_LONGEST_LINE])
    return "" if found in _PLACEHOLDERS else found


def _lines_below(text: str, end: int) -> Iterator[str]:
    """The lines of a text after the one in which `end` stands."""
    at = text.find("\n", end)
    while at >= 0:
        start, at = at + 1, text.find("\n", at + 1)
        yield text[start : at if at >= 0 else len(text)]


def _only_opens(text: str, match: re.Match[str], found: str) -> bool:
    """Whether an "Answer:" opens the reply and has steps below it, so that it marks no answer."""
    if text[: match.start()].strip(" \t\n*#_"):
        return False
    below = [line for line in text[match.end("value") :].split("\n") if line.strip()]
    if not match["value"].strip(" \t*_"):
        return len(below) > 1 and not all(map(_LIST_ITEM.match, below))
    return bool(below) and not _is_alone(found)


def _own_problem(text: str, marks: Iterable[re.Pattern[str]]) -> str:
    """The reply up to the first new problem that the model invents after its answer.

    Args:
        text: The reply.
        marks: What shows that an answer has come; a box always does.
    """
    ends = [match.end() for mark in marks for match, _ in islice(_said(text, mark), 1)]
    ends += [start for start, _ in islice(_boxes(text), 1)]
    if not ends:  # one line, and then more
        first, blank, _ = text.partition("\n\n")
        if not blank or "\n" in first:
            return text
        if not _is_alone(plain(first[:_LONGEST_LINE])):
            return first if _NEW_PROBLEM.match(text[len(first) :].lstrip("\n")) else text
        ends = [len(first)]
    end = min(ends)
    stops = [match.start() for match in islice(_NEW_PROBLEM.finditer(text, end), 1)]
    stops += islice((start for start, paragraph in _paragraphs(text, end) if _poses(paragraph)), 1)
    return text[: min(stops)].rstrip() if stops else text


def _paragraphs(text: str, start: int) -> Iterator[tuple[int, str]]:
    """The paragraphs that begin after `start`, and where they do."""
    at = None
    for gap in _BLANK_LINES.finditer(text, start):
        if at is not None:
            yield at, text[at : gap.start()]
        at = gap.end()
    if at is not None:
        yield at, text[at:]


def _poses(paragraph: str) -> bool:
    """Whether a paragraph poses a problem: statements, then a question. A question alone may be a subquestion."""
    first = paragraph.strip().split("\n")[0]
    if _LIST_ITEM.match(first) or _STEP.match(first):
        return False
    told, asked, _ = first.partition("?")
    return bool(asked) and bool(re.search(r"[.!]\s+[A-Z]", told))


def _is_alone(line: str) -> bool:
    """Whether a line is an answer and nothing else: few words, and no sentence."""
    words = line.split(maxsplit=_ALONE)
    if not words or len(words) > _ALONE or line.endswith((",", ";")):
        return False
    return not (len(words) > 3 and line.endswith(".") and words[0][0].isupper() and words[0].isalpha())


def _one_number(line: str) -> bool:
    return len(re.findall(r"\d+(?:[.,]\d+)*", line.rpartition("=")[2])) <= 1
