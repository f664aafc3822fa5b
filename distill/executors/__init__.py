"""Executors do jobs in this process or on workers. Packages add to them under the entry point `divcon.executors`."""

from divcon.distill.executors._driver import WorkerLost, WorkersLost, done_elsewhere
from divcon.distill.executors._executor import EXECUTORS, Execution, Executor, Recipe
from divcon.distill.executors._worker import Lookup, StoreLookup, Worker

__all__ = [
    "EXECUTORS",
    "Execution",
    "Executor",
    "Lookup",
    "Recipe",
    "StoreLookup",
    "Worker",
    "WorkerLost",
    "WorkersLost",
    "done_elsewhere",
]
