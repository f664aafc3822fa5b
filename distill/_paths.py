"""Paths as people write them: `~` and `$NAME` mean what they mean in a shell."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from divcon.signatures import DivconError

_VARIABLE = re.compile(r"\$(?:\{(?P<braced>[^}]*)\}|(?P<plain>[A-Za-z_][A-Za-z0-9_]*))")
# A value of free settings is only taken for a path where it begins like one.
_BEGINS_LIKE_A_PATH = re.compile(rf"~[A-Za-z0-9._-]*/|{_VARIABLE.pattern}/")
_HOME_IN_ADDRESS = re.compile(r"(file|sqlite):(/*)(?=[~$])")


class PathError(DivconError, ValueError):
    """A path names a variable that isn't set or a user that isn't there, or holds what no path can."""


def expanded(text: str) -> str:
    """A path with `~`, `~user`, `$NAME` and `${NAME}` replaced. Other text is returned as it is.

    Raises:
        PathError: A variable isn't set, there is no such user, or the path holds a null character.

    Examples:
        >>> expanded("data/questions.jsonl")
        'data/questions.jsonl'
    """

    if "\x00" in text:
        raise PathError(f"{text!a} holds a null character, which no path has.", "Correct it.")

    def value(found: re.Match[str]) -> str:
        name = found["braced"] or found["plain"] or ""
        if not os.environ.get(name):
            raise PathError(f"{text!a} names the variable {name or '(none)'}, which isn't set.", "Set it.")
        return os.environ[name]

    whole = _VARIABLE.sub(value, text)
    if not whole.startswith("~"):
        return whole
    home = os.path.expanduser(whole)  # noqa: PTH111 - the text may be an address, such as file:~/x without its scheme
    if home.startswith("~"):
        raise PathError(f"{text!a} names the home folder of a user that isn't here.", "Write the whole path.")
    return home


def expanded_path(path: str | Path) -> Path:
    """`expanded` as a path.

    Raises:
        PathError: See `expanded`.
    """
    return Path(expanded(str(path)))


def expanded_address(address: str) -> str:
    """An address with its path expanded where it leads to a file: `file:`, `sqlite:`, or a path without a scheme.

    Raises:
        PathError: See `expanded`.

    Examples:
        >>> expanded_address("http://127.0.0.1:5000")
        'http://127.0.0.1:5000'
    """
    if (found := _HOME_IN_ADDRESS.match(address)) is not None:
        scheme, slashes = found.groups()
        return f"{scheme}:{'' if scheme == 'file' else slashes}{expanded(address[found.end() :])}"
    return address if re.match(r"(?!file:|sqlite:)[a-z+]+:", address) else expanded(address)


def expanded_values(values: Any) -> Any:
    """Free settings, such as arguments of a server, with the values expanded that begin with `~/` or `$NAME/`.

    Raises:
        PathError: See `expanded`.
    """
    if isinstance(values, dict):
        return {key: expanded_values(value) for key, value in values.items()}
    if isinstance(values, list):
        return [expanded_values(value) for value in values]
    return expanded(values) if isinstance(values, str) and _BEGINS_LIKE_A_PATH.match(values) else values


def _as_written(value: Any) -> Any:
    return expanded(str(value)) if isinstance(value, (str, Path)) else value


# The type of a path in a file of settings.
WrittenPath = Annotated[Path, BeforeValidator(_as_written)]
# The type of a text that is a path or a name, such as a base.
PathOrName = Annotated[str, AfterValidator(expanded)]
# The type of an address that may be a folder's.
Address = Annotated[str, AfterValidator(expanded_address)]
# The type of free settings.
Arguments = Annotated[dict[str, Any], AfterValidator(expanded_values)]
