"""The report: one HTML file with advice, plots, tables and every question with its calls."""

from divcon.benchmarks.report._compare import RunAnswers, comparison, comparison_page
from divcon.benchmarks.report._experiment import experiment_page, write_experiment_report
from divcon.benchmarks.report._page import Page, ReportError
from divcon.benchmarks.report._progress import Station
from divcon.benchmarks.report._questions import Shown
from divcon.benchmarks.report._run import run_page, write_report

__all__ = [
    "Page",
    "ReportError",
    "RunAnswers",
    "Shown",
    "Station",
    "comparison",
    "comparison_page",
    "experiment_page",
    "run_page",
    "write_experiment_report",
    "write_report",
]
