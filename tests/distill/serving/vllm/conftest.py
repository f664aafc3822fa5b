"""What the tests with a real vLLM share: its Python, a student of the demo's kind, and servers that take a while."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from divcon import Run, load_pipeline
from divcon.distill.serving.vllm import PYTHON_VARIABLE, ServerSettings, VLLMModel


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python of vLLM's environment."""
    if chosen := os.environ.get(PYTHON_VARIABLE):
        return Path(chosen)
    pytest.skip(f"vLLM isn't here; 'make test-vllm' installs it and sets {PYTHON_VARIABLE}")


@pytest.fixture(scope="session")
def planner(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The demo's line up to its SD-T student, on half of the questions: two minutes of training on two cores."""
    file = Path(__file__).parents[4] / "examples" / "demo.yaml"
    halved = ["task.train=120", "task.test=100", "screen.rule=none", "compile.optimizer=none"]
    run = Run(load_pipeline(file, halved), tmp_path_factory.mktemp("run") / "demo")
    run.check()
    run.collect()
    run.export(run.screen())
    run.train()
    return run


@pytest.fixture(scope="session")
def student(planner: Run) -> Path:
    return planner.folder / "adapters" / "sd-t"


@pytest.fixture(scope="session")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


@pytest.fixture(scope="module")
def unmerged(planner: Run, student: Path, vllm_python: Path, logs: Path) -> Iterator[VLLMModel]:
    """A server of base and student, unmerged, with room for the adapters that tests load into it."""
    settings = ServerSettings(python=vllm_python, arguments={"max-model-len": 1024, "max-loras": 8})
    with VLLMModel(planner.models.base, settings, adapter="lora", log=logs / "unmerged") as model:
        model.start(model.add(student))
        yield model


@pytest.fixture(scope="module")
def merged(planner: Run, student: Path, vllm_python: Path, logs: Path) -> Iterator[VLLMModel]:
    """A server of the merged student, which doesn't load adapters."""
    settings = ServerSettings(
        python=vllm_python, arguments={"max-model-len": 1024}, environment={"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "False"}
    )
    with VLLMModel(planner.models.base, settings, log=logs / "merged") as model:
        model.start(model.add(student))
        yield model
