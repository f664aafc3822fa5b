"""Isolation: a training leaves the threads, random numbers, kernels and logs of its process as they were."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from divcon.distill._stopping import step

T = TypeVar("T")


def in_own_thread(work: Callable[[], T], stop: threading.Event) -> T:
    """Run `work` in a thread that ends with it, and its OpenMP workers with that.

    Every thread that computes has OpenMP workers of its own, and libgomp hardly spins between two operations once
    there are more of them than cores. With the embedded engine's beside them, a training step on two cores was
    measured at 2.1 seconds, without them at 1.7.

    Args:
        work: What to do.
        stop: Set on Ctrl-C, after which `work` is waited for.
    """
    outcome: Future[T] = Future()
    context = contextvars.copy_context()

    def run() -> None:
        try:
            outcome.set_result(context.run(work))
        except BaseException as error:  # noqa: BLE001 - handed to the caller, who raises it
            outcome.set_exception(error)

    thread = threading.Thread(target=run, name="divcon-train", daemon=True)
    try:
        with step(stop.set) as stops:
            thread.start()
            outcome.exception()
            if stops():
                raise KeyboardInterrupt
        return outcome.result()
    except KeyboardInterrupt:
        stop.set()
        if thread.ident is not None:
            thread.join()
        raise


@contextlib.contextmanager
def random_numbers_left_alone() -> Iterator[None]:
    """Give the process its random numbers back, which a trainer seeds: Python's, numpy's and torch's on all devices."""
    import numpy
    import torch

    before, before_numpy = random.getstate(), numpy.random.get_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(before)
        numpy.random.set_state(before_numpy)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep trainers' own logs off the terminal; what matters is in the manifest."""
    import transformers

    before = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    logger = logging.getLogger("trl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        transformers.utils.logging.set_verbosity(before)


@contextlib.contextmanager
def sound_attention() -> Iterator[None]:
    """Compute attention by torch's own kernels, not by cuDNN's.

    In torch 2.11 to 2.13, the backward pass of cuDNN's kernel can make the gradient of the queries NaN where a mask is
    given and a batch is 64, 192, 320, ... tokens long (pytorch issue 196678). It was seen here with Qwen2.5 of 0.5B
    parameters on an H100. The choice is the process's, so a model that answers meanwhile uses torch's kernels too.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        yield
