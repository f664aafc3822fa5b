"""The package as a user installs it."""

import importlib
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import divcon
from divcon.signatures import UnusableArgument

HEAVY = (
    "torch", "transformers", "vllm", "peft", "trl", "datasets", "matplotlib", "litellm",
    "openai", "nltk", "scipy.stats", "scipy.optimize",  # a second of every command
)  # fmt: skip


@pytest.mark.parametrize(
    "module",
    [
        "divcon", "divcon.signatures", "divcon.programs", "divcon.distill", "divcon.distill.serving.vllm", "divcon.cli",
        "divcon.pipeline", "divcon.experiments",
    ],
)  # fmt: skip
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_importing_divcon_alone_does_not_even_load_dspy() -> None:
    code = "import sys, divcon; print('dspy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, "1000 None"), ({"GOMP_SPINCOUNT": "9"}, "9 9"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None None")],
)
def test_threads_spin_briefly_where_the_user_chose_nothing_and_other_programs_as_they_did(
    given: dict[str, str], found: str
) -> None:
    code = """
import os, divcon.distill.serving.embedded as embedded
print(os.environ.get("GOMP_SPINCOUNT"), embedded.inherited().get("GOMP_SPINCOUNT"))
"""
    clean = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**clean, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == found


def test_every_public_name_is_there() -> None:
    for name in divcon.__all__:
        assert getattr(divcon, name) is not None
    assert set(divcon.__all__) <= set(dir(divcon))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        divcon.nothing  # noqa: B018


def _public(package: ModuleType) -> Iterator[ModuleType]:
    """The package and all modules under it whose names don't begin with an underscore."""
    yield package
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        if not found.name.rpartition(".")[2].startswith("_"):
            module = importlib.import_module(found.name)
            yield from _public(module) if found.ispkg else [module]


def test_public_modules_export_their_own_names_alone() -> None:
    modules = list(_public(divcon))
    assert {"divcon.programs", "divcon.benchmarks.arms", "divcon.cli"} <= {module.__name__ for module in modules}
    for module in modules:
        assert len(set(module.__all__)) == len(module.__all__)
        for name in module.__all__:
            assert getattr(module, name) is not None, f"{module.__name__}.{name}"
        if not hasattr(module, "__path__"):
            continue
        parts = {found.name for found in pkgutil.iter_modules(module.__path__)}
        names = {name for name in dir(module) if not name.startswith("_")}
        assert names - set(module.__all__) <= parts, module.__name__


def test_the_rooms_are_importable_under_one_name_alone(root: Path) -> None:
    """Also where Python starts in the repository, whose folders stand beside the package."""
    code = """
import importlib.util as u, divcon
print(*(name for name in ("tests", "examples", "divcon", "docs") if u.find_spec(f"divcon.{name}")))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert len(divcon.__path__) == 1


def test_a_run_takes_a_pipeline_and_paths_as_text(root: Path) -> None:
    file = str(root / "examples" / "demo.yaml")
    made = divcon.Run(divcon.load_pipeline(file), "run")
    assert made.folder == Path("run")
    with pytest.raises(UnusableArgument, match=r"pipeline is a str.*load_pipeline"):
        divcon.Run(file, "run")
