"""Experiments: many runs that share one store, to answer the questions of the paper."""

from divcon.experiments._run import ExperimentRun

__all__ = ["ExperimentRun"]
