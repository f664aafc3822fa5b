"""The pipeline file and the experiment file: their sections, and how they are read."""

from divcon.config._design import Design, Experiment
from divcon.config._file import (
    EXPERIMENT_FILE,
    configuration_of,
    declared_pipelines,
    load_experiment,
    load_pipeline,
    load_saved_experiment,
    load_saved_pipeline,
    split_override,
)
from divcon.config._program import CAP
from divcon.config._roles import OF_RECORDED, Decomposer, Endpoint, Price
from divcon.config._sections import Pipeline, Sections
from divcon.config._yaml import ConfigError

__all__ = [
    "CAP",
    "EXPERIMENT_FILE",
    "OF_RECORDED",
    "ConfigError",
    "Decomposer",
    "Design",
    "Endpoint",
    "Experiment",
    "Pipeline",
    "Price",
    "Sections",
    "configuration_of",
    "declared_pipelines",
    "load_experiment",
    "load_pipeline",
    "load_saved_experiment",
    "load_saved_pipeline",
    "split_override",
]
