"""The doctor, on real endpoints and real folders: what it finds, and that nothing is paid before it has looked."""

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from support.openai_server import OpenAIServer, user_text

from divcon import load_pipeline
from divcon._doctor import diagnose
from divcon._watch import Silent
from divcon.distill.serving import Finding
from divcon.distill.serving.vllm import PYTHON_VARIABLE
from divcon.pipeline import Run, Unfit, announce_conversion

DIVCON = Path(sys.executable).with_name("divcon")


def pipeline(folder: Path, teacher: str, solver: str, decomposer: str = "{base: embedded}", more: str = "") -> Path:
    file = folder / "p.yaml"
    file.write_text(
        "task: {name: word-problems, train: 4, test: 2}\n"
        f"roles:\n  teacher: {teacher}\n  decomposer: {decomposer}\n  solver: {solver}\nscreen: {{rule: none}}\n{more}"
    )
    return file


def found(file: Path, folder: Path) -> dict[str, list[Finding]]:
    by_name: dict[str, list[Finding]] = {}
    for finding in diagnose(load_pipeline(file), folder):
        by_name.setdefault(finding.what, []).append(finding)
    return by_name


def test_a_base_that_has_to_be_converted_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Told(Silent):
        def station(self, name: str, text: str) -> None:
            told.append(f"{name}: {text}")

    monkeypatch.setenv("DIVCON_CACHE", str(tmp_path))
    other = tmp_path / "other"
    for decomposer in ("{base: embedded}", f"{{base: {other}}}"):
        file = pipeline(tmp_path, "{model: scripted/references}", "{model: embedded/solver}", decomposer)
        announce_conversion(load_pipeline(file), Told())
    assert told == ["base: dequantizing the embedded base, once; 20 seconds or so"]


@pytest.mark.parametrize(("served", "arms", "lacks"), [
    (("other",), "[untuned]", True), (("other",), "[sd-t]", False), (("SmolLM2-135M-Instruct",), "[untuned]", False),
])  # fmt: skip
def test_a_running_server_without_the_base_is_found_before_it_is_asked(
    tmp_path: Path, served: tuple[str, ...], arms: str, lacks: bool
) -> None:
    with OpenAIServer(lambda body: "x", served=served) as server:
        student = f"{{base: embedded, serve: vllm, server: {{api_base: '{server.url}'}}}}"
        more = f"evaluate: {{arms: {arms}}}\n"
        file = pipeline(tmp_path, "{model: scripted/references}", "{model: embedded/solver}", student, more)
        failures = [one for one in found(file, tmp_path / "run").get("decomposer", []) if one.level == "failure"]
    assert bool(failures) is lacks
    if lacks:
        assert "doesn't serve 'HuggingFaceTB/SmolLM2-135M-Instruct'; it serves other" in failures[0].text
        assert "roles.decomposer.server.api_base" in failures[0].remedy


def test_too_few_steps_to_learn_the_form_are_said_before_anything_is_collected(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: "1. What?\n2. What then?") as server:
        model = f"{{model: openai/t, api_base: '{server.url}'}}"
        file = pipeline(tmp_path, model, model)
        _, few = found(file, tmp_path / "run")["data"]
        assert few.level == "warning"
        assert few.text.startswith("4 questions x 2 epochs / 16 rows a step is 2 steps at most")
        asked: list[int] = []

        class Told(Silent):
            def finished(self, name: str, text: str) -> None:
                if name == "data":
                    asked.append(len(server.requests))

        run = Run(load_pipeline(file), tmp_path / "run", Told())
        run.check()
        run.close()
        assert asked == [0]
        file.write_text(file.read_text() + "train: {batch_size: 1, epochs: 6}\n")
        assert len(found(file, tmp_path / "run")["data"]) == 1


def test_rows_that_are_too_long_whatever_is_replied_are_found_before_anything_is_asked(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: "1. What?\n2. What then?") as server:
        model = f"{{model: openai/t, api_base: '{server.url}'}}"
        file = pipeline(tmp_path, model, model, more="train: {max_length: 40, over_length: raise}")
        [long] = found(file, tmp_path / "run")["data"]
        assert long.level == "failure" and "a training row takes 40 tokens with its reply" in long.text
        assert long.remedy == "Raise train.max_length, or shorten the question."
        with pytest.raises(Unfit, match=r"train\.max_length"):
            Run(load_pipeline(file), tmp_path / "run").check()
        own = ["train.max_length=1024", f"program.instruction={'word ' * 1024}"]
        with pytest.raises(Unfit, match=r"4 of 4 are too long") as caught:
            Run(load_pipeline(file, own), tmp_path / "run").check()
        assert "shorten program.instruction" in caught.value.remedy
        assert not server.requests


def test_the_demo_is_found_healthy(root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(DIVCON), "doctor", str(root / "examples" / "demo.yaml")], cwd=tmp_path, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for what in ("packages", "device", "disk", "base", "teacher", "solver"):
        assert sum(line.startswith(f"ok {what}: ") for line in lines) >= 1, what
    assert "scripted, not a model" in done.stdout
    assert not list(tmp_path.iterdir())  # looking leaves nothing behind


def test_every_failing_thing_has_its_line_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    with OpenAIServer(lambda body: "x", served=("one", "two")) as server:
        file = pipeline(
            tmp_path,
            "{model: openai/gpt-5-mini}",
            f"{{model: hosted_vllm/three, api_base: '{server.url}'}}",
            "{base: no/where, serve: vllm}",
            "compile: {optimizer: BootstrapFewShott}\n",
        )
        by_name = found(file, tmp_path / "run")
    assert not server.requests
    [teacher], [solver], [base], [vllm], [optimizer] = (
        by_name[name] for name in ("teacher", "solver", "base", "vLLM", "optimizer")
    )
    for finding in (teacher, solver, base, vllm, optimizer):
        assert finding.level == "failure" and finding.remedy, finding
    assert "OPENAI_API_KEY" in teacher.text
    assert "doesn't serve 'three'; it serves one, two" in solver.text
    assert "no/where" in base.text and "HF_HUB_OFFLINE" in base.text
    assert "isn't installed in this environment" in vllm.text
    assert [finding.level for finding in by_name["price"]] == ["warning", "warning"]


def test_a_misspelt_provider_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    file = pipeline(tmp_path, "{model: openai/gpt-5-mini}", "{model: opena1/gpt-5}", "{base: embedded}", "")
    [solver] = found(file, tmp_path / "run")["solver"]
    assert (solver.level, "no provider for opena1/gpt-5" in solver.text) == ("failure", True)


@pytest.mark.parametrize(
    ("served", "level", "says"),
    [
        (("m",), "ok", "serves m"),
        (401, "failure", "refuses the key"),
        (404, "warning", "404"),
        (500, "warning", "can't"),
    ],
)
def test_an_endpoint_is_asked_for_its_names(
    tmp_path: Path, served: tuple[str, ...] | int, level: str, says: str
) -> None:
    with OpenAIServer(lambda body: "x", served=served) as server:
        file = pipeline(tmp_path, "{model: scripted/references}", f"{{model: openai/m, api_base: '{server.url}'}}")
        [solver] = found(file, tmp_path)["solver"]
    assert (solver.level, says in solver.text) == (level, True), solver


def test_a_changed_adapter_is_named(tmp_path: Path) -> None:
    from divcon.distill.serving.embedded import solver_adapter

    file = pipeline(tmp_path, "{model: scripted/references}", "{model: embedded/solver}")
    for name in ("good", "bad"):
        shutil.copytree(solver_adapter(), tmp_path / "run" / "adapters" / name)
    config = tmp_path / "run" / "adapters" / "bad" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "lora_alpha": 1}))
    bad, good = found(file, tmp_path / "run")["adapter"]
    assert (bad.level, good.level) == ("warning", "ok")
    assert "isn't the one its manifest describes" in bad.text


def test_nothing_is_paid_for_before_the_doctor_has_looked(tmp_path: Path) -> None:
    def reply(body: dict) -> str:
        return f"1. What is in {len(user_text(body))}?\n2. What follows?"

    with OpenAIServer(reply, served=("t",)) as server:
        teacher = f"{{model: openai/t, api_base: '{server.url}', api_key_env: SOME_KEY}}"
        solver = "{model: openai/s, api_base: 'http://127.0.0.1:9/v1', api_key_env: SOME_KEY}"
        done = subprocess.run(
            [str(DIVCON), "run", str(pipeline(tmp_path, teacher, solver))],
            cwd=tmp_path,
            text=True,
            capture_output=True,
            env={**os.environ, "SOME_KEY": "k"},
        )
        assert done.returncode == 1
        assert "error: solver: The server at http://127.0.0.1:9/v1 can't be reached" in done.stderr
        assert "Traceback" not in done.stderr
        assert not server.requests


def test_an_experiment_file_is_looked_at_too(root: Path, tmp_path: Path) -> None:
    file = root / "examples" / "experiments" / "solvers.yaml"
    done = subprocess.run([str(DIVCON), "doctor", str(file)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("packages:") == 1
    address = ["--set", "experiment.solvers.wide={model: openai/x, api_base: 'http://127.0.0.1:9/v1'}"]
    done = subprocess.run([str(DIVCON), "doctor", str(file), *address], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "127.0.0.1:9" in done.stdout


def test_what_only_some_pipelines_need_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing mlflow used to come out after everything had run."""
    missing = {"mlflow-skinny", "ray", "reasoning-gym"}
    real = metadata.version

    def version(name: str) -> str:
        if name in missing:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    more = "tracking: {mlflow: 'file:x'}\nrun: {executor: ray}\n"
    file = pipeline(tmp_path, "{model: scripted/references}", "{model: embedded/solver}", "{base: embedded}", more)
    [packages] = found(file, tmp_path / "run")["packages"]
    assert packages.level == "failure"
    assert "mlflow-skinny isn't installed; ray isn't installed" in packages.text
    assert packages.remedy.startswith("pip install 'divcon[mlflow,ray,report,train]'")


def test_where_torch_is_missing_one_line_says_so_and_no_check_breaks(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    findings = found(root / "examples" / "demo.yaml", tmp_path)
    assert [one.text for one in findings["device"]] == ["torch can't be imported"]
    assert not any("check itself failed" in one.text for lines in findings.values() for one in lines)
