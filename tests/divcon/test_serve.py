"""`divcon serve` without vLLM: a stand-in that runs already, and a run of an untuned student."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from divcon import load_pipeline
from divcon._serve import read_arguments, serve_students
from divcon._watch import Silent
from divcon.distill import Base
from divcon.distill.serving.server._process import free_port
from divcon.signatures import DivconError

DIVCON = Path(sys.executable).with_name("divcon")
STAND_IN = Path(__file__).parents[1] / "support" / "vllm_stand_in.py"


@pytest.fixture
def address(tiny_base: Base, tmp_path: Path) -> Iterator[str]:
    with stand_in(tiny_base.id, tmp_path) as address:
        yield address


@contextlib.contextmanager
def stand_in(model: str, folder: Path) -> Iterator[str]:
    """The address of a running stand-in that serves a model."""
    port = free_port()
    command = [sys.executable, str(STAND_IN), "--served-model-name", model, "--port", str(port)]
    given = {**os.environ, "STAND_IN": "ok", "STAND_IN_STARTS": str(folder / "starts")}
    with subprocess.Popen(command, env=given) as server:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False)
                break
            except httpx.HTTPError:
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/v1"
        server.kill()


@pytest.mark.parametrize("student", ["{serve: embedded}", "{serve: vllm, server: {port: 8000}}"])
def test_a_running_server_is_shown_with_the_line_that_asks_it(
    tmp_path: Path, tiny_base: Base, address: str, student: str
) -> None:
    """Whatever served the student in its run."""
    (tmp_path / "p.yaml").write_text(
        "task: {name: offline, train: 10, test: 5}\n"
        f"roles: {{teacher: {{model: scripted/references}}, solver: {{model: embedded/base}}, decomposer: {student}}}\n"
    )
    run = SimpleNamespace(
        pipeline=load_pipeline(tmp_path / "p.yaml"),
        saved=SimpleNamespace(students=lambda student: [("untuned", None)]),
        models=SimpleNamespace(base=tiny_base),
        folder=tmp_path,
        reporter=Silent(),
    )
    shown: list[str] = []
    serve_students(run, "untuned", None, {"api_base": address}, shown.append)
    assert shown == [
        f"address  {address}",
        f"model    {tiny_base.id}",
        f'python   dspy.LM("hosted_vllm/{tiny_base.id}", api_base="{address}", api_key="none", cache=False)',
    ]
    with pytest.raises(DivconError, match=r"serve: port: .*65535"):
        serve_students(run, "untuned", None, {"port": 70000}, shown.append)
    with pytest.raises(DivconError, match="no way 'both'"):
        serve_students(run, "untuned", "both", {}, shown.append)


def test_serve_tells_address_and_models_as_one_json_document(tmp_path: Path, tiny_base: Base) -> None:
    (tmp_path / "p.yaml").write_text(
        "task: {name: offline, train: 10, test: 5}\n"
        "roles: {teacher: {model: scripted/references}, solver: {model: embedded/base}, "
        f"decomposer: {{base: {tiny_base.path}, serve: vllm}}}}\n"
    )
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "pipeline.json").write_text(load_pipeline(tmp_path / "p.yaml").model_dump_json())
    name = tiny_base.path.name
    with stand_in(name, tmp_path) as address:
        words = [DIVCON, "serve", "--run", folder, "--student", "untuned", "--url", address, "--json"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1, "one document, and nothing else"
    served = json.loads(done.stdout)
    assert served["address"] == address
    assert [one["name"] for one in served["models"]] == [name]
    assert served["models"][0]["model"].startswith("hosted_vllm/")


def test_words_after_two_hyphens_are_arguments() -> None:
    words = ["--max-model-len", "1024", "--enforce-eager", "--x=1", "--y", "1", "2"]
    assert read_arguments(words) == {"max-model-len": "1024", "enforce-eager": True, "x": "1", "y": ["1", "2"]}
    with pytest.raises(DivconError, match="'1024' is no argument"):
        read_arguments(["1024"])
