"""The command line in a process that starts at once, since it is forked from one in which everything is imported."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.context import ForkServerProcess
from pathlib import Path

# What a run with a training imports on its way.
_IMPORTED = [
    "divcon.cli",
    "divcon.pipeline",
    "divcon.distill.training",
    "transformers.models.llama.modeling_llama",
    "transformers.modeling_gguf_pytorch_utils",
    "trl.trainer.sft_trainer",
    "peft",
    "datasets",
    "scipy.stats",
    "matplotlib.pyplot",
    "jinja2",
]


def started(arguments: list[str], folder: Path, said: Path) -> ForkServerProcess:
    """Start a command.

    Args:
        arguments: The command line after `divcon`.
        folder: The working folder.
        said: Gets the standard output and the standard error.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    process = context.Process(target=_divcon, args=(arguments, folder, said, dict(os.environ)))
    process.start()
    return process


def _divcon(arguments: list[str], folder: Path, said: Path, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    with said.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))  # noqa: SIM115
    sys.argv = ["divcon", *arguments]
    from divcon.cli import main

    main()
