"""What stands around a reply's list: labels, sections, fences, quotes.

Every function takes something away and leaves the rest as the model wrote it.
"""

from __future__ import annotations

import re
import textwrap

from divcon.signatures._errors import SubquestionsError

# "Assistant: 1. How many?", "**Subquestions:**\n1. How many?"
_OPENING_LABELS = re.compile(
    r"""(?:
        \s*(?:\#+\s*)?\**(?:assistant|model|ai|response|output|answer|(?:the\ )?sub-?questions|decomposition)\**:\**
        [ \t]*\n*
    )++""",
    re.VERBOSE | re.IGNORECASE,
)
# DSPy's chat format: "[[ ## subquestions ## ]]\n1. How many?\n[[ ## completed ## ]]"
_SECTION = re.compile(r"^\s*\[\[ ## subquestions ## \]\](.*?)(?=^\s*\[\[ ##|\Z)", re.DOTALL | re.MULTILINE)
# "1. How many?\n[[ ## completed ## ]]": the prompt has opened the section.
_SECTION_HEADER = re.compile(r"^\s*\[\[ ## .*$", re.MULTILINE)
# "```json\n[...]\n```", perhaps cut off before its end
_FENCE = re.compile(r"^\s*```[\w-]*[ \t]*\n(.*?)(?:\n\s*```\s*$|\Z)", re.DOTALL | re.MULTILINE)
_FENCE_END = re.compile(r"\n\s*```\s*\Z")  # "1. How many?\n```": the prompt has opened the fence.
# "<questions>\n1. How many?\n</questions>", "<ol>..."
_WRAPPER = re.compile(r"\A<(sub_?questions|questions|list|output|answer|[ou]l)>(.*?)(?:</\1>\s*)?\Z", re.DOTALL | re.I)
_BLANK_TOP = re.compile(r"\A(?:[ \t]*\n)+")  # "\n  \n1. How many?"


def list_alone(words: str) -> str:
    """The list in a model's own words, without what models put around it; empty where nothing is left.

    Raises:
        SubquestionsError: There are two blocks of code.
    """
    text = _without_labels(words)
    if section := _SECTION.search(text):
        text = section.group(1)
    text = _without_fence(_without_labels(_SECTION_HEADER.sub("", text)))
    if wrapper := _WRAPPER.match(text.strip()):
        text = wrapper.group(2)
    return _without_quotes(_without_margins(text))


def _without_labels(text: str) -> str:
    labels = _OPENING_LABELS.match(text)
    return text[labels.end() :] if labels else text


def _without_fence(text: str) -> str:
    """The block of code in `text`, or all of it where there is none."""
    if text.count("```") == 1:
        text = _FENCE_END.sub("", text)
    blocks: list[str] = _FENCE.findall(text)
    if len(blocks) > 1:
        raise SubquestionsError("unreadable", "The reply holds two blocks of code.")
    return blocks[0] if blocks else text


def _without_margins(text: str) -> str:
    """`text` without the blank lines and the indent around it; its lines stay indented relative to each other."""
    return textwrap.dedent(_BLANK_TOP.sub("", text)).rstrip()


def _without_quotes(text: str) -> str:
    """`text` without one pair of quotes or backticks that encloses all its lines."""
    quote = text[:1]
    if "\n" in text and quote in "\"'`" and text[-1] == quote and quote not in text.strip(quote):
        return _without_margins(text.strip(quote))
    return text
