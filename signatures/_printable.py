"""Printable text: characters that steer a terminal or turn the reading direction are made visible."""

from __future__ import annotations

import json
import re
from typing import Any

# All of Cc but tab and line end, the controls of the reading direction, separators that end a line, half characters.
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """The text with its control characters shown by their code points, as in `[U+001B]`. Tabs and line ends stay.

    Examples:
        >>> printable("safe\\x1b[2J\\u202etxt.exe")
        'safe[U+001B][2J[U+202E]txt.exe'
    """
    return _CONTROLS.sub(lambda found: f"[U+{ord(found[0]):04X}]", text.replace("\r\n", "\n"))


def printable_values(value: Any) -> Any:
    """A JSON-ready value with every text in it printable."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable_values(name): printable_values(one) for name, one in value.items()}
    return [printable_values(one) for one in value] if isinstance(value, (list, tuple)) else value


def printable_json(value: Any) -> str:
    """The value as one line of JSON without a control character; a reader gets the value unchanged."""
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
