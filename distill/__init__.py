"""One file a station, in the order data flows: compile, collect, screen, export, train, serve.

Importing this package loads neither torch nor transformers; the stations that need them load them when they run.
"""

from divcon.distill._bind import bind_adapter
from divcon.distill._collect import Collected, collect
from divcon.distill._compile import CompileError, compile_program, optimizer_name
from divcon.distill._engine import StoredEngine, at_station, booked_to, role_lm
from divcon.distill._export import Export, NothingToLearn, OverlapError, export, overlapping, refuse_overlap
from divcon.distill._http import LMBackend, Patience, SlowServerError, trouble
from divcon.distill._manifest import (
    Manifest,
    ManifestError,
    content_hash,
    package_versions,
    prompt_hash,
    read_manifest,
    text_hash,
)
from divcon.distill._metric import DecompositionMetric
from divcon.distill._overlap import error_behind, overlapped
from divcon.distill._provider import EmbeddedEngine, EmbeddedProvider, LoRAJob, PromptDrift, embedded_lm
from divcon.distill._screen import Screened, screen, well_formed
from divcon.distill._store import RunStore, StoreError, Trace, fingerprint, render_lines, write_whole
from divcon.distill._targets import SOLVER_STUDENTS, SolvedTraces, export_targets, solve_traces
from divcon.distill._teacher import SCRIPTED_MODEL, ScriptedTeacher, ScriptedTeacherError
from divcon.distill._teleprompter import DistillationError, DistillDecomposer
from divcon.distill._traffic import Traffic, watching
from divcon.distill._train import TrainingError, TrainingStopped, TrainSettings, is_trained, train_adapter
from divcon.distill.serving.embedded import Base, EmbeddedBaseMissing, embedded_base, local_base
from divcon.distill.serving.embedded._model import EmbeddedModel, shared_model

__all__ = [
    "SCRIPTED_MODEL",
    "SOLVER_STUDENTS",
    "Base",
    "Collected",
    "CompileError",
    "DecompositionMetric",
    "DistillDecomposer",
    "DistillationError",
    "EmbeddedBaseMissing",
    "EmbeddedEngine",
    "EmbeddedModel",
    "EmbeddedProvider",
    "Export",
    "LMBackend",
    "LoRAJob",
    "Manifest",
    "ManifestError",
    "NothingToLearn",
    "OverlapError",
    "Patience",
    "PromptDrift",
    "RunStore",
    "Screened",
    "ScriptedTeacher",
    "ScriptedTeacherError",
    "SlowServerError",
    "SolvedTraces",
    "StoreError",
    "StoredEngine",
    "Trace",
    "Traffic",
    "TrainSettings",
    "TrainingError",
    "TrainingStopped",
    "at_station",
    "bind_adapter",
    "booked_to",
    "collect",
    "compile_program",
    "content_hash",
    "embedded_base",
    "embedded_lm",
    "error_behind",
    "export",
    "export_targets",
    "fingerprint",
    "is_trained",
    "local_base",
    "optimizer_name",
    "overlapped",
    "overlapping",
    "package_versions",
    "prompt_hash",
    "read_manifest",
    "refuse_overlap",
    "render_lines",
    "role_lm",
    "screen",
    "shared_model",
    "solve_traces",
    "text_hash",
    "train_adapter",
    "trouble",
    "watching",
    "well_formed",
    "write_whole",
]
