"""The package as a user installs it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import divcon

HEAVY = ("torch", "transformers", "vllm", "peft", "trl", "datasets", "matplotlib")


@pytest.mark.parametrize(
    "module",
    [
        "divcon", "divcon.signatures", "divcon.programs", "divcon.distill", "divcon.distill.serving.vllm", "divcon.cli",
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


def test_the_rooms_are_importable_under_one_name_alone(root: Path) -> None:
    """Also where Python starts in the repository, whose folders stand beside the package."""
    code = """
import importlib.util as u, divcon
print(*(name for name in ("tests", "examples", "divcon", "docs") if u.find_spec(f"divcon.{name}")))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert len(divcon.__path__) == 1


def test_the_wheel_holds_one_package_its_data_and_nothing_else_at_top_level(root: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(tmp_path)]
    source = tmp_path / "source"
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=root, capture_output=True, text=True)
    for name in listed.stdout.splitlines():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (root / name).is_symlink():
            (source / name).symlink_to((root / name).readlink())
        elif (root / name).is_file():
            (source / name).write_bytes((root / name).read_bytes())
    subprocess.run([*command, str(source)], check=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"divcon"}
    for needed in (
        "divcon/signatures/__init__.py", "divcon/programs/__init__.py", "divcon/distill/__init__.py",
        "divcon/benchmarks/__init__.py", "divcon/benchmarks/tasks/__init__.py", "divcon/py.typed",
        "divcon/benchmarks/report/page.html.j2", "divcon/benchmarks/report/page.css",
        "divcon/benchmarks/report/page.js", "divcon/config/pipeline.schema.json",
        "divcon/config/experiment.schema.json", "divcon/distill/serving/embedded/solver/adapter_model.safetensors",
        "divcon/distill/serving/embedded/solver/manifest.json",
        "divcon/distill/serving/embedded/wide_solver/adapter_model.safetensors",
    ):  # fmt: skip
        assert needed in names
    assert not any("test" in name for name in names)
