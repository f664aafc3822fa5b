"""No page of the docs can rot: the Python runs, the YAML is valid, the commands exist, the links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import dspy
import pytest
from ruamel.yaml import YAML
from support.openai_server import OpenAIServer

from divcon import Pipeline, load_pipeline
from divcon.config import load_experiment

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
DIVCON = Path(sys.executable).with_name("divcon")
WHOLE_FILES = "extending.md"  # its Python is files of a package, which tests/docs/test_extending.py runs
LOADS_A_MODEL = "dspy.md"


def blocks(language: str, *pages: Path) -> list[str]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages or PAGES)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def with_python() -> list:
    found = [page for page in PAGES if page.name != WHOLE_FILES and blocks("python", page)]
    marks = {page: [pytest.mark.model] if page.name == LOADS_A_MODEL else [] for page in found}
    return [pytest.param(page, id=page.name, marks=marks[page]) for page in found]


def reply(body: dict) -> str:
    system = body["messages"][0]["content"]
    if "Split the question" in system:
        return "1. How many plums are in the bags?\n2. How many are left?"
    return "1. 3 * 4 = 12\n2. 12 - 2 = 10\nAnswer: 10"


@pytest.mark.parametrize("page", with_python())
def test_python_blocks_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with OpenAIServer(reply) as server:
        real = dspy.LM.__init__

        def to_loopback(self, model, *args, **kwargs):
            """Only the address and the key change: the pages name public models."""
            if model.startswith("embedded/") or not isinstance(kwargs.get("engine", "auto"), str):
                real(self, model, *args, **kwargs)
                return
            kwargs.update(api_base=server.url, api_key="k")
            real(self, "openai/" + model.split("/")[-1], *args, **kwargs)

        monkeypatch.setattr(dspy.LM, "__init__", to_loopback)
        names: dict = {}
        for block in blocks("python", page):
            exec(compile(block, page.name, "exec"), names)
    asks = any("dspy.LM(" in block for block in blocks("python", page))
    assert bool(server.requests) == asks


def commands() -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


def test_divcon_commands_are_ones_the_program_takes(root: Path) -> None:
    used = [command[1:] for command in commands() if command[0] == "divcon"]
    assert used
    helped = {}
    for name in {command[0] for command in used}:  # a process takes seconds, and a command stands on several pages
        shown = subprocess.run([str(DIVCON), name, "--help"], capture_output=True, text=True)
        assert shown.returncode == 0, name
        helped[name] = shown.stdout
    for command in used:
        name = command[0]
        for option in (word for word in command if word.startswith("--")):
            assert option in helped[name], (name, option)
        for word in command:
            if word.startswith("examples/"):
                assert (root / word).is_file()


def test_make_targets_exist(root: Path) -> None:
    targets = [command[1] for command in commands() if command[0] == "make"]
    assert {"demo", "test"} <= set(targets)
    makefile = (root / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_scripts_in_commands_exist(root: Path) -> None:
    scripts = [command[1] for command in commands() if command[0] == "python" and not command[1].startswith("-")]
    assert scripts
    for script in scripts:
        assert (root / script).is_file(), script


def test_yaml_blocks_are_valid_pipelines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    for number, block in enumerate(blocks("yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block)
        if "experiment:" in block:
            load_experiment(file)
        elif "task:" in block:
            load_pipeline(file)
        else:  # a part of a file
            assert set(YAML(typ="safe").load(block)) <= set(Pipeline.model_fields), block


def test_links_inside_the_repository_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), target
