import json
from pathlib import Path

import pytest

from divcon.distill import ManifestError, content_hash, read_manifest
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
    assert read_manifest(solver_adapter(name)).role == "solver"


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
