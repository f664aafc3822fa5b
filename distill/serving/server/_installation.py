"""Where a server's software is installed: often an environment of its own, with a torch of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from divcon.distill._paths import expanded_path
from divcon.distill.serving._settings import AnyServerSettings
from divcon.distill.serving.server._errors import ServerError

# Asked of the other Python without importing what is looked for, which takes seconds.
_ASK = """
import importlib.metadata as m, json, sys
found = {}
for name in sys.argv[1:]:
    try: found[name] = m.version(name)
    except m.PackageNotFoundError: pass
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Installation:
    """A Python that a server's software is installed for.

    Attributes:
        python: Its interpreter.
        versions: The versions of the software's package, which comes first, and of torch and transformers.
    """

    python: Path
    versions: dict[str, str]

    @property
    def version(self) -> str:
        """The software's own."""
        return next(iter(self.versions.values()))

    @property
    def on_cpu(self) -> bool:
        """Whether it is a build that computes on the CPU, where an unmerged adapter is many times slower."""
        return any(name.endswith("-cpu") or "+cpu" in version for name, version in self.versions.items())


def find_installation(
    settings: AnyServerSettings, title: str, packages: Sequence[str], variable: str, remedy: str
) -> Installation:
    """The installation that the settings mean.

    Args:
        settings: Of the server.
        title: The software, as messages call it.
        packages: What it may be installed as.
        variable: The variable of the environment that names its Python, where the settings don't.
        remedy: How to install it.

    Raises:
        ServerError: There is no such Python, or it hasn't got the software.
    """
    chosen = settings.python or (expanded_path(os.environ[variable]) if os.environ.get(variable) else None)
    python = chosen.absolute() if chosen else Path(sys.executable)
    where = (
        "this environment"
        if chosen is None
        else f"{python} (server.python)"
        if settings.python
        else f"{python} ({variable})"
    )
    asked = [str(python), "-I", "-c", _ASK, *packages, "torch", "transformers"]
    try:
        told = subprocess.run(asked, capture_output=True, text=True, timeout=60, check=True)
        versions: dict[str, str] = json.loads(told.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ServerError(
            f"There is no Python that answers at {where}.", f"Name the interpreter of {title}'s virtual environment."
        ) from error
    if not set(packages) & set(versions):
        raise ServerError(f"{title} isn't installed in {where}.", remedy)
    return Installation(python, versions)
