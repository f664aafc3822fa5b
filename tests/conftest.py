"""Every test starts with DSPy as it comes, writes to its own folders, and reaches no network but loopback."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["TQDM_DISABLE"] = "1"
os.environ["DSPY_CACHEDIR"] = tempfile.mkdtemp(prefix="divcon-dspy-")
for name in ("OPENAI_API_KEY", "OPENAI_API_BASE", "HOSTED_VLLM_API_BASE"):
    os.environ.pop(name, None)
sys.path.insert(0, str(Path(__file__).parent))

import dspy
import pytest

from divcon.distill import Base, embedded_base
from divcon.programs import Item

dspy_settings = sys.modules["dspy.dsp.utils.settings"]  # the name in its package is the settings object
ROOT = Path(__file__).parent.parent


_TERMINAL = pytest.StashKey[int]()
_SECONDS = 10  # between two words about a test that takes long


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TERMINAL] = os.dup(sys.__stderr__.fileno())  # what a test writes is captured; this isn't


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[_TERMINAL])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that load a model: where files run side by side, none of the longest is left for the end."""
    with_model = {item.path for item in items if item.get_closest_marker("model")}
    items.sort(key=lambda item: item.path not in with_model)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Say now and then which test is running, so that a long one can be told from one that hangs."""
    ended = threading.Event()

    def tell() -> None:
        for number in itertools.count(1):
            if ended.wait(_SECONDS):
                return
            os.write(item.config.stash[_TERMINAL], f"\n{item.nodeid}: {number * _SECONDS} s\n".encode())

    teller = threading.Thread(target=tell, name="what-runs", daemon=True)
    teller.start()
    try:
        return (yield)
    finally:
        ended.set()
        teller.join()


@pytest.fixture(autouse=True)
def _dspy_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    before = copy.copy(dspy_settings.main_thread_config)
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=True)
    dspy.cache.reset_memory_cache()
    yield
    dspy_settings.main_thread_config.clear()
    dspy_settings.main_thread_config.update(before)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def base() -> Base:
    """The embedded base; converting it takes 20 seconds the first time."""
    import peft  # noqa: F401
    import trl  # noqa: F401

    found = embedded_base()
    # A training collects garbage many times, and went each time through all that these libraries have made.
    gc.collect()
    gc.freeze()
    return found


@pytest.fixture(scope="session")
def tiny_base(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """A real Llama of two layers with random weights and the embedded base's tokenizer: trains in a second."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(base.path)
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=len(tokenizer),
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return Base(path=folder, id="tests/tiny-llama", revision="seed-0", dtype="bfloat16")


@pytest.fixture
def items() -> list[Item]:
    """Twenty questions, each with two reference subquestions; the answer to item i is i."""
    return [
        Item(
            id=f"i{i}",
            question=f"What is {i} plus zero times two?",
            answer=str(i),
            subquestions=(f"What is zero times two in case {i}?", f"What is {i} plus that?"),
            sub_answers=("0", str(i)),
            facts=(f"Which case is {i}?",),
        )
        for i in range(20)
    ]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The public data sets, in the folder that `DIVCON_DATA` names."""
    folder = os.environ.get("DIVCON_DATA")
    if folder and (Path(folder) / "gsm8k").is_dir():
        return Path(folder)
    pytest.skip("the public data sets aren't here; set DIVCON_DATA to their folder")
