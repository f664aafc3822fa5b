"""What stands around a reply: thinking, a chat template's tokens, invented turns; and around its list: labels, fences.

Every function takes something away and leaves the rest as the model wrote it.
"""

from __future__ import annotations

import re
import textwrap

from divcon.signatures._errors import SubquestionsError

# Zero-width spaces, text direction marks and byte order marks, which no reader sees and every pattern would stumble on.
INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")

# ---- turns

_CONTROL = r"(?:<\|[a-z_]+\|>|</?s>|<(?:start|end)_of_turn>|\[/?INST\])"  # "<|im_start|>", "</s>", "[INST]"
_LEADING_CONTROL = re.compile(rf"\s*{_CONTROL}")  # "<|start|>1. How many?"
# "1. How many?<|im_end|>..."; or a new turn that nothing announces but its label, "1. How many?\nUser: ...". A reply
# that begins with such a label is no turn of the model's at all.
_END_OF_TURN = re.compile(
    r"<\|(?:im_end|endoftext|eot_id|end|return|end_of_text|end_of_turn|user|im_start)\|>|</s>|<end_of_turn>"
    r"|(?<=\n)[ \t]*\**(?:user|human)\**[ \t]*(?::|(?=\n|\Z))",
    re.IGNORECASE,
)
# "assistant\n1. How many?", "<|im_start|>assistant\n1. How many?"
_ROLE = re.compile(r"\A\s*(?:<\|im_start\|>\s*)?(?:assistant|model)[ \t]*\n", re.IGNORECASE)

# ---- thinking, which has more than one notation

_TAG = r"(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)"
_OPENS = re.compile(rf"<{_TAG}>|\[THINK\]|<\|begin_of_thought\|>|◁think▷", re.IGNORECASE)
_CLOSES = re.compile(rf"</{_TAG}>|\[/THINK\]|<\|end_of_thought\|>|◁/think▷", re.IGNORECASE)
# Harmony: `<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...`
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*?(?:<\|message\|>)", re.IGNORECASE)
_HARMONY_FINAL = "final"

# ---- what stands around a list

# "Assistant: 1. How many?", "**Subquestions:**\n1. How many?", "<|start|>1. How many?"
_OPENING_LABEL = re.compile(
    rf"""\A\s*(?:
        {_CONTROL}
      | (?:\#+\s*)?\**(?:assistant|model|ai|response|output|answer|(?:the\ )?sub-?questions|decomposition)\**:\**
      | (?:assistant|model)(?=\n)
    )[ \t]*\n*""",
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
_BLANK_LINES = re.compile(r"\n{3,}")  # a model that loops and writes nothing but line ends
_BLANK_TOP = re.compile(r"\A(?:[ \t]*\n)+")  # "\n  \n1. How many?"


def without_thinking(reply: str) -> str:
    """The reply after its last block of thoughts, in any of the notations; the opening mark may stand in the prompt.

    Raises:
        SubquestionsError: The reply ends inside its thoughts.
    """
    channels = list(_CHANNEL.finditer(reply))
    if channels:
        finals = [match for match in channels if match[1].casefold() == _HARMONY_FINAL]
        if not finals:
            raise SubquestionsError("cut_off", "The reply ends inside its thoughts.")
        reply = reply[finals[-1].end() :]
    closings = list(_CLOSES.finditer(reply))
    text = reply[closings[-1].end() :] if closings else reply
    if _OPENS.search(text):
        raise SubquestionsError("cut_off", "The reply ends inside its thoughts.")
    return text


def thinks_still(text: str) -> bool:
    """Whether a reply that is still being written is inside its thoughts."""
    try:
        without_thinking(text)
    except SubquestionsError:
        return True
    return False


def own_turn(text: str) -> str:
    """The model's own turn, up to the token that ends it or to another speaker's label; what follows is invented."""
    text = INVISIBLE.sub("", text)
    text = _ROLE.sub("", text, count=1)
    while leading := _LEADING_CONTROL.match(text):
        text = text[leading.end() :]
    return _END_OF_TURN.split(text, maxsplit=1)[0]


def list_alone(reply: str) -> str:
    """The list in a reply, without what chat models and their templates put around it; empty where nothing is left.

    Raises:
        SubquestionsError: The reply ends inside its thoughts, or holds two blocks of code.
    """
    text = INVISIBLE.sub("", without_thinking(reply)).replace("\r\n", "\n").replace("\r", "\n")
    # Thousands of line ends in a row would keep the patterns below busy for a minute.
    text = _BLANK_LINES.sub("\n\n", "\n".join(line.rstrip() for line in text.split("\n")))
    text = own_turn(_without_labels(text))
    if section := _SECTION.search(text):
        text = section.group(1)
    text = _without_fence(_without_labels(_SECTION_HEADER.sub("", text)))
    if wrapper := _WRAPPER.match(text.strip()):
        text = wrapper.group(2)
    return _without_quotes(_without_margins(text))


def _without_labels(text: str) -> str:
    while label := _OPENING_LABEL.match(text):
        text = text[label.end() :]
    return text


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
