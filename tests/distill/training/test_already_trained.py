import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.training_rows import training_rows

from divcon.distill import (
    Base,
    Destination,
    ManifestError,
    Training,
    TrainSettings,
    already_trained,
    read_export,
    read_manifest,
    train_adapter,
)
from divcon.distill.training import write_rows
from divcon.programs import RolePredict
from divcon.signatures import Decompose

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def made(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Training:
    folder = tmp_path_factory.mktemp("made")
    role = RolePredict(Decompose, "decomposer")
    rows = write_rows(training_rows(4), role, Destination(folder / "r.jsonl", "s"), {"kept": 4})
    training = Training(rows.file, tiny_base, folder / "adapter", TrainSettings(epochs=1, batch_size=4, rank=2))
    train_adapter(training)
    return training


@pytest.fixture
def training(made: Training, tmp_path: Path) -> Training:
    """The training that was done, with copies of its files."""
    shutil.copytree(made.output, tmp_path / "adapter")
    for file in made.rows.parent.glob("r.*"):
        shutil.copy(file, tmp_path)
    return replace(made, rows=tmp_path / "r.jsonl", output=tmp_path / "adapter")


def test_what_was_trained_is_not_trained_again(training: Training) -> None:
    found = already_trained(training)
    assert found is not None and found.rows == 4
    assert found == read_manifest(training.output)
    assert already_trained(replace(training, settings=TrainSettings(method=["lora"], epochs=1, batch_size=4, rank=2)))


def test_the_manifest_says_what_the_export_said(training: Training) -> None:
    manifest, exported = read_manifest(training.output), read_export(training.rows)
    assert exported is not None
    assert (manifest.screening, manifest.prompt) == ({"kept": 4}, exported.prompt)
    assert (manifest.data_hash, manifest.prompt_hash) == (exported.sha256, exported.prompt_hash)


def edited(file: Path, **changed: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


def other_rows(training: Training) -> Training:
    training.rows.write_text(training.rows.read_text().replace("hours", "days"))
    return training


def other_settings(training: Training) -> Training:
    return replace(training, settings=training.settings.model_copy(update={"seed": 1}))


def chosen_precision(training: Training) -> Training:
    return replace(training, settings=training.settings.model_copy(update={"precision": "float32"}))


def other_weights_of_the_base(training: Training) -> Training:
    return replace(training, base=replace(training.base, revision="seed-1"))


def other_template(training: Training) -> Training:
    folder = training.output.with_name("base")
    shutil.copytree(training.base.path, folder)
    for file in folder.iterdir():
        if b"<|im_start|>assistant" in file.read_bytes():
            file.write_text(file.read_text().replace("<|im_start|>assistant", "<|im_start|>helper"))
    return replace(training, base=replace(training.base, path=folder))


def other_prompt(training: Training) -> Training:
    """The rows are the same, and what reads their replies isn't."""
    beside = training.rows.with_suffix(".manifest.json")
    edited(beside, prompt={**json.loads(beside.read_text())["prompt"], "set of outputs": "0"})
    return training


def other_start(training: Training) -> Training:
    return replace(training, start=training.output)


def of_a_method_that_is_gone(training: Training) -> Training:
    edited(training.output / "manifest.json", settings={**training.settings.model_dump(), "method": "gone"})
    return training


def no_rows(training: Training) -> Training:
    training.rows.unlink()
    return training


def no_adapter(training: Training) -> Training:
    return replace(training, output=training.output.with_name("nowhere"))


@pytest.mark.parametrize(
    "change",
    [
        other_rows,
        other_settings,
        chosen_precision,
        other_weights_of_the_base,
        other_template,
        other_prompt,
        other_start,
        of_a_method_that_is_gone,
        no_rows,
        no_adapter,
    ],
)
def test_an_adapter_of_another_training_is_not_this_one(
    training: Training, change: Callable[[Training], Training]
) -> None:
    assert already_trained(change(training)) is None


def test_an_adapter_from_before_prompts_were_recorded_is_known_by_its_rows(training: Training) -> None:
    edited(training.output / "manifest.json", prompt={})
    assert already_trained(training) is not None


def test_a_damaged_adapter_is_said_and_not_passed_over(training: Training) -> None:
    (training.output / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(ManifestError, match="isn't the one its manifest describes"):
        already_trained(training)
