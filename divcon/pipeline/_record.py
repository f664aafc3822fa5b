"""The recorded keys: the key of each station's result, kept in the run folder for `divcon status`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from divcon.distill import Key, write_whole

_FILE = "keys.json"


def record_key(folder: Path, station: str, key: Key) -> None:
    """Record the key of a station's result, after the station has finished."""
    recorded = recorded_keys(folder)
    if recorded.get(station, {}).get("digest") == key.digest:
        return
    recorded[station] = {"digest": key.digest, "parts": key.plain()}
    write_whole(folder / _FILE, json.dumps(recorded, indent=2, ensure_ascii=False) + "\n")


def recorded_keys(folder: Path) -> dict[str, dict[str, Any]]:
    """The digest and the parts of each station's key when it finished."""
    file = folder / _FILE
    try:
        recorded = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}  # it only explains: a run without it is as good
    entries = recorded.items() if isinstance(recorded, dict) else ()
    return {name: one for name, one in entries if isinstance(one, dict) and {"digest", "parts"} <= set(one)}
