"""Experiments: many runs that share one store, to answer the questions of the paper."""

from divcon.experiments._run import ExperimentRun
from divcon.experiments._shipped import experiment_file, shipped_experiments

__all__ = ["ExperimentRun", "experiment_file", "shipped_experiments"]
