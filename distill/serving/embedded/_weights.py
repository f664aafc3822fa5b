"""Weights: a GGUF file turned into a folder that transformers, PEFT and vLLM load; whole folders; memory given back."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from divcon.signatures import DivconError

# transformers switches default dtype and device of the whole process while it loads a model: two loads at once give
# tensors without data, for good. Imports of its lazy modules race in the same way.
LOADING = threading.RLock()
_MAGIC = b"GGUF"


class GGUFError(DivconError):
    """A GGUF file that can't be turned into a folder."""


def convert_gguf(file: Path, folder: Path, *, dtype: str = "bfloat16") -> Path:
    """Dequantize a GGUF file once, and write weights, configuration and tokenizer as a folder.

    Args:
        file: The GGUF file.
        folder: Where to; it must not be there, and appears only once it is whole.
        dtype: The precision of the written weights, as torch names it.

    Returns:
        The folder.

    Raises:
        GGUFError: The file is missing or no GGUF, transformers can't read its architecture, it has no chat template,
            or the folder is there or can't be written.
    """
    if not file.is_file():
        raise GGUFError(f"There is no file {file}.", "Give the path of a .gguf file.")
    with file.open("rb") as stream:
        if stream.read(4) != _MAGIC:
            raise GGUFError(f"{file} is no GGUF file.", "Give a file that begins with the letters GGUF.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise GGUFError(f"{folder} is there already.", "Name a folder that doesn't exist.")
    with LOADING, _quiet():
        import torch
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        try:
            tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
            if not tokenizer.chat_template:
                raise GGUFError(f"{file} has no chat template.", "Take the file of an instruction-tuned model.")
            model = AutoModelForCausalLM.from_pretrained(
                file.parent,
                gguf_file=file.name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=getattr(torch, dtype),
            )
        except (ValueError, KeyError, IndexError, TypeError, OSError, struct.error) as error:
            raise GGUFError(f"transformers can't read {file}: {error}", "Take another model or a newer one.") from error
        try:
            with whole_folder(folder) as building:
                tokenizer.save_pretrained(building)
                model.save_pretrained(building)
        except (OSError, SafetensorError) as error:
            room = sum(p.numel() for p in model.parameters()) * (4 if dtype == "float32" else 2) / 1e6
            raise GGUFError(
                f"The model can't be written to {folder}: {error}.",
                f"Make room ({room:,.0f} MB), or name another folder.",
            ) from error
    return folder


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


def free_memory() -> None:
    """Give memory back, which cycles of a model or a trainer hold; a server or the next training may need it.

    glibc keeps what a thread has freed for that thread, and each training has a thread of its own: without the last
    call 3.5 GB stayed behind with every training of 135M parameters.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    with contextlib.suppress(AttributeError, OSError, TypeError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


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
