"""`Subquestions`: what models really write when asked to decompose, read or refused.

DSPy's own `list[str]` parsing repairs JSON, which turns `1. What is in [a]?` into `['a']` and
`['What is Tom's age?']` into shards, silently. Everything here prefers a refusal to a guess: an item that comes out
is a whole question, or an instruction such as "Find the number of bags.", as the model wrote it.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import dspy
from pydantic import ConfigDict, model_validator

from divcon.signatures._errors import SubquestionsError
from divcon.signatures._framing import CONTROL, INVISIBLE, own_turn, without_thinking

NO_DECOMPOSITION = "No decomposition."

# ---- what stands around a list

_OPENING_LABEL = re.compile(
    rf"""\A\s*(?:
        {CONTROL}
      | (?:\#+\s*)?\**(?:assistant|model|ai|response|output|answer|(?:the\ )?sub-?questions|decomposition)\**:\**
      | (?:assistant|model)(?=\n)
    )[ \t]*\n*""",
    re.VERBOSE | re.IGNORECASE,
)
_SECTION = re.compile(r"^\s*\[\[ ## subquestions ## \]\](.*?)(?=^\s*\[\[ ##|\Z)", re.DOTALL | re.MULTILINE)
_HEADER = re.compile(r"^\s*\[\[ ## .*$", re.MULTILINE)
_FENCE = re.compile(r"^\s*```[\w-]*[ \t]*\n(.*?)(?:\n\s*```\s*$|\Z)", re.DOTALL | re.MULTILINE)
_WRAPPER = re.compile(r"\A<(sub_?questions|questions|list|output|answer|[ou]l)>(.*?)(?:</\1>\s*)?\Z", re.DOTALL | re.I)
_INLINE_PREAMBLE = re.compile(r"\A[^\n?]*?[:.!]\s+(?=\(?1[.)]\s)")  # "Sure! 1. How many bags?"

_NONE = r"""(?:
    no\ (?:further\ )?(?:decomposition|sub-?questions?|split(?:ting)?|breakdown)
    (?:\ (?:is|are|helps))?(?:\ (?:needed|necessary|required|possible|helpful))?
  | no\ need\ to\ (?:decompose|split)(?:\ (?:it|this|the\ question))?
  | (?:the|this)\ question\ (?:cannot|can't|need\ not|needn't|does\ not\ need\ to|doesn't\ need\ to)
    \ be\ (?:decomposed|split|broken\ down)(?:\ further)?
  | none(?:\ needed)?
  | n/a
)"""
_NONE_NEEDED = re.compile(rf"^\W*{_NONE}[^\w?]*$", re.VERBOSE | re.IGNORECASE)
_NONE_BECAUSE = re.compile(rf"^\W*{_NONE}(?:[.,:;!)*\n-]|\ (?:because|since|as|[-–—])\ )", re.VERBOSE | re.IGNORECASE)

# ---- what marks an item of a list

_DECORATION = re.compile(r"^\s*(?:>\s*)*(?:#{1,6}\s+)?")  # a quotation, a heading
_BULLET = re.compile(r"(?:[-–—+*•‣◦▪●·]\s+|[-–—•‣◦▪●·](?=[^\W\d_])|\\item\s+)(?:\[[ xX]\]\s+)?")
_EMPHASIS = r"[*_]{0,3}"
_NUMBER_ENDS = rf"{_EMPHASIS}(?:\s?[.):．、：）\]]{{1,2}}{_EMPHASIS}(?!\d)\s*|\s*[-–—]\s+|[ \t]+(?=[A-Z¿]))"
_MARKERS = {
    "number": re.compile(
        rf"{_EMPHASIS}[(\[#]?(\d{{1,3}}){_NUMBER_ENDS}|(\d)\ufe0f?\u20e3\s*|([①-⑳])\s*|([一二三四五六七八九十])、"
    ),
    "label": re.compile(
        rf"{_EMPHASIS}(?:sub[-_ ]?(?:question|problem)|question|step|part|q)[ _]?#?(\d{{1,3}})"
        rf"(?:{_NUMBER_ENDS}|{_EMPHASIS}\s*$)",
        re.IGNORECASE,
    ),
    "subnumber": re.compile(rf"{_EMPHASIS}(\d{{1,2}}(?:\.\d{{1,2}})+){_EMPHASIS}[.):]?{_EMPHASIS}\s+"),
    "letter": re.compile(rf"{_EMPHASIS}\(?([a-z]|[ivx]{{1,4}})[.)]{_EMPHASIS}\s+", re.IGNORECASE),
    "subquestion": re.compile(rf"{_EMPHASIS}sub[-_ ]?question{_EMPHASIS}\s?[:：]{_EMPHASIS}\s*", re.IGNORECASE),
    "question": re.compile(rf"{_EMPHASIS}(?:question|q){_EMPHASIS}\s?[:：]{_EMPHASIS}\s*", re.IGNORECASE),
}
# Of the lists that a reply holds, the first of these kinds is the list; the rest explains it.
_KINDS = ("number", "label", "subnumber", "letter", "bullet", "subquestion", "question")

# ---- what is a subquestion

_ASKS = "?？؟\u037e"
# a quotation may end with the question, and a hint may follow: 'Who said "Why?"', "How much is it? (in euros)"
_ASKED = re.compile(rf"[{_ASKS}][\"'”’»]?\s*(?:\([^()]*\))?$")
_TOLD = re.compile(r"(?<!\.\.)[.!。]$")
_NEXT_QUESTION = re.compile(rf"(?<=[{_ASKS}])[;,]?\s+|(?<=？)(?=\S)")  # on the same line
_GAP = r"(?:\s|\\n|<br\s*/?>|[;,])*"  # between an item and the number of the next on the same line
_NEXT_NUMBER = re.compile(rf"[{_ASKS}]{_GAP}\(?\d{{1,3}}[.)．、）](?!\d)")
_AUXILIARY = r"(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had)"
_QUESTION = re.compile(
    rf"(?:(?:in|at|by|for|on|to|from|of|with)\ )?(?:how|what|which|who|whom|whose)\b"
    rf"|(?:when|where|why)\ {_AUXILIARY}\b|{_AUXILIARY}\b",
    re.IGNORECASE,
)
_INSTRUCTION = re.compile(
    r"""(?:(?:first|second|third|then|next|now|finally|lastly)[,\ ]+)?(?:
        find|figure\ out|work\ out|look\ up|set\ up|calculate|compute|determine|identify|estimate|evaluate|count|add
      | subtract|multiply|divide|convert|compare|combine|simplify|solve|substitute|define|write|explain|describe
      | (?:list|name|state|show|check|round|sum|split|use|take|repeat)\ (?:up|the|all|each|every|how|what|which)
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)
_SAYS_MORE = re.compile(  # an instruction with its answer, or with the next one
    r"=|\bwhich (?:is|are|means|gives|equals)\b|:\s*\$?\d|(?:\.\s+|(?<!\d)\.)\(?\d{1,3}[.)](?:\s|$)", re.IGNORECASE
)
_HANGING = re.compile(
    r"\b(?:a|an|the|of|and|or|to|by|for|with|from|per|than|if|that|each|is|are|was|were|do|does|did)$|[^\w\s)\]}'\"”’%]$",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"(?<!\bMr)(?<!\bMs)(?<!\bMrs)(?<!\bDr)(?<!\bSt)[.!]\s+(?=[^a-z])")
_TO_THE_READER = re.compile(
    r"(?:i'm|i am|i|sorry|please|(?:can|could|would|will|do) you|(?:shall|may|can|should) i|how (?:can|may) i|let me)\b"
    r"|(?:user|human|assistant|ai|system):",
    re.IGNORECASE,
)
_NO_LINE_OF_TEXT = re.compile(rf"[\[{{<|]|.*(?:\||[{_ASKS}][,;/])")  # a table, brackets, questions run together
_ANSWER_BESIDE = re.compile(
    rf"(?<=[{_ASKS}])\s*(?:[=:>(\[→–—-]+\s*)?(?:\**(?:answer|a)\**\s*:|=|[$€£]?\d)[^{_ASKS}]*$", re.IGNORECASE
)
_ANSWER_BELOW = re.compile(r"\W*(?:(?:answer|a|result|solution)\W*:|\d[\d.,/%]*\W*$)", re.IGNORECASE)
_BOLD = re.compile(r"(?<![\w*])\*\*(?=\S)([^*]+?)(?<=\S)\*\*(?![\w*])")
_PAIRS = {pair[0]: pair[1] for pair in ('""', "''", "``", "“”", "‘’", "«»", "„“", "「」", "()", "**", "__")}

_KEYS = ("subquestions", "sub_questions", "questions", "items", "steps", "decomposition")
_ITEM_KEYS = ("question", "subquestion", "sub_question", "text")
_ITEM_TAG = re.compile(r"^\s*<(sub[-_]?question|question|item|step|q|li)\b", re.MULTILINE | re.IGNORECASE)
_STRUCTURE = re.compile(r"^[ \t]*(?:\w+[ \t]*[=:][ \t]*)?(?=[\[({]\s*(?:[\[({]\s*)*[\"'])", re.MULTILINE)


class _Mark(NamedTuple):
    kind: str
    token: str  # the number or letter, as written
    text: str  # what follows the marker
    indent: int


class Subquestions(dspy.Type):
    """An ordered list of subquestions; empty means that the question goes to the solver whole.

    It renders as numbered lines, the form a small model is trained to write. Items are single lines of text.

    Questions that end in a question mark read back from that form as they were, where they differ by more than case
    and closing marks and hold nothing that belongs to a reply's form: Markdown bold, a chat model's control tokens or
    think tags, invisible characters, runs of spaces, an item's number after a question mark ("How? 2. When?").
    A question has a letter or a digit. A rendered list that is cut off anywhere is refused or read up to a whole item,
    as long as each question is one sentence.

    Examples:
        >>> list(Subquestions.read("1. How many bags?\\n2. How many in all?"))
        ['How many bags?', 'How many in all?']
        >>> len(Subquestions.read("No decomposition."))
        0
    """

    model_config = ConfigDict(frozen=True)

    items: tuple[str, ...] = ()

    def __init__(self, items: Sequence[str] = (), **data: Any) -> None:
        super().__init__(items=tuple(items), **data)

    @model_validator(mode="before")
    @classmethod
    def _read_any(cls, value: Any) -> Any:
        if isinstance(value, str):
            return {"items": read_subquestions(value)}
        if isinstance(value, dict) and isinstance(value.get("items"), tuple):
            # From Python code; what a JSON repair left comes as a list, and only that may be shards.
            return {"items": _distinct(value["items"]) if value["items"] else ()}
        if isinstance(value, dict):
            value = _from_mapping(value)
        if isinstance(value, (list, tuple)):
            return {"items": _from_sequence(value)}
        if isinstance(value, cls):
            return value
        raise SubquestionsError("unreadable", f"A {type(value).__name__} is not a list of subquestions.")

    @classmethod
    def read(cls, reply: str) -> Subquestions:
        """Read a model's reply.

        Raises:
            SubquestionsError: The reply is empty, cut off, repeats itself or holds something else than subquestions.
        """
        return cls.model_construct(items=read_subquestions(reply))

    def render(self) -> str:
        """Numbered lines, one a subquestion; a fixed sentence when there are none."""
        return "\n".join(f"{i}. {item}" for i, item in enumerate(self.items, 1)) or NO_DECOMPOSITION

    def format(self) -> str:
        """DSPy's hook: how the value stands in a prompt."""
        return self.render()

    @classmethod
    def description(cls) -> str:
        """DSPy's hook: what general adapters tell the model about the type."""
        return f"numbered lines, one subquestion a line, or '{NO_DECOMPOSITION}'"

    def __iter__(self) -> Iterator[str]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> str:
        return self.items[index]

    def __str__(self) -> str:
        return self.render()


def read_subquestions(reply: str) -> tuple[str, ...]:
    """The subquestions in `reply`, in order.

    Raises:
        SubquestionsError: See `Subquestions.read`.
    """
    text = _unwrapped(reply)
    if not text:
        raise SubquestionsError("empty", "The reply is empty.")
    if _says_none(text):
        return ()
    if tag := _ITEM_TAG.search(text):
        return _read_tagged(text, re.escape(tag.group(1)))
    if (structured := _read_structured(text)) is not None:
        return structured
    return _read_lines(text)


def _unwrapped(reply: str) -> str:
    """The list alone, without what chat models and their templates put around it."""
    text = INVISIBLE.sub("", without_thinking(reply)).replace("\r\n", "\n").replace("\r", "\n")
    # A model that writes nothing but line ends would keep the patterns below busy for a minute.
    text = re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in text.split("\n")))
    text = _without_label(text)
    text = own_turn(text)
    if section := _SECTION.search(text):
        text = section.group(1)
    text = _without_label(_HEADER.sub("", text))
    if text.count("```") == 1:  # opened in the prompt
        text = re.sub(r"\n\s*```\s*\Z", "", text)
    fences = _FENCE.findall(text)
    if len(fences) > 1:
        raise SubquestionsError("unreadable", "The reply holds two blocks of code.")
    text = fences[0] if fences else text
    if wrapper := _WRAPPER.match(text.strip()):
        text = wrapper.group(2)
    text = _without_margins(text)
    if "\n" in text and text[0] in "\"'`" and text[-1] == text[0] and text[0] not in text.strip(text[0]):
        text = _without_margins(text.strip(text[0]))
    return text


def _without_label(text: str) -> str:
    while label := _OPENING_LABEL.match(text):
        text = text[label.end() :]
    return text


def _without_margins(text: str) -> str:
    """Without what is blank around `text`; the indents of its lines stay as they are to each other."""
    return textwrap.dedent(re.sub(r"\A(?:[ \t]*\n)+", "", text)).rstrip()


def _says_none(text: str) -> bool:
    """The sentence that says that no split helps, alone, with a reason behind it, or at a reply's end."""
    if any(ask in text for ask in _ASKS):
        return False
    lines = [line for line in text.splitlines() if line.strip()]
    marks = [mark for mark in map(_mark, lines) if mark]
    if len(marks) == 1 and len(lines) == 1:
        text = marks[0].text
    elif marks:
        return False
    solved_first = re.fullmatch(r"(?i)\W*no decomposition\W*", lines[-1])
    return bool(_NONE_NEEDED.match(text) or _NONE_BECAUSE.match(text) or solved_first)


# ---- lists in a notation for data


def _read_tagged(text: str, tag: str) -> tuple[str, ...]:
    """`<subquestion>How many?</subquestion>`, one tag an item."""
    if len(re.findall(f"</{tag}>", text, re.IGNORECASE)) < len(re.findall(rf"<{tag}\b", text, re.IGNORECASE)):
        raise SubquestionsError("cut_off", "A tag in the reply has no end.")
    items = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", text, re.DOTALL | re.IGNORECASE)
    if any(re.search(r"</?\w", item) for item in items):
        raise SubquestionsError("unreadable", "The tags in the reply hold other tags.")
    return _from_sequence(items)


def _read_structured(text: str) -> tuple[str, ...] | None:
    """JSON or Python, perhaps below a preamble; None where the text only looks like it."""
    start = _STRUCTURE.search(text)
    if start and not any(map(_mark, text.splitlines())):
        text = text[start.end() :]
    elif text[0] not in "[{":
        return None
    lines = [_literal(line) for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and all(isinstance(line, dict) for line in lines):  # JSON Lines
        return _from_sequence(lines)
    close = {"[": "]", "{": "}", "(": ")"}[text[0]]
    body, rest = text[: text.rfind(close) + 1], text[text.rfind(close) + 1 :].strip()
    value = _literal(body)
    if start and (rest[:1] == text[0] or (rest and value is None)):
        raise SubquestionsError("cut_off", "The list in the reply has no end.")
    if isinstance(value, dict):
        value = _from_mapping(value)
    if isinstance(value, (list, tuple)):
        return _from_sequence(value)
    return _read_quoted_list(text) if start else None


def _literal(text: str) -> Any:
    """The value of a JSON or Python literal, None where it is neither."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        pass
    if re.search(r"""['"]\s*['"]""", text):  # a comma is missing, and Python would join the neighbours
        return None
    try:
        value = ast.literal_eval(text)
        return ast.literal_eval(f"[{text[1:-1]}]") if isinstance(value, set) else value  # a set has lost the order
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def _read_quoted_list(text: str) -> tuple[str, ...]:
    """`['What is Tom's age?', 'And Ann's?']`: quotes inside that no parser of Python or JSON takes."""
    body = text[1:-1].strip()
    items = re.split(r"['\"]\s*,\s*['\"]", body[1:-1])
    quoted = text[0] == "[" and len(body) > 1 and body[0] in "'\"" and body[-1] in "'\""
    mixed = len({item.rstrip().endswith("?") for item in items}) > 1
    if not quoted or mixed or re.search(r"""\?['"][\s\]'"]|[\[{]['"]""", body):
        raise SubquestionsError("unreadable", "The quotes in the list can't be told from those around its items.")
    return _from_sequence(items)


def _from_mapping(value: dict[str, Any]) -> list[Any]:
    by_name = {re.sub(r"[\s-]", "_", str(key).strip().casefold()): item for key, item in value.items()}
    for key in _KEYS:
        if isinstance(by_name.get(key), dict):
            by_name = by_name[key]
            break
        if isinstance(by_name.get(key), (list, tuple)):
            return list(by_name[key])
        if isinstance(by_name.get(key), str):
            return list(read_subquestions(by_name[key]))
    numbers = [re.sub(r"^(?:\D*_)?[a-z]*", "", str(key)) for key in by_name]
    if numbers and numbers == [str(i) for i in range(1, len(numbers) + 1)]:  # {"q1": "How many?", "q2": "And then?"}
        return list(by_name.values())
    raise SubquestionsError("unreadable", f"The object has none of the keys {', '.join(_KEYS)}.")


def _from_sequence(value: Sequence[Any]) -> tuple[str, ...]:
    if not value:
        return ()
    items: list[Any] = [
        next((item[key] for key in _ITEM_KEYS if key in item), None) if isinstance(item, dict) else item
        for item in value
    ]
    if not all(isinstance(item, str) for item in items):
        raise SubquestionsError("unreadable", "The list holds something that is not text.")
    if len(items) == 1 and ("\n" in items[0].strip() or _NONE_NEEDED.match(items[0])):
        return read_subquestions(items[0])
    marks = [_mark(item) for item in items]
    if len({mark.kind if mark else None for mark in marks}) == 1 and marks[0] and marks[0].kind in ("number", "label"):
        items = [mark.text for mark in marks if mark]
    for item in items:
        # Shards left by a JSON repair: one word, or half of a quoted string.
        text = item.strip()
        if not text or not (re.search(r"\s", text) or _ASKED.search(text)) or text[-1] in "'\"" or text[0] in ",]":
            raise SubquestionsError("unreadable", f"'{text}' is not a subquestion.")
    return _checked(items)


# ---- lists in lines


def _mark(line: str) -> _Mark | None:
    """The marker that `line` begins with, and what follows it."""
    decoration = _DECORATION.match(line)
    text = line[decoration.end() :] if decoration else line
    indent = len(line) - len(line.lstrip())
    bullet = _BULLET.match(text)
    text = text[bullet.end() :] if bullet else text
    for kind, marker in _MARKERS.items():
        if found := marker.match(text):
            token = next((group for group in found.groups() if group), "")
            rest = text[found.end() :]
            again = marker.match(rest) if kind == "label" else None  # "Q1: Q1: How many?"
            if again and again.group().strip() == found.group().strip():
                rest = rest[again.end() :]
            if found.group().count("**") % 2:  # `**1. Bags:** How many?` opens before its number
                rest = rest.replace("**", "", 1)
            return _Mark(kind, token, rest, indent)
    return _Mark("bullet", bullet.group().strip(), text, indent) if bullet else None


def _kind(marks: Sequence[_Mark]) -> str | None:
    """The kind of the reply's list, None where nothing in it is marked as one."""
    for kind in _KINDS:
        tokens = [mark.token for mark in marks if mark.kind == kind]
        if not tokens:
            continue
        if kind == "subnumber" and not tokens[0].endswith(".1"):
            continue  # "1.5 litres are how many?"
        if kind == "letter" and [token.casefold() for token in tokens[:2]] not in (["a", "b"], ["i", "ii"]):
            continue  # "A. Lincoln was born where?"
        if kind == "question" and len(tokens) == 1:
            continue  # the question that was asked, once more
        return kind
    return None


def _read_lines(text: str) -> tuple[str, ...]:
    lines = _one_a_line(text)
    marks = [_mark(line) for line in lines]
    kind = _kind([mark for mark in marks if mark])
    if kind is None:
        return _read_unmarked(lines)
    items: list[str] = []
    tokens: list[str] = []
    indent = 0
    open_item = False  # may the next line belong to the last item?
    near = stray = False  # is the line right below an item? was there a question without a marker?
    for line, mark in zip(lines, marks, strict=True):
        if mark and mark.kind == kind and not (kind == "bullet" and items and mark.indent > indent + 1):
            indent = indent if items else mark.indent
            items.append(mark.text)
            tokens.append(mark.token)
            open_item = near = True
            if stray:
                raise SubquestionsError("unreadable", "A question stands between the items.")
        elif not line.strip():
            near = False
            open_item = open_item and not items[-1].strip()  # its text may come below an empty line
        elif open_item and not items[-1].strip():
            items[-1] = mark.text if mark else _DECORATION.sub("", line)
        elif open_item and not mark and _is_unfinished(items[-1]) and _continues(line):
            items[-1] += " " + line.strip()  # a subquestion broken over two lines
        else:
            open_item = False
            asks = bool(_ASKED.search(_tidy(mark.text if mark else line)))
            stray = stray or (asks and not mark and bool(items))
            beside = not items or (not near and mark is not None and mark.indent <= indent)
            if asks and (mark.kind != "question" and beside if mark else near):
                raise SubquestionsError("unreadable", "A question stands outside the list.")
    if not items[-1].strip() or _begins_another(lines, tokens[-1], marks):
        checked = _checked([item for item in items if item.strip()])
        raise SubquestionsError("cut_off", f"The list ends before its next item, after '{checked[-1][-40:]}'.", checked)
    if not all(item.strip() for item in items):
        raise SubquestionsError("unreadable", "An item of the list is empty.")
    checked = _checked(items)
    if kind in ("number", "label"):
        numbers = [_value(token) for token in tokens]
        if numbers[0] > 1 or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
            raise SubquestionsError("unreadable", f"The items are numbered {', '.join(map(str, numbers))}.")
        if any(mark and mark.kind in ("number", "label") and mark.kind != kind for mark in marks):
            raise SubquestionsError("unreadable", "The reply holds two numbered lists.")
    return checked


def _one_a_line(text: str) -> list[str]:
    """The reply's lines; `1. How many? 2. And then?` becomes one for each number."""
    if not _mark(text.splitlines()[0]):
        text = _INLINE_PREAMBLE.sub("", text, count=1)
    lines = text.splitlines()
    numbered = [(at, mark) for at, mark in enumerate(map(_mark, lines)) if mark and mark.kind == "number"]
    if len(numbered) != 1:
        return lines
    at, mark = numbered[0]
    rest, stops = mark.text, _ASKS if any(ask in mark.text for ask in _ASKS) else "."
    for number in range(_value(mark.token) + 1, 100):
        rest, found = re.subn(rf"(?<=[{stops}]){_GAP}(?=\(?{number}[.)．、）](?!\d))", "\n", rest, count=1)
        if not found:
            break
    return [*lines[:at], *f"{mark.token}. {rest}".splitlines(), *lines[at + 1 :]]


def _value(token: str) -> int:
    return int(token) if token.isdecimal() else int(unicodedata.numeric(token))


def _is_unfinished(item: str) -> bool:
    return not re.search(rf"[{_ASKS}.!。…:]\W*$", item)


def _continues(line: str) -> bool:
    """A sentence goes on in small letters, or in a script that has none; an answer or a name may begin otherwise."""
    first = line.strip()[0]
    return first.isalpha() and not first.isupper() and not _ANSWER_BELOW.match(line)


def _begins_another(lines: Sequence[str], token: str, marks: Sequence[_Mark | None]) -> bool:
    """Does the reply stop inside the marker of an item: `2`, `**2`, `-`?"""
    line, mark = next(pair for pair in reversed(list(zip(lines, marks, strict=True))) if pair[0].strip())
    tail = line.strip(" \t*_#>([")
    if mark:
        return False
    return tail == str(_value(token) + 1) if token.isdecimal() else line.strip() == token


def _read_unmarked(lines: Sequence[str]) -> tuple[str, ...]:
    """Questions on lines of their own. Whatever else stands there must be known for what it is."""
    items: list[str] = []
    for line in lines:
        text = _DECORATION.sub("", line).strip()
        if not re.search(r"\w", text) or re.fullmatch(r"</?\w+>", text):
            continue
        if items and _ANSWER_BELOW.match(text):
            continue
        heading = line.lstrip().startswith("#") and not _ASKED.search(_tidy(text))
        if not items and (heading or text.rstrip("*_ ").endswith((":", "："))):
            continue
        items.append(text)
    if not items:
        raise SubquestionsError("unreadable", "The reply holds no subquestion.")
    if len(items) == 1:
        items = re.split(_NEXT_QUESTION, _tidy(items[0]))
        if len(items) > 1 and (":" in items[0] or any(item[0].islower() for item in items)):
            # "Ask: How many? How much?", "How many? and how much?"
            raise SubquestionsError("unreadable", "The line holds more than one question.")
    for item in items:
        if _mark(item) or _NO_LINE_OF_TEXT.match(item) or _SENTENCE_END.search(item) or _TO_THE_READER.match(item):
            raise SubquestionsError("unreadable", f"'{item[:60]}' is not a subquestion.")
    checked = _checked(items)
    if not _ends(checked[-1]):
        middle = f"The last line ends in the middle: '{checked[-1][-40:]}'."
        raise SubquestionsError("cut_off", middle, checked[:-1])
    return checked


# ---- items


def _ends(item: str) -> bool:
    return bool(_ASKED.search(item) or _TOLD.search(item))


def _is_subquestion(item: str) -> bool:
    if not re.search(r"\w", item):
        return False
    if _ASKED.search(item):
        return not _NEXT_NUMBER.search(item)
    if _SAYS_MORE.search(item):
        return False
    sentences = _SENTENCE_END.split(item)
    if _TOLD.search(item):
        return all(map(_INSTRUCTION.match, sentences))
    begun = _INSTRUCTION.match(item) or _QUESTION.match(item)
    return bool(begun) and len(sentences) == 1 and not _HANGING.search(item)


def _checked(items: Sequence[str]) -> tuple[str, ...]:
    """The items, tidied, where each is a whole subquestion and none comes twice."""
    tidy = [item for item in map(_tidy, items) if item]
    if not tidy:
        raise SubquestionsError("empty", "The reply holds no subquestion.")
    *before, last = tidy
    asked = any(map(_ASKED.search, tidy))
    for item in before:
        half = asked and not _ends(item) and not _INSTRUCTION.match(item)
        if half or not _is_subquestion(item):
            raise SubquestionsError("unreadable", f"'{item[:60]}' is not a subquestion.")
    begun = bool(before or _INSTRUCTION.match(last) or _QUESTION.match(last))
    if not (_is_subquestion(last) if _ends(last) else begun):
        raise SubquestionsError("unreadable", f"'{last[:60]}' is not a subquestion.")
    distinct = _distinct(tidy)
    # A list may do without marks at its lines' ends altogether; else a last line without one is cut off.
    if not _ends(last) and (not before or any(map(_ends, before)) or not _is_subquestion(last)):
        raise SubquestionsError("cut_off", f"The last subquestion ends in the middle: '{last[-40:]}'.", distinct[:-1])
    return distinct


def _distinct(items: Sequence[str]) -> tuple[str, ...]:
    tidy = tuple(item for item in map(_tidy, items) if item)
    if not tidy:
        raise SubquestionsError("empty", "The reply holds no subquestion.")
    first: dict[str, str] = {}
    for item in tidy:
        first.setdefault(re.sub(rf"[\s{_ASKS}.!。]+$", "", item.casefold()), item)
    if len(first) < len(tidy):
        whole = tuple(item for item in first.values() if item is not tidy[-1] or _ends(item))
        raise SubquestionsError("duplicate", "The reply asks the same subquestion twice.", whole)
    return tidy


def _tidy(item: str) -> str:
    item = re.sub("[\ud800-\udfff]", "\ufffd", INVISIBLE.sub("", item))  # half a character could be stored nowhere
    item = _BOLD.sub(r"\1", " ".join(item.split()))
    while (peeled := _peeled(item)) != item:
        item = peeled
    return item


def _peeled(item: str) -> str:
    """The item without one layer of what models put around it: an answer, a comma, quotes, emphasis."""
    item = _ANSWER_BESIDE.sub("", item)
    item = re.sub(rf"(?<=[\"'”’»`])\s*[,;]+$|(?<=[{_ASKS}])\s*[,;.!]+$", "", item)
    item = re.sub(rf"(?<=[{_ASKS}.])\s*[*_`]+$", "", item) if item[:1] not in "*_`" else item
    inner = item[1:-1].strip()
    if len(item) > 2 and item[-1] == _PAIRS.get(item[0]) and not re.search(_closing(item[0]), inner):
        return inner
    return item


def _closing(opening: str) -> str:
    """What must not stand inside: the same mark once more, apostrophes aside."""
    if opening == "'":
        return r"(?<!\w)'|'(?!\w)"
    return f"[{re.escape(opening + _PAIRS[opening])}]" if opening not in "*_" else r"(?!)"
