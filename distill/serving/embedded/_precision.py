"""Precision: what models on this machine compute in, by what its processor does fast.

Without instructions of its own for bfloat16 a CPU widens every number first: on two such cores a training step took 2.9
times as long as in float32, reading a prompt 2.3 times.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

Precision = Literal["float32", "bfloat16"]
WantedPrecision = Literal["auto", "float32", "bfloat16"]

_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is ARM's
# oneDNN may be held to fewer instructions than there are; these levels are without bfloat16.
_CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_WITHOUT = {"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"}


def precision(wanted: WantedPrecision = "auto") -> Precision:
    """What a model computes in here.

    Args:
        wanted: A setting; `auto` is bfloat16 on a GPU or a CPU that has instructions for it, else float32.
    """
    if wanted != "auto":
        return wanted
    import torch

    cuda = torch.cuda.is_available()
    has = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else cpu_has_bfloat16()
    return "bfloat16" if has else "float32"


def cpu_has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions for bfloat16 which may be used; not where no `cpuinfo` tells.

    Args:
        cpuinfo: The kernel's description of the processor.
    """
    if any(os.environ.get(cap, "").upper() in _WITHOUT for cap in _CAPS):
        return False
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = (line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features")))
    return bool(_INSTRUCTIONS & set(next(flags, ())))


def named_precision(chosen: Precision | None) -> list[str]:
    """A precision as a part of a reply's key; bfloat16 is none, so that keys made before there was a choice hold.

    Args:
        chosen: What the reply is computed in; None where that isn't known.
    """
    return [chosen] if chosen not in (None, "bfloat16") else []


def usable_cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
