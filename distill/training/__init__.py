"""Training: rows of chat messages become a LoRA adapter with its manifest, by a method of the table `METHODS`."""

from divcon.distill.training._errors import TrainingError, TrainingStopped
from divcon.distill.training._lifecycle import train_adapter
from divcon.distill.training._methods import METHODS, Method, TrainerParts
from divcon.distill.training._preflight import Preflight, preflight, require_usable, tokenized, within_length
from divcon.distill.training._rows import (
    Destination,
    Export,
    ExportManifest,
    read_export,
    read_rows,
    rows_hash,
    write_rows,
)
from divcon.distill.training._settings import FORM_STEPS, TrainSettings
from divcon.distill.training._training import Provenance, Training, already_trained, is_trained

__all__ = [
    "FORM_STEPS",
    "METHODS",
    "Destination",
    "Export",
    "ExportManifest",
    "Method",
    "Preflight",
    "Provenance",
    "TrainSettings",
    "TrainerParts",
    "Training",
    "TrainingError",
    "TrainingStopped",
    "already_trained",
    "is_trained",
    "preflight",
    "read_export",
    "read_rows",
    "require_usable",
    "rows_hash",
    "tokenized",
    "train_adapter",
    "within_length",
    "write_rows",
]
