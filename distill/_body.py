"""The body of a server's reply, mended before a client reads it, so that no paid reply is lost for its counters.

The clients raise an error for a token count that is no count, and take every finish reason that they don't know for
`stop`. Anthropic's and Gemini's replies have another form, and are left as they are.
"""

from __future__ import annotations

import json
import re
from typing import Any

from divcon.programs import warn_of_counts, whole_number

ENDED_BY = "divcon_ended_by"  # the finish reason, in the chunk of a stream that has the usage
_USAGE = re.compile(rb'"usage"\s*:\s*[^n\s]')  # anything but null
_UNKNOWN_END = re.compile(rb'"finish_reason"\s*:\s*"(?!(?:stop|length|tool_calls|function_call|content_filter)")')
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")


def mended(body: bytes) -> bytes:
    """A whole reply with counts that are counts; any other body is returned as it is."""
    if not _USAGE.search(body):
        return body
    found = _parsed(body)
    if found is None or not _mend_usage(found):
        return body
    return json.dumps(found).encode()


class StreamMender:
    """Mends a stream of server-sent events, a chunk of bytes at a time."""

    def __init__(self) -> None:
        self._rest = b""
        self._ended_by: str | None = None

    def feed(self, chunk: bytes) -> bytes:
        """The whole lines so far, mended."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return b"".join(self._line(line) + b"\n" for line in lines)

    def end(self) -> bytes:
        """What stands after the last line end."""
        return self._line(self._rest)

    def _line(self, line: bytes) -> bytes:
        if not line.startswith(b"data:") or not (_USAGE.search(line) or _UNKNOWN_END.search(line)):
            return line
        found = _parsed(line[5:])
        if found is None:
            return line
        for choice in found.get("choices") or ():
            if isinstance(choice, dict) and choice.get("finish_reason"):
                self._ended_by = str(choice["finish_reason"])
        _mend_usage(found)
        if self._ended_by is not None:
            found[ENDED_BY] = self._ended_by
        return b"data: " + json.dumps(found).encode()


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None  # the client reports it
    return found if isinstance(found, dict) and isinstance(found.get("choices"), list | None) else None


def _mend_usage(body: dict[str, Any]) -> bool:
    """Leave out counts that are none. Returns whether any was."""
    usage = body.get("usage")
    if usage is None:
        return False
    wrong: list[str] = []
    if not isinstance(usage, dict):
        wrong, body["usage"] = [f"usage {usage!r}"], None
    else:
        _mend_counts(usage, [name for name in _COUNTS if name in usage], wrong)
        for name in _DETAILS:
            details = usage.get(name)
            if isinstance(details, dict):
                _mend_counts(details, list(details), wrong)
            elif details is not None:
                wrong.append(f"{name} {details!r}")
                usage[name] = None
    warn_of_counts(wrong)
    return bool(wrong)


def _mend_counts(counts: dict[str, Any], names: list[str], wrong: list[str]) -> None:
    for name in names:
        value = counts[name]
        if value is not None and whole_number(value) is None:
            wrong.append(f"{name} {value!r}")
            del counts[name]
