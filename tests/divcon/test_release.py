"""What is released: built from the files of the repository, installed into an empty environment, used outside of it."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import divcon

# Folders of the repository that are in the package under the same name, and parts of them that stay out of it.
_ROOMS = ("signatures", "programs", "distill", "benchmarks", "divcon")
_OUT = tuple(f"benchmarks/{part}/" for part in ("perf", "real", "results", "solver"))


@pytest.fixture(scope="module")
def files(root: Path) -> list[str]:
    """The files of the repository, as git lists them."""
    command = ["git", "ls-files", "-co", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.splitlines() if (root / name).exists()]


@pytest.fixture(scope="module")
def built(files: list[str], root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that is built from it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (root / name).is_symlink():
            (source / name).symlink_to((root / name).readlink())
        else:
            shutil.copyfile(root / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return next(built.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with divcon from the wheel, and what it needs from the environment of the tests.

    Packages are found there by path. The links of that environment's editable divcon aren't.
    """
    folder = tmp_path_factory.mktemp("empty") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)}))
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install", "-q"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    theirs = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (site / "needed.pth").write_text("\n".join(theirs) + "\n")
    return folder


def run(environment: Path, *command: str, at: Path) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(environment / "bin" / command[0]), *command[1:]], cwd=at, env=clean, capture_output=True, text=True
    )


def test_the_wheel_holds_all_of_the_package_and_nothing_else(files: list[str], wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"divcon"}
    wanted = {
        name if name.startswith("divcon/") else f"divcon/{name}"
        for name in files
        if name.startswith(tuple(f"{room}/" for room in _ROOMS)) and not name.startswith(_OUT)
    }
    assert {"divcon/py.typed", "divcon/config/pipeline.schema.json"} <= wanted
    links = {*(f"divcon/{room}" for room in _ROOMS), "divcon/experiments/files"}  # which are folders there
    missing = wanted - set(names) - links
    assert not missing
    assert not {name for name in names if "test" in name or name.endswith((".pyc", ".pkl"))}


def test_the_sdist_holds_examples_and_the_changelog_and_no_runs(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"CHANGELOG.md", "LICENSE", "README.md", "constraints.txt", "examples/demo.yaml", "pyproject.toml"} <= names
    assert not {name for name in names if name.startswith(("runs/", "tests/", ".git"))}


def test_its_metadata_names_version_pythons_and_extras(wheel: Path, root: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    text = archive.read(next(name for name in archive.namelist() if name.endswith("/METADATA"))).decode()
    assert f"\nVersion: {divcon.__version__}\n" in text
    assert "\nRequires-Python: >=3.11\n" in text
    for version in ("3.11", "3.12", "3.13"):
        assert f"\nClassifier: Programming Language :: Python :: {version}\n" in text
    extras = set(re.findall(r"^Provides-Extra: (.*)$", text, re.MULTILINE))
    assert {"train", "report", "optimize", "mcp", "mlflow", "ray", "gym", "hub"} <= extras
    install = (root / "docs" / "install.md").read_text(encoding="utf-8")
    assert all(f"`{extra}`" in install for extra in extras - {"dev"})


def test_the_version_has_one_home(root: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+)?", divcon.__version__)
    assert divcon.__version__ not in (root / "pyproject.toml").read_text(encoding="utf-8")
    heading = re.search(r"^## (.*)$", (root / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading is not None
    assert heading[1] in ("Unreleased", divcon.__version__)


def test_the_installed_package_works_outside_the_repository(environment: Path, root: Path, tmp_path: Path) -> None:
    where = run(environment, "python", "-c", "import divcon; print(divcon.__file__)", at=tmp_path)
    assert where.stdout.startswith(str(environment)), where.stdout + where.stderr
    assert run(environment, "divcon", "--version", at=tmp_path).stdout == f"divcon {divcon.__version__}\n"
    shutil.copy(root / "examples" / "demo.yaml", tmp_path)
    checked = run(environment, "divcon", "doctor", "demo.yaml", at=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "failure" not in checked.stdout
    schema = run(environment, "divcon", "schema", "pipeline", at=tmp_path)
    assert json.loads(schema.stdout)["title"]
    experiment = run(environment, "divcon", "experiment", "no-such", at=tmp_path)
    assert "one of cap, curve, depth, dynamic, main, multitask, solvers, transfer" in experiment.stderr
    graded = run(environment, "divcon", "grade", "gsm8k", "--gold", "7", "--reply", "It is 7.", at=tmp_path)
    assert graded.stdout.startswith("right: read '7'"), graded.stdout + graded.stderr


_USER = """
from divcon import ChainOfThought, DivideAndConquer, Run, load_pipeline, read_answer
from divcon.benchmarks import Paired, compare_paired

program = DivideAndConquer(solving="dag")
reveal_type(program)
reveal_type(read_answer("Answer: 7"))
reveal_type(Run(load_pipeline("demo.yaml"), "runs").evaluate())
reveal_type(compare_paired)
DivideAndConquer(solving="onecall")
"""


# Its own code is followed, and what it needs isn't: that takes minutes.
_SETTINGS = """
[mypy]
follow_imports = skip
ignore_missing_imports = True
[mypy-divcon.*]
follow_imports = silent
"""


def test_a_type_checker_follows_the_installed_package(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(_USER)
    (tmp_path / "mypy.ini").write_text(_SETTINGS)
    python = str(environment / "bin" / "python")
    command = ["-m", "mypy", "--python-executable", python, "--no-incremental", "mine.py"]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, *command], cwd=tmp_path, env=clean, capture_output=True, text=True)
    said = done.stdout
    assert "py.typed" not in said and "import-untyped" not in said, said
    assert 'Revealed type is "divcon.programs._divide.DivideAndConquer"' in said
    assert "fallback=divcon.signatures._answers.Reading" in said
    assert 'Revealed type is "divcon.benchmarks._notebook.RunResults"' in said
    assert "divcon.benchmarks._statistics.Paired" in said
    assert re.search(r'mine\.py:10: error: Argument "solving" .*incompatible type', said)
    assert "Found 1 error in 1 file" in said


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_its_syntax_is_that_of_every_python_it_names(version: str, files: list[str], root: Path) -> None:
    pyenv = (Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python")
    python = next((str(one) for one in (*pyenv, Path(f"/usr/bin/python{version}")) if one.exists()), None)
    if python is None:
        pytest.skip(f"Python {version} isn't here")
    code = "import sys\nfor name in sys.stdin.read().split('\\n'): compile(open(name, 'rb').read(), name, 'exec')"
    sources = [name for name in files if name.endswith(".py")]
    done = subprocess.run(
        [python, "-W", "error::SyntaxWarning", "-c", code],
        input="\n".join(sources),
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
