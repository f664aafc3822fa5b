"""The stations, a file or a package each, in the order data flows: compile, collect, screen, export, train, serve.

Importing this package loads neither torch nor transformers; the stations that need them load them when they run.
"""

from divcon.distill._bind import bind_adapter
from divcon.distill._booking import at_station, booked_to
from divcon.distill._budget import Budget, BudgetSpent, Limits
from divcon.distill._card import CARD, Evaluated, model_card
from divcon.distill._collect import Collected, UnreadablePlans, collect, collecting, quoted_reply
from divcon.distill._compile import OPTIMIZER_EXTRAS, OPTIMIZERS, CompileError, compile_program, optimizer_name
from divcon.distill._contamination import AllowedOverlap, Allowing, OverlapError, Overlaps, overlapping, refuse_overlap
from divcon.distill._database import RepliesLost, StoreDamaged, StoreError, StoreVersionError
from divcon.distill._engine import StoredEngine, role_lm
from divcon.distill._export import NothingToLearn, export
from divcon.distill._files import render_lines, write_whole
from divcon.distill._hold import FolderBusy, Hold
from divcon.distill._http import LMBackend
from divcon.distill._inspected import Inspected, inspect_question, items_of, prompt_of, reply_of
from divcon.distill._jobs import Job, Place, Progress, Tally, cause_of_ours, here, overlapped, run_jobs
from divcon.distill._key import Key
from divcon.distill._manifest import (
    Manifest,
    ManifestError,
    content_hash,
    file_hashes,
    package_versions,
    prompt_hash,
    read_manifest,
)
from divcon.distill._metric import DecompositionMetric
from divcon.distill._provider import EmbeddedEngine, EmbeddedProvider, LoRAJob, PromptDrift, embedded_lm
from divcon.distill._rebinding import DistillationError
from divcon.distill._salvage import Repair, StoreState, check_store, export_store, repair_store
from divcon.distill._stopping import stopping_after_steps
from divcon.distill._store import RunStore, fingerprint
from divcon.distill._stored import Exchange, Trace
from divcon.distill._students import (
    SOLVER_STUDENTS,
    Student,
    Target,
    decomposer_student,
    find_student,
    student_names,
    students_of,
)
from divcon.distill._table import Choices, PluginError, Table, UnknownName
from divcon.distill._targets import Solved, SolvedTraces, export_targets, solve_traces, solving
from divcon.distill._teacher import SCRIPTED_MODEL, Author, Plan, RecordedTeacher, ScriptedTeacher, ScriptedTeacherError
from divcon.distill._teleprompter import DistillDecomposer
from divcon.distill._traffic import Traffic, watching
from divcon.distill._trouble import (
    GivenUpError,
    Patience,
    ReplyTooLongError,
    SlowServerError,
    UnreadableReplyError,
    UnusableReplyError,
    is_too_long,
    quoted,
    trouble,
)
from divcon.distill.screening import RECORDED, RULES, Judgement, Rule, Screened, Solver, judging, screen, well_formed
from divcon.distill.serving.embedded import Base, EmbeddedBaseMissing, embedded_base, local_base
from divcon.distill.serving.embedded._model import EmbeddedModel, shared_model
from divcon.distill.training import (
    FORM_STEPS,
    Destination,
    Export,
    Provenance,
    Training,
    TrainingError,
    TrainingStopped,
    TrainSettings,
    already_trained,
    is_trained,
    read_export,
    rows_hash,
    train_adapter,
)

__all__ = [
    "CARD",
    "FORM_STEPS",
    "OPTIMIZERS",
    "OPTIMIZER_EXTRAS",
    "RECORDED",
    "RULES",
    "SCRIPTED_MODEL",
    "SOLVER_STUDENTS",
    "AllowedOverlap",
    "Allowing",
    "Author",
    "Base",
    "Budget",
    "BudgetSpent",
    "Choices",
    "Collected",
    "CompileError",
    "DecompositionMetric",
    "Destination",
    "DistillDecomposer",
    "DistillationError",
    "EmbeddedBaseMissing",
    "EmbeddedEngine",
    "EmbeddedModel",
    "EmbeddedProvider",
    "Evaluated",
    "Exchange",
    "Export",
    "FolderBusy",
    "GivenUpError",
    "Hold",
    "Inspected",
    "Job",
    "Judgement",
    "Key",
    "LMBackend",
    "Limits",
    "LoRAJob",
    "Manifest",
    "ManifestError",
    "NothingToLearn",
    "OverlapError",
    "Overlaps",
    "Patience",
    "Place",
    "Plan",
    "PluginError",
    "Progress",
    "PromptDrift",
    "Provenance",
    "RecordedTeacher",
    "Repair",
    "RepliesLost",
    "ReplyTooLongError",
    "Rule",
    "RunStore",
    "Screened",
    "ScriptedTeacher",
    "ScriptedTeacherError",
    "SlowServerError",
    "Solved",
    "SolvedTraces",
    "Solver",
    "StoreDamaged",
    "StoreError",
    "StoreState",
    "StoreVersionError",
    "StoredEngine",
    "Student",
    "Table",
    "Tally",
    "Target",
    "Trace",
    "Traffic",
    "TrainSettings",
    "Training",
    "TrainingError",
    "TrainingStopped",
    "UnknownName",
    "UnreadablePlans",
    "UnreadableReplyError",
    "UnusableReplyError",
    "already_trained",
    "at_station",
    "bind_adapter",
    "booked_to",
    "cause_of_ours",
    "check_store",
    "collect",
    "collecting",
    "compile_program",
    "content_hash",
    "decomposer_student",
    "embedded_base",
    "embedded_lm",
    "export",
    "export_store",
    "export_targets",
    "file_hashes",
    "find_student",
    "fingerprint",
    "here",
    "inspect_question",
    "is_too_long",
    "is_trained",
    "items_of",
    "judging",
    "local_base",
    "model_card",
    "optimizer_name",
    "overlapped",
    "overlapping",
    "package_versions",
    "prompt_hash",
    "prompt_of",
    "quoted",
    "quoted_reply",
    "read_export",
    "read_manifest",
    "refuse_overlap",
    "render_lines",
    "repair_store",
    "reply_of",
    "role_lm",
    "rows_hash",
    "run_jobs",
    "screen",
    "shared_model",
    "solve_traces",
    "solving",
    "stopping_after_steps",
    "student_names",
    "students_of",
    "train_adapter",
    "trouble",
    "watching",
    "well_formed",
    "write_whole",
]
