import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.training_rows import training_rows

from divcon.distill import (
    Author,
    Base,
    Provenance,
    Training,
    TrainingError,
    TrainSettings,
    is_trained,
    model_card,
    prompt_hash,
    read_manifest,
    render_lines,
    train_adapter,
)
from divcon.distill._probe import read_probe
from divcon.distill.training._lifecycle import rows_at_once

pytestmark = pytest.mark.model


def test_training_changes_the_adapter_and_nothing_else_and_writes_a_whole_manifest(
    tiny_base: Base, rows_file: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    before = (tiny_base.path / "model.safetensors").read_bytes()
    seen: list[tuple[int, int, float]] = []
    manifest = train_adapter(
        Training(rows_file, tiny_base, tmp_path / "adapter", TrainSettings(epochs=8, batch_size=4, learning_rate=0.02)),
        Provenance(
            student="sd-t", screening={"kept": 12}, teacher=Author(model="scripted/references", kind="scripted")
        ),
        progress=lambda *step: seen.append(step),
    )
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert all("lora_" in name for name in weights)
    assert not any("lm_head" in name or "embed" in name for name in weights)
    assert all(weight.abs().sum() > 0 for name, weight in weights.items() if "lora_B" in name)
    assert (tiny_base.path / "model.safetensors").read_bytes() == before
    assert manifest.result["last_loss"] < manifest.result["first_loss"]
    assert manifest.result["steps"] == 24 == len(seen)
    assert manifest.prompt_hash == prompt_hash([row["prompt"] for row in training_rows()])
    assert (manifest.base["id"], manifest.rows, manifest.teacher.kind) == ("tests/tiny-llama", 12, "scripted")
    assert read_manifest(tmp_path / "adapter") == manifest
    assert not list(tmp_path.glob("adapter.*"))
    assert (tmp_path / "adapter" / "README.md").read_text(encoding="utf-8") == model_card(manifest)
    assert [message["role"] for message in manifest.messages] == ["system"]
    for file in (tmp_path / "adapter").iterdir():  # no path of this machine in it
        assert str(tiny_base.path).encode() not in file.read_bytes()


def test_precision_is_recorded_and_used_and_an_old_manifest_is_bfloat16(
    tiny_base: Base, rows_file: Path, tmp_path: Path
) -> None:
    made = {
        chosen: train_adapter(
            Training(rows_file, tiny_base, tmp_path / chosen, TrainSettings(epochs=1, batch_size=6, precision=chosen))
        )
        for chosen in ("float32", "bfloat16")
    }
    assert {chosen: manifest.precision for chosen, manifest in made.items()} == {chosen: chosen for chosen in made}
    assert made["float32"].content_hash != made["bfloat16"].content_hash
    probes = [read_probe(tmp_path / chosen) for chosen in made]
    assert probes[0].base_logprob != probes[1].base_logprob
    assert probes[0].base_logprob == pytest.approx(probes[1].base_logprob, abs=0.5)
    file = tmp_path / "float32" / "manifest.json"
    file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "precision"}))
    assert read_manifest(tmp_path / "float32").precision == "bfloat16"
    assert TrainSettings().deciding() == TrainSettings().model_dump(exclude={"precision"})
    assert TrainSettings(precision="float32").deciding()["precision"] == "float32"


@pytest.mark.parametrize(
    ("batch_size", "longest", "at_once"), [(16, 200, 16), (16, 300, 8), (12, 400, 6), (7, 1000, 1), (16, 9000, 1)]
)
def test_long_rows_are_computed_in_whole_parts_of_a_step(batch_size: int, longest: int, at_once: int) -> None:
    assert rows_at_once(batch_size, longest) == at_once


def test_a_step_in_parts_learns_what_a_whole_one_learns(
    tiny_base: Base, rows_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import load_file

    settings = TrainSettings(epochs=2, batch_size=6, precision="float32")
    for folder, tokens in (("whole", 1_000_000), ("parts", 1)):
        monkeypatch.setattr("divcon.distill.training._lifecycle._TOKENS_AT_ONCE", tokens)
        train_adapter(Training(rows_file, tiny_base, tmp_path / folder, settings))
    whole, parts = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("whole", "parts"))
    for name, weight in whole.items():
        torch.testing.assert_close(parts[name], weight, rtol=1e-3, atol=1e-5)


def test_a_stopped_training_goes_on_from_its_checkpoint(tiny_base: Base, rows_file: Path, tmp_path: Path) -> None:
    training = Training(rows_file, tiny_base, tmp_path / "adapter", TrainSettings(epochs=8, batch_size=4, save_every=5))

    class Stop(Exception):
        pass

    def stop(done: int, total: int, loss: float) -> None:
        if done == 12:
            raise Stop

    with pytest.raises(Stop):
        train_adapter(training, progress=stop)
    assert not is_trained(tmp_path / "adapter")
    seen: list[int] = []
    manifest = train_adapter(training, progress=lambda done, *_: seen.append(done))
    assert manifest.result["resumed_from"] == "checkpoint-10"
    assert seen == list(range(11, 25))


@pytest.mark.parametrize("stopped", [5, 6])
def test_a_training_that_goes_on_takes_the_rows_in_the_order_of_one_that_wasnt_stopped(
    tiny_base: Base, rows_file: Path, tmp_path: Path, stopped: int
) -> None:
    """Three steps a pass: it is stopped in the second pass, and at its end."""
    from safetensors.torch import load_file

    settings = TrainSettings(epochs=3, batch_size=4, save_every=1, learning_rate=0.02, precision="float32")
    train_adapter(Training(rows_file, tiny_base, tmp_path / "whole", settings))

    def stop(done: int, total: int, loss: float) -> None:
        if done == stopped + 1:
            raise InterruptedError

    in_two = Training(rows_file, tiny_base, tmp_path / "in-two", settings)
    with pytest.raises(InterruptedError):
        train_adapter(in_two, progress=stop)
    assert train_adapter(in_two).result["resumed_from"] == f"checkpoint-{stopped}"
    whole, other = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("whole", "in-two"))
    assert all((other[name] == weight).all() for name, weight in whole.items())


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs", "steps"), [(17, 16, 10, 20), (20, 16, 3, 6), (30, 10, 0.1, 1), (3, 16, 2, 2)]
)
def test_a_pass_goes_over_all_rows(rows: int, batch_size: int, epochs: float, steps: int) -> None:
    assert TrainSettings(batch_size=batch_size, epochs=epochs).steps(rows) == steps


def test_a_training_that_breaks_down_ends_there_and_leaves_nothing(
    tiny_base: Base, rows_file: Path, tmp_path: Path
) -> None:
    broken = TrainSettings(epochs=8, batch_size=4, save_every=1, learning_rate=1e30, precision="float32")
    seen: list[int] = []
    with pytest.raises(TrainingError, match=r"broke down at step [23] of 24: its loss or its gradient isn't finite"):
        train_adapter(
            Training(rows_file, tiny_base, tmp_path / "a", broken), progress=lambda done, *_: seen.append(done)
        )
    assert len(seen) < 3
    assert [file.name for file in tmp_path.iterdir()] == [rows_file.name]


def test_attention_is_not_computed_by_cudnn_while_a_model_is_trained(
    tiny_base: Base, rows_file: Path, tmp_path: Path
) -> None:
    from torch.backends.cuda import cudnn_sdp_enabled

    before, seen = cudnn_sdp_enabled(), []
    train_adapter(
        Training(rows_file, tiny_base, tmp_path / "a", TrainSettings(epochs=1, batch_size=6)),
        progress=lambda *_: seen.append(cudnn_sdp_enabled()),
    )
    assert (seen, cudnn_sdp_enabled()) == ([False, False], before)


def test_checkpoints_of_other_rows_are_not_gone_on_from(tiny_base: Base, rows_file: Path, tmp_path: Path) -> None:
    training = Training(rows_file, tiny_base, tmp_path / "a", TrainSettings(epochs=8, batch_size=4, save_every=5))

    def stop(done: int, total: int, loss: float) -> None:
        if done == 6:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train_adapter(training, progress=stop)
    rows_file.write_text(render_lines(training_rows(8)), encoding="utf-8")
    manifest = train_adapter(replace(training, settings=TrainSettings(epochs=2, batch_size=4, save_every=5)))
    assert manifest.result["resumed_from"] is None
