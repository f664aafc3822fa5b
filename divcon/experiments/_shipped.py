"""The experiments that ship with divcon, by name."""

from __future__ import annotations

from pathlib import Path

from divcon.signatures import DivconError

_SHIPPED = Path(__file__).parent / "files"


def shipped_experiments() -> list[str]:
    """The names of the experiments that ship with divcon."""
    return sorted(file.stem for file in _SHIPPED.glob("*.yaml"))


def experiment_file(given: Path) -> Path:
    """The file of an experiment.

    Args:
        given: The file; or a name, of a file in `examples/experiments` or of an experiment that ships with divcon.

    Raises:
        DivconError: There is no such file, nor an experiment of that name.
    """
    if given.suffix or given.exists():
        return given
    for folder in (Path("examples") / "experiments", _SHIPPED):
        named = folder / f"{given}.yaml"
        if named.is_file():
            return named
    raise DivconError(
        f"There is no file {given}, and no experiment of that name.",
        f"Give an experiment's file, or one of {', '.join(shipped_experiments())}.",
    )
