"""What a training can end with instead of an adapter."""

from divcon.signatures import DivconError


class TrainingError(DivconError):
    """Training data or settings that can't give a working adapter."""


class TrainingStopped(TrainingError):
    """Training was told to stop; it goes on from there when it is started again."""


def in_file(name: str) -> str:
    """A field of `TrainSettings` as a remedy names it, for those who set it in Python and those who do in YAML."""
    return f"{name} (train.{name} in a pipeline file)"
