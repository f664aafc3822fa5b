"""What is measured and how: tasks, graders, evaluation, statistics and the report."""

from divcon.benchmarks._evaluate import Arm, agreement, differences, evaluate_arm, summarize_arm
from divcon.benchmarks._graders import Verdict, grade, grade_as_paper, grade_number, grade_text, is_right, item_of
from divcon.benchmarks._report import ReportError, percent, write_report
from divcon.benchmarks._statistics import accuracy_interval, difference_interval

__all__ = [
    "Arm",
    "ReportError",
    "Verdict",
    "accuracy_interval",
    "agreement",
    "difference_interval",
    "differences",
    "evaluate_arm",
    "grade",
    "grade_as_paper",
    "grade_number",
    "grade_text",
    "is_right",
    "item_of",
    "percent",
    "summarize_arm",
    "write_report",
]
