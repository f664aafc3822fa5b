"""What makes a line a subquestion: a whole question, or an instruction such as "Find the number of bags."."""

from __future__ import annotations

import re

ASKS = "?？؟\u037e"  # the question marks of Latin, Chinese and Japanese, Arabic, and Greek text
STOPS = ".!。"

# ---- how a subquestion ends

# A quotation may end with the question, and a hint may follow: 'Who said "Why?"', "How much is it? (in euros)"
_ASKED = re.compile(rf"[{ASKS}][\"'”’»]?\s*(?:\([^()]*\))?$")
_TOLD = re.compile(rf"(?<!\.\.)[{STOPS}]$")  # "Find the bags.", but not "Find the bags..."
# "Find the number of", "How many bags,": cut off in the middle
_HANGING = re.compile(
    r"\b(?:a|an|the|of|and|or|to|by|for|with|from|per|than|if|that|each|is|are|was|were|do|does|did)$|[^\w\s)\]}'\"”’%]$",
    re.IGNORECASE,
)

# ---- how a subquestion begins

_AUXILIARY = r"(?:is|are|was|were|do|does|did|can|could|will|would|should|has|have|had)"
# "How many bags", "In which year", "Where does she live", "Is it big"; "When the train arrives" only tells.
_QUESTION = re.compile(
    rf"(?:(?:in|at|by|for|on|to|from|of|with)\ )?(?:how|what|which|who|whom|whose)\b"
    rf"|(?:when|where|why)\ {_AUXILIARY}\b|{_AUXILIARY}\b",
    re.IGNORECASE,
)
# "Find the bags.", "Then calculate the sum."; "list" and its like are nouns too, so an object has to follow them.
_INSTRUCTION = re.compile(
    r"""(?:(?:first|second|third|then|next|now|finally|lastly)[,\ ]+)?(?:
        find|figure\ out|work\ out|look\ up|set\ up|calculate|compute|determine|identify|estimate|evaluate|count|add
      | subtract|multiply|divide|convert|compare|combine|simplify|solve|substitute|define|write|explain|describe
      | (?:list|name|state|show|check|round|sum|split|use|take|repeat)\ (?:up|the|all|each|every|how|what|which)
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)

# ---- more than a subquestion

# "Find the sum: 7", "Add 3 and 4 = 7", "Add them, which gives 7": an instruction with its answer;
# "Find the bags. 2. Count them": an instruction with the next one
_SAYS_MORE = re.compile(
    r"=|\bwhich (?:is|are|means|gives|equals)\b|:\s*\$?\d|(?:\.\s+|(?<!\d)\.)\(?\d{1,3}[.)](?:\s|$)", re.IGNORECASE
)
# "Ada has 3 bags. How many has Ben?"; titles end no sentence: "Who is Mr. Smith?"
SENTENCE_END = re.compile(r"(?<!\bMr)(?<!\bMs)(?<!\bMrs)(?<!\bDr)(?<!\bSt)[.!]\s+(?=[^a-z])")


def inline_number(number: str = r"\d{1,3}", after: str = ASKS) -> str:
    """A pattern of the gap before an item's number in the middle of a line: the blank in "1. How many? 2. And then?".

    Args:
        number: The number, as a pattern.
        after: The marks, one of which ends the item before.
    """
    return rf"(?<=[{after}])(?:\s|\\n|<br\s*/?>|[;,])*(?=\(?{number}[.)．、）](?!\d))"


_NEXT_ITEM = re.compile(inline_number())  # "How many? 2. And then?" is two items
_WORD = re.compile(r"\w")  # "---" and "**" have none


def is_asked(text: str) -> bool:
    """Whether `text` ends as a question does."""
    return bool(_ASKED.search(text))


def is_ended(text: str) -> bool:
    """Whether `text` ends as a question or a sentence does."""
    return is_asked(text) or bool(_TOLD.search(text))


def is_instruction(text: str) -> bool:
    """Whether `text` begins as an instruction does."""
    return bool(_INSTRUCTION.match(text))


def is_begun(text: str) -> bool:
    """Whether `text` begins as a question or an instruction does."""
    return is_instruction(text) or bool(_QUESTION.match(text))


def has_word(text: str) -> bool:
    """Whether `text` has a letter or a digit."""
    return bool(_WORD.search(text))


def is_subquestion(text: str) -> bool:
    """Whether `text` is one whole question or instruction, and nothing else."""
    if not has_word(text):
        return False
    if is_asked(text):
        return not _NEXT_ITEM.search(text)
    if _SAYS_MORE.search(text):
        return False
    sentences = SENTENCE_END.split(text)
    if is_ended(text):
        return all(map(is_instruction, sentences))
    return is_begun(text) and len(sentences) == 1 and not _HANGING.search(text)
