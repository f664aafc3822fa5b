"""Write what is generated from the code: the schemas that ship with the package. `make generated` runs it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from divcon.schemas import schema_text

ROOT = Path(__file__).parent.parent


def generated() -> Iterator[tuple[Path, str]]:
    """Each generated file, from the root of the repository, and its text."""
    for name in ("pipeline", "experiment"):
        yield Path("divcon", "config", f"{name}.schema.json"), schema_text(name)


if __name__ == "__main__":
    for file, text in generated():
        (ROOT / file).write_text(text, encoding="utf-8")
