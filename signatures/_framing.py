"""What stands around a reply: thinking, the tokens of a chat template, turns that the model made up."""

from __future__ import annotations

import re

from divcon.signatures._errors import SubquestionsError

INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
CONTROL = r"(?:<\|[a-z_]+\|>|</?s>|<(?:start|end)_of_turn>|\[/?INST\])"
_END_OF_TURN = re.compile(
    r"<\|(?:im_end|endoftext|eot_id|end|return|end_of_text|end_of_turn|user|im_start)\|>|</s>|<end_of_turn>"
    # A new turn that nothing announces but its label; a reply that begins with one is no turn of the model's at all.
    r"|(?<=\n)[ \t]*\**(?:user|human)\**[ \t]*(?::|(?=\n|\Z))",
    re.IGNORECASE,
)
_ROLE = re.compile(r"\A\s*(?:<\|im_start\|>\s*)?(?:assistant|model)[ \t]*\n", re.IGNORECASE)

# ---- thinking, which has more than one notation

_TAG = r"(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad)"
_OPENS = re.compile(rf"<{_TAG}>|\[THINK\]|<\|begin_of_thought\|>|◁think▷", re.IGNORECASE)
_CLOSES = re.compile(rf"</{_TAG}>|\[/THINK\]|<\|end_of_thought\|>|◁/think▷", re.IGNORECASE)
# Harmony: `<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...`
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)[^<]*?(?:<\|message\|>)", re.IGNORECASE)
_HARMONY_FINAL = "final"


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
    """The model's own turn: what follows the token that ends it, or another speaker's label, is made up."""
    text = INVISIBLE.sub("", text)
    text = _ROLE.sub("", text, count=1)
    while leading := re.match(rf"\s*{CONTROL}", text):
        text = text[leading.end() :]
    return _END_OF_TURN.split(text, maxsplit=1)[0]
