"""Tasks, graders, evaluation, statistics and the report."""

from divcon.benchmarks._costs import (
    bill,
    break_even,
    choose,
    compare_costs,
    mean_upfront,
    pareto_front,
    solver_share,
    upfront,
)
from divcon.benchmarks._evaluate import Arm, answered_by, evaluate_arm, evaluate_arms
from divcon.benchmarks._figures import percent, score
from divcon.benchmarks._graders import (
    GRADERS,
    Verdict,
    grade,
    grade_as_paper,
    grade_number,
    grade_text,
    is_right,
    item_of,
)
from divcon.benchmarks._mlflow import TrackingError, log_to_mlflow
from divcon.benchmarks._outcomes import MAX_FAILED, Outcome, Record, Records, counted, too_many_failed
from divcon.benchmarks._recorded import Matching, RecordedProgram, Recording, RowFields, plans_of, read_recording
from divcon.benchmarks._report import ReportError, Shown, advise, arm_label, write_experiment_report, write_report
from divcon.benchmarks._statistics import accuracy_interval, holm, mean_interval, paired_p_value
from divcon.benchmarks._tables import FACTORS, agreement, answers_of, as_csv, differences, summarize_arm

__all__ = [
    "FACTORS",
    "GRADERS",
    "MAX_FAILED",
    "Arm",
    "Matching",
    "Outcome",
    "Record",
    "RecordedProgram",
    "Recording",
    "Records",
    "ReportError",
    "RowFields",
    "Shown",
    "TrackingError",
    "Verdict",
    "accuracy_interval",
    "advise",
    "agreement",
    "answered_by",
    "answers_of",
    "arm_label",
    "as_csv",
    "bill",
    "break_even",
    "choose",
    "compare_costs",
    "counted",
    "differences",
    "evaluate_arm",
    "evaluate_arms",
    "grade",
    "grade_as_paper",
    "grade_number",
    "grade_text",
    "holm",
    "is_right",
    "item_of",
    "log_to_mlflow",
    "mean_interval",
    "mean_upfront",
    "paired_p_value",
    "pareto_front",
    "percent",
    "plans_of",
    "read_recording",
    "score",
    "solver_share",
    "summarize_arm",
    "too_many_failed",
    "upfront",
    "write_experiment_report",
    "write_report",
]
