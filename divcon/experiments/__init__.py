"""Experiments: the paper's questions, each answered by many runs that share one store."""

from divcon.experiments._run import ExperimentRun

__all__ = ["ExperimentRun"]
