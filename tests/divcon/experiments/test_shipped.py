"""The experiments that ship with divcon are found by name from anywhere."""

from pathlib import Path

import pytest

from divcon.config import load_experiment
from divcon.experiments import experiment_file, shipped_experiments
from divcon.signatures import DivconError


def test_a_name_is_the_shipped_file_unless_there_is_one_here(tmp_path: Path) -> None:
    assert {"main", "transfer", "cap"} <= set(shipped_experiments())
    for name in shipped_experiments():
        assert load_experiment(experiment_file(Path(name))).experiment.kind == name
    own = Path("examples") / "experiments" / "main.yaml"
    own.parent.mkdir(parents=True)
    own.touch()
    assert experiment_file(Path("main")) == own
    assert experiment_file(Path("mine.yaml")) == Path("mine.yaml")


def test_an_unknown_name_lists_those_there_are() -> None:
    with pytest.raises(DivconError, match=r"no experiment of that name.*cap, curve, depth"):
        experiment_file(Path("capp"))
