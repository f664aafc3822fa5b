import json
from pathlib import Path

import pytest

from divcon.distill import ManifestError, content_hash, file_hashes, read_manifest
from divcon.distill.serving.embedded import solver_adapter


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder as training writes it, with weights that are never loaded."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 16}')
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    manifest = {
        "role": "decomposer",
        "student": "sd-t",
        "base": {"id": "b", "revision": "r", "dtype": "auto"},
        "prompt_hash": "p",
        "chat_template_hash": "t",
        "data_hash": "d",
        "rows": 1,
        "content_hash": content_hash(folder),
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_a_manifest_says_which_form_it_has_and_one_without_has_the_first(adapter: Path) -> None:
    read = read_manifest(adapter)
    assert read.schema_version == 1
    read.write(adapter)
    assert json.loads((adapter / "manifest.json").read_text())["schema_version"] == 1
    assert read_manifest(adapter) == read


def test_a_manifest_of_a_later_form_is_refused(adapter: Path) -> None:
    later = json.loads((adapter / "manifest.json").read_text()) | {"schema_version": 2}
    (adapter / "manifest.json").write_text(json.dumps(later))
    with pytest.raises(ManifestError, match=r"schema_version\n.*should be 1") as caught:
        read_manifest(adapter)
    assert "the divcon that wrote it" in caught.value.remedy


@pytest.mark.parametrize("name", ["solver", "wide-solver"])
def test_the_shipped_adapters_are_whole(name: str) -> None:
    manifest = read_manifest(solver_adapter(name))
    assert manifest.role == "solver"
    assert set(manifest.files) == {"adapter_config.json", "adapter_model.safetensors", "prompts.json"}


@pytest.mark.parametrize("name", ["adapter_model.bin", "program.pkl", "pytorch_model.bin", "training_args.bin"])
def test_a_folder_with_a_pickle_is_refused(adapter: Path, name: str) -> None:
    (adapter / name).write_bytes(b"")
    with pytest.raises(ManifestError, match=f"{name} is a pickle"):
        read_manifest(adapter)


@pytest.mark.parametrize(
    ("file", "changed"),
    [("adapter_model.safetensors", "other weights"), ("adapter_config.json", '{"r": 8, "lora_alpha": 32}')],
)
def test_a_changed_adapter_is_not_what_its_manifest_describes(adapter: Path, file: str, changed: str) -> None:
    (adapter / file).write_text(changed)
    with pytest.raises(ManifestError, match="isn't the one its manifest describes"):
        read_manifest(adapter)


def test_a_folder_without_a_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no manifest\.json"):
        read_manifest(tmp_path)


@pytest.fixture
def whole(adapter: Path) -> Path:
    """The adapter with a manifest that knows its files."""
    (adapter / "added_tokens.json").write_text("{}")
    manifest = json.loads((adapter / "manifest.json").read_text())
    (adapter / "manifest.json").write_text(json.dumps({**manifest, "files": file_hashes(adapter)}))
    assert set(read_manifest(adapter).files) == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "added_tokens.json",
    }
    return adapter


@pytest.mark.parametrize(
    "change",
    [
        {"target_modules": ["q_proj"]},
        {"peft_type": "IA3"},
        {"layers_to_transform": [0]},
        {"layers_pattern": "h"},
        {"exclude_modules": ["v_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"fan_in_fan_out": True},
        {"r": 16},
        {"lora_alpha": 1},
        {"use_dora": True},
        {"a_key_of_a_later_peft": 1},
    ],
)
def test_an_edited_configuration_of_peft_is_refused(whole: Path, change: dict[str, object]) -> None:
    file = whole / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ManifestError, match=r"isn't the one its manifest describes \(adapter_config\.json changed"):
        read_manifest(whole)


def test_files_that_decide_an_adapter_are_neither_changed_nor_added_nor_taken_away(whole: Path) -> None:
    (whole / "README.md").write_text("notes")
    (whole / "probe.json").write_text("{}")
    read_manifest(whole)
    (whole / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ManifestError, match=r"tokenizer_config\.json added since"):
        read_manifest(whole)
    (whole / "tokenizer_config.json").unlink()
    (whole / "added_tokens.json").unlink()
    with pytest.raises(ManifestError, match=r"added_tokens\.json missing"):
        read_manifest(whole)


def test_the_name_of_the_base_in_the_configuration_decides_nothing(whole: Path) -> None:
    file = whole / "adapter_config.json"
    file.write_text(json.dumps({"base_model_name_or_path": "elsewhere", **json.loads(file.read_text())}, indent=1))
    read_manifest(whole)


def test_a_manifest_that_knows_no_files_is_read_by_its_hash_alone(adapter: Path) -> None:
    assert read_manifest(adapter).files == {}


@pytest.mark.parametrize("text", ["[]", "{", None])
def test_a_configuration_that_cannot_be_read_is_an_error_of_ours(whole: Path, text: str | None) -> None:
    file = whole / "adapter_config.json"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(ManifestError):
        read_manifest(whole)
