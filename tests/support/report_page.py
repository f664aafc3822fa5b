"""What a report holds: the index of its questions, and the parts that the page unpacks."""

from __future__ import annotations

import base64
import gzip
import json
import re
from typing import Any


def questions_of(html: str) -> list[dict[str, Any]]:
    """The index of the questions, by task."""
    index = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)
    assert index is not None
    found: list[dict[str, Any]] = json.loads(index[1])
    return found


def parts_of(html: str) -> list[dict[str, Any]]:
    """The contents of the packed parts."""
    parts = re.findall(r'<script type="text/plain" id="part-[\d-]+">(.*?)</script>', html)
    return [json.loads(gzip.decompress(base64.b64decode(part))) for part in parts]
