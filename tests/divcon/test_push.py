"""`divcon push`, with an adapter that ships, to folders and to a hub on loopback."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from support.hub import Hub

from divcon.config import load_pipeline
from divcon.distill import ManifestError, read_manifest
from divcon.distill.serving.embedded import solver_adapter
from divcon.pipeline import PublishError, publish
from divcon.pipeline._cards import data_source
from divcon.pipeline._context import Context

FILES = (
    "README.md", "adapter_config.json", "adapter_model.safetensors", "manifest.json", "probe.json", "prompts.json",
)  # fmt: skip
KEY = "hf_" + "k" * 34


def line(name: str, accuracy: float) -> dict[str, Any]:
    return {
        "name": name, "label": name.upper(), "right": round(100 * accuracy), "wrong": 100 - round(100 * accuracy),
        "failed": 0, "accuracy": accuracy, "ci95": [accuracy - 0.1, accuracy + 0.1],
    }  # fmt: skip


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with one trained student, its results, and files that no one else may see."""
    folder = tmp_path / "run"
    adapter = folder / "adapters" / "sd-r"
    shutil.copytree(solver_adapter(), adapter)
    (adapter / "training.log").write_text("the run in /home/ada\n")
    (folder / "run.sqlite").write_bytes(b"replies")
    manifest = read_manifest(adapter)
    results = {
        "training": {"sd-r": {"rows": manifest.rows, **manifest.result}},
        "arms": [line("cot", 0.5), line("sd-r", 0.75), line("references", 0.9)],
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.mark.parametrize(("name", "licence"), [("gsm8k", "MIT"), ("drop", "CC BY-SA 4.0"), ("schedules", None)])
def test_a_card_names_the_licence_of_the_questions(root: Path, tmp_path: Path, name: str, licence: str | None) -> None:
    pipeline = load_pipeline(
        root / "examples" / "demo.yaml", [f"task={{name: {name}, path: x.jsonl, train: 1, test: 1}}"]
    )
    assert data_source(Context(pipeline, tmp_path)).get("licence") == licence


def test_a_folder_gets_what_serving_takes_and_a_card_with_the_evaluation(run: Path, tmp_path: Path) -> None:
    published = publish(run, "sd-r", str(tmp_path / "out" / "planner"))
    target = Path(published.where)
    assert published.files == tuple(sorted(FILES)) == tuple(sorted(file.name for file in target.iterdir()))
    assert read_manifest(target) == read_manifest(run / "adapters" / "sd-r")  # it is whole, and can be served
    card = (target / "README.md").read_text(encoding="utf-8")
    assert "| SD-R (this adapter) | 75.0 % (65.0 to 85.0) | 75 / 25 / 0 |" in card
    assert "| COT | 50.0 % (40.0 to 60.0)" in card
    assert "REFERENCES" not in card
    assert str(tmp_path) not in card
    again = publish(run, "sd-r", str(target))
    assert again == published


def test_results_of_another_training_are_left_out(run: Path, tmp_path: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    results["training"]["sd-r"]["last_loss"] = 0.1
    (run / "results.json").write_text(json.dumps(results))
    target = Path(publish(run, "sd-r", str(tmp_path / "out")).where)
    assert "No results yet" in (target / "README.md").read_text(encoding="utf-8")


def test_what_cannot_be_published_is_refused_and_nothing_is_written(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(PublishError, match=r"no trained student 'sd-t'.*Take sd-r"):
        publish(run, "sd-t", str(out))
    with pytest.raises(PublishError, match=r"no trained student.*divcon train"):
        publish(tmp_path / "empty", "sd-r", str(out))
    with pytest.raises(PublishError, match="neither a folder nor a repository"):
        publish(run, "sd-r", "a/b/c")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(PublishError, match="holds other files than an adapter"):
        publish(run, "sd-r", str(tmp_path / "mine"))
    probe = run / "adapters" / "sd-r" / "probe.json"
    told = probe.read_text(encoding="utf-8")
    probe.write_text(told.replace("question", f"question of {run}/data.jsonl", 1), encoding="utf-8")
    with pytest.raises(PublishError, match=r"probe\.json holds a path of this machine"):
        publish(run, "sd-r", str(out))
    probe.write_text(told, encoding="utf-8")
    config = run / "adapters" / "sd-r" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 16', '"lora_alpha": 32'))
    with pytest.raises(ManifestError, match="isn't the one its manifest describes"):
        publish(run, "sd-r", str(out))
    assert not out.exists()


def pushed(run: Path, hub: Hub, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "divcon.cli", "push", str(run), "sd-r", "ada/planner", *more],
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_TOKEN": KEY, "HF_HUB_OFFLINE": "0", **environment},
        capture_output=True,
        text=True,
    )


def test_a_hub_gets_a_private_repository_with_the_same_files(run: Path) -> None:
    with Hub() as hub:
        done = pushed(run, hub, "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["where"] == f"{hub.url}/ada/planner"
        assert hub.created == [{"name": "planner", "organization": "ada", "visibility": "private"}]
        assert hub.keys == {f"Bearer {KEY}"}
    adapter = run / "adapters" / "sd-r"
    assert set(hub.files) == set(FILES) == set(found["files"])
    assert hub.files["adapter_model.safetensors"] == (adapter / "adapter_model.safetensors").read_bytes()
    card = ModelCard(hub.files["README.md"].decode())
    assert card.data.base_model == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert card.data.library_name == "peft"
    assert not any(KEY.encode() in content or str(run).encode() in content for content in hub.files.values())


def test_a_hub_that_refuses_is_named_with_the_remedy_and_no_key(run: Path) -> None:
    with Hub(status=401) as hub:
        done = pushed(run, hub)
    assert done.returncode == 1
    assert "The hub refused ada/planner with status 401" in done.stderr
    assert "hf auth login" in done.stderr
    assert KEY not in done.stdout + done.stderr
    with Hub() as hub:
        done = pushed(run, hub, HF_HUB_OFFLINE="1")
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert hub.requests == []
