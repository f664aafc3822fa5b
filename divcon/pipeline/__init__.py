"""Running a pipeline file: its stations, arms and results, and answering with a finished run."""

from divcon.pipeline._context import Context, announce_conversion, open_store
from divcon.pipeline._errors import Failures, Incomplete, MissingStation, Unfit, explain_lm_error
from divcon.pipeline._estimate import Measured, StationEstimate, total_of
from divcon.pipeline._planned import weights_of
from divcon.pipeline._publish import Published, PublishError, publish
from divcon.pipeline._record import recorded_keys
from divcon.pipeline._results import SCHEMA_VERSION, require_all_answered, results_files, student_upfront
from divcon.pipeline._run import Run
from divcon.pipeline._so_far import SoFar, shown_stations
from divcon.pipeline._stations import adapter_folder
from divcon.pipeline._status import State, StationStatus
from divcon.pipeline._works import recipe_of, worker_context

__all__ = [
    "SCHEMA_VERSION",
    "Context",
    "Failures",
    "Incomplete",
    "Measured",
    "MissingStation",
    "PublishError",
    "Published",
    "Run",
    "SoFar",
    "State",
    "StationEstimate",
    "StationStatus",
    "Unfit",
    "adapter_folder",
    "announce_conversion",
    "explain_lm_error",
    "open_store",
    "publish",
    "recipe_of",
    "recorded_keys",
    "require_all_answered",
    "results_files",
    "shown_stations",
    "student_upfront",
    "total_of",
    "weights_of",
    "worker_context",
]
