"""The page on extending can't rot: its files are installed as a package would be, and a pipeline runs with them."""

import csv
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.openai_server import OpenAIServer, user_text

from divcon.distill import Base

LONGEST = 80  # lines of a file that is shown
FILE = """\
task: {{name: csv, path: {folder}/questions.csv, train: 8, test: 4, overlap: same}}
roles:
  teacher: {{model: openai/teacher, api_base: '{url}'}}
  decomposer: {{base: {base}, max_tokens: 24}}
  solver: {{model: openai/solver, api_base: '{url}'}}
collect: {{samples: 3, concurrency: 4}}
screen: {{rule: majority, concurrency: 4}}
train: {{epochs: 1, batch_size: 4}}
evaluate: {{arms: [cot, self-consistency, teacher], resamples: 100, concurrency: 4}}
"""
STATIONS = """
import sys
from pathlib import Path
from divcon import Run, load_pipeline

run = Run(load_pipeline(Path(sys.argv[1]), sys.argv[3:]), Path(sys.argv[2]))
run.check()
run.collect()
run.screen()
run.evaluate()
run.close()
"""


def shown_files(root: Path) -> dict[str, str]:
    page = (root / "docs" / "extending.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^`(\w+\.py)`:\n\n```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE))


@pytest.fixture
def site(root: Path, tmp_path: Path) -> Path:
    """A folder with the page's files, and the metadata that an installed package of them has."""
    folder = tmp_path / "site"
    info = folder / "of_mine-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: of-mine\nVersion: 1.0\n")
    page = (root / "docs" / "extending.md").read_text(encoding="utf-8")
    lines = "\n".join(re.findall(r"```toml\n(.*?)```", page, re.DOTALL))
    groups = tomllib.loads(lines)["project"]["entry-points"]
    entries = (
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in named.items())
        for group, named in groups.items()
    )
    (info / "entry_points.txt").write_text("\n".join(entries))
    for name, code in shown_files(root).items():
        (folder / name).write_text(code)
    return folder


class Models:
    """A teacher whose every third list of a question is bad, and a solver that is misled by bad lists alone."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, body: dict[str, Any]) -> str:
        text = user_text(body)
        question = re.search(r"Ada has (\d+) plums and gets (\d+)", text)
        assert question
        if "Split the question" in body["messages"][0]["content"]:
            with self._lock:
                self._asked[question[0]] += 1
                number = self._asked[question[0]]
            amount = "wrong" if number % 3 == 0 else "first"
            return f"1. What is the {amount} amount, {number}?\n2. What follows from that?"
        right = int(question[1]) + int(question[2])
        return f"1. x\n2. y\nAnswer: {0 if 'wrong amount' in text else right}"


def pipeline(folder: Path, url: str, base: Path | str = "embedded") -> Path:
    with (folder / "questions.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["question", "answer"])
        rows.writerows([f"Ada has {n} plums and gets {n + 3}. How many now?", 2 * n + 3] for n in range(2, 14))
    file = folder / "line.yaml"
    file.write_text(FILE.format(folder=folder, url=url, base=base))
    return file


def python(site: Path, *command: str) -> subprocess.Popen[str]:
    path = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OPENAI_API_KEY": "k"}
    return subprocess.Popen(
        [sys.executable, *command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def ended(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def results(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return found


def answered(folder: Path) -> dict[str, tuple[int, int, dict[str, tuple[int, int]]]]:
    """What each arm answered, and what it used but for the time."""
    return {
        arm["name"]: (
            arm["right"],
            arm["failed"],
            {role: (used["calls"], used["output_tokens"]) for role, used in arm["usage"].items()},
        )
        for arm in results(folder)["arms"]
    }


def test_files_that_are_shown_are_short_and_as_this_project_writes_them(root: Path, site: Path) -> None:
    shown = shown_files(root)
    assert len(shown) == 6
    assert {name: len(code.splitlines()) for name, code in shown.items() if len(code.splitlines()) > LONGEST} == {}
    for name in ("dpo_method.py", "outside_engine.py"):  # run by the tests of training and of serving
        assert shown[name] == (root / "tests" / "support" / name).read_text(encoding="utf-8")
    for check in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--config", str(root / "pyproject.toml"), str(site)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_a_pipeline_runs_with_a_rule_a_task_and_an_arm_of_another_package_here_and_on_worker_processes(
    site: Path, tmp_path: Path
) -> None:
    found = {}
    for executor in ("threads", "processes"):
        with OpenAIServer(Models()) as server:
            file, folder = pipeline(tmp_path, server.url), tmp_path / executor
            arguments = (str(file), str(folder), f"run.executor={executor}", "run.workers=2")
            ended(python(site, "-c", STATIONS, *arguments))
            found[executor] = answered(folder)
    solver = {"solver": (4, 20)}  # the server counts five tokens in every reply
    assert found["threads"] == {
        "cot": (4, 0, solver),
        "self-consistency": (4, 0, {"solver": (12, 60)}),
        "teacher": (4, 0, {"decomposer": (4, 20), **solver}),
    }
    assert found["processes"] == found["threads"]


def test_a_job_whose_worker_process_was_killed_is_done_again(site: Path, tmp_path: Path) -> None:
    models = Models()
    killed = threading.Event()

    def killing(body: dict[str, Any]) -> str:
        if len(server.requests) > 6 and not killed.is_set():
            killed.set()
            spawned = [one for one in psutil.Process(driver.pid).children() if "spawn_main" in " ".join(one.cmdline())]
            spawned[0].kill()
        return models(body)

    with OpenAIServer(killing) as server:
        file, folder = pipeline(tmp_path, server.url), tmp_path / "run"
        driver = python(site, "-c", STATIONS, str(file), str(folder), "run.executor=processes", "run.workers=2")
        ended(driver)
    assert killed.is_set()
    assert {arm: right for arm, (right, _, _) in answered(folder).items()} == {
        "cot": 4,
        "self-consistency": 4,
        "teacher": 4,
    }


@pytest.mark.model
def test_a_student_is_trained_by_a_method_of_another_package_on_what_its_rule_kept(
    site: Path, tmp_path: Path, tiny_base: Base
) -> None:
    with OpenAIServer(Models()) as server:
        file = pipeline(tmp_path, server.url, tiny_base.path)
        arguments = ("--set", "train.method=[lora, dpo]", "--set", "evaluate.arms=[teacher, sd-m, sd-m-dpo]")
        divcon = str(Path(sys.executable).with_name("divcon"))
        ended(python(site, divcon, "run", str(file), "--run", str(tmp_path / "run"), *arguments))
    found = results(tmp_path / "run")
    # Of three lists of eight questions, the third is outvoted.
    assert found["screening"]["by_student"]["sd-m"] == {
        "collected": 24,
        "kept": 16,
        "lost": {"outvoted": 8},
        "failed": 0,
        "disputed": 0,
    }
    # Preferring each of two kept lists to the one that was rejected gives two rows a question.
    assert {name: line["rows"] for name, line in found["training"].items()} == {"sd-m": 16, "sd-m-dpo": 16}
    assert [arm["label"] for arm in found["arms"]] == ["Two-stage, teacher", "Two-stage, SD-M", "Two-stage, SD-M-DPO"]
