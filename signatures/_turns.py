"""The model's own words in a reply: no thoughts, no tokens of a chat template, no turn that the model has invented."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from divcon.signatures._errors import SubquestionsError

# Zero-width spaces, text direction marks and byte order marks, which no reader sees and every pattern would stumble on.
INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # half of an emoji that was cut off; it can't be encoded or stored

# ---- thoughts, which have more than one notation

_TAG = r"(?:\w{1,20}:|ant)?(?:think|thinking|thoughts?|reason|reasoning|reflection|scratchpad|analysis|inner_monologue)"
_BEGIN_TOKEN = r"<\|(?:(?:begin|start)_(?:of_)?)?(?:think|thinking|thought|reasoning)\|>"
_END_TOKEN = r"<\|(?:end_(?:of_)?|/)(?:think|thinking|thought|reasoning)\|>"
_MARK = re.compile(
    rf"(?P<closes></\s*{_TAG}\s*>|<{_TAG}\s*/>|\[/{_TAG}\]|{_END_TOKEN}|<channel\|>|<unused95>|◁/think▷)"
    rf"|<{_TAG}(?:\s[^<>]*)?>|\[{_TAG}\]|{_BEGIN_TOKEN}|<\|channel>thought|<unused94>|◁think▷",
    re.IGNORECASE,
)
# Harmony: "<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...". A header may say
# more, "<|channel|>final <|constrain|>json<|message|>", and the prompt may have opened it.
_CHANNEL = re.compile(r"<\|channel\|>|\A\s*(?=(?:analysis|commentary|final)\s*<\|message\|>)", re.IGNORECASE)
_FINAL = re.compile(r"\s*final\b[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>", re.IGNORECASE)
# The same where the server has left out the tokens: "analysisWe have to count.assistantfinal1. How many?"
_BARE_ANALYSIS = re.compile(r"\s*analysis(?=[A-Z\d\"'(])")
_BARE_FINAL = re.compile(r"assistantfinal")

# ---- turns

# "<|im_start|>", "<｜end▁of▁sentence｜>", "<|turn>", "</s>", "<eos>", "<start_of_turn>", "[INST]"
CONTROL = (
    rf"(?:(?=<[|｜][a-z0-9_▁])(?!{_BEGIN_TOKEN}|{_END_TOKEN})<[|｜][a-z0-9_▁]{{1,40}}[|｜]>"
    r"|<\|turn>|<turn\|>|</?s>|<(?:bos|eos)>|<(?:start|end)_of_turn>|\[/?INST\])"
)
# How a turn of the model's may begin: "assistant\n", "Assistant: ", "<|start_header_id|>assistant<|end_header_id|>"
_ROLE = rf"\s*(?:(?:assistant|model)[ \t]*(?:\n|(?={CONTROL}))|\**assistant\**:\**)"
_BEGINNING = re.compile(rf"(?:{_ROLE})?(?:\s*{CONTROL}(?:{_ROLE})?)*+", re.IGNORECASE)
# "1. How many?<|im_end|>..."; or a new turn that nothing announces but its label, "1. How many?\nUser: ...". A reply
# that begins with such a label is no turn of the model's at all.
_END = re.compile(
    rf"{CONTROL}|(?<=\n)[ \t]*+(?:\#{{1,6}}[ \t]+)?\**(?:user|human)\**[ \t]*+(?::|(?=\n|\Z))", re.IGNORECASE
)


def own_words(reply: str) -> str:
    """The model's own turn without its thoughts and without characters that no reader sees.

    Raises:
        SubquestionsError: The reply ends inside its thoughts.
    """
    text = HALF_CHARACTER.sub("\ufffd", INVISIBLE.sub("", own_turn(without_thinking(reply))))
    return text.replace("\r\n", "\n").replace("\r", "\n")


def without_thinking(reply: str) -> str:
    """The reply after its thoughts, in any of the notations; the opening mark may stand in the prompt.

    Thoughts in a later turn, which the model has invented, are left there.

    Raises:
        SubquestionsError: The reply ends inside its thoughts.
    """
    text = _final_channel(reply)
    marks = list(_MARK.finditer(text))
    at = thought = 0  # where the words go on, and how many marks stand before
    if marks and marks[0]["closes"]:  # the prompt has opened the thoughts
        at, thought = marks[0].end(), 1
    while True:
        end = _turn(text, at)[1]
        later = next((i for i in range(thought, len(marks)) if marks[i].start() >= end), len(marks))
        closings = [i for i in range(thought, later) if marks[i]["closes"]]
        if not closings and thought < later:  # a token that ends a turn may be quoted inside the thoughts
            closings = list(islice((i for i in range(later, len(marks)) if marks[i]["closes"]), 1))
            if not closings:
                raise _inside_thoughts()
        if not closings:
            return text[at:]
        at, thought = marks[closings[-1]].end(), closings[-1] + 1


def thinks_still(text: str) -> bool:
    """Whether a reply that is still being written is inside its thoughts."""
    try:
        without_thinking(text)
    except SubquestionsError:
        return True
    return False


def own_turn(text: str) -> str:
    """The model's own turn, up to the token that ends it or to another speaker's label; what follows is invented."""
    start, end = _turn(text, 0)
    return text[start:end]


def _turn(text: str, at: int) -> tuple[int, int]:
    """Where the words of the turn that stands at `at` begin, and where they end."""
    beginning = _BEGINNING.match(text, at)
    start = beginning.end() if beginning else at
    ends = (match.start() for match in _END.finditer(text, start) if match.start() > start)
    return start, next(ends, len(text))


def _final_channel(reply: str) -> str:
    """What stands in the reply's final channel and behind it; all of the reply where it has no channels."""
    finals: Iterator[re.Match[str]]
    if channels := list(_CHANNEL.finditer(reply)):
        finals = (final for channel in channels if (final := _FINAL.match(reply, channel.end())))
    elif _BARE_ANALYSIS.match(reply) or _BARE_FINAL.search(reply):
        finals = _BARE_FINAL.finditer(reply)
    else:
        return reply
    final = next(finals, None)
    if final is None:
        raise _inside_thoughts()
    return reply[final.end() :]


def _inside_thoughts() -> SubquestionsError:
    return SubquestionsError("cut_off", "The reply ends inside its thoughts.")
