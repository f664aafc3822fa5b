"""The decoding steps of the script for GPUs are those of the engine."""

import random
import sys
from pathlib import Path
from typing import Any

import pytest

from divcon.distill import Base

pytestmark = pytest.mark.model


def jobs(temperature: float) -> list[Any]:
    from divcon.distill.serving.embedded._decoding import Job

    lengths = (3, 9, 20)
    return [Job([7 + i for i in range(n)], "", 12, temperature, 1.0, (), random.Random(n)) for n in lengths]


def test_replies_are_those_of_the_engine(tiny_base: Base, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from divcon.distill.serving.embedded._decoding import decode

    monkeypatch.setattr(sys, "path", [str(root / "benchmarks" / "real"), *sys.path])
    import on_gpu

    monkeypatch.setattr(on_gpu, "ROWS", 4)
    model = AutoModelForCausalLM.from_pretrained(tiny_base.path).float().eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_base.path)
    theirs, ours, drawn = jobs(0.0), jobs(0.0), jobs(0.7)
    decode(model, tokenizer, theirs, 4, 4096)
    on_gpu.decode(model, tokenizer, ours, 4, 4096)
    assert [job.done.result() for job in ours] == [job.done.result() for job in theirs]
    assert any(len(job.done.result()[0]) > 1 for job in ours)
    on_gpu.decode(model, tokenizer, drawn, 4, 4096)
    assert all(len(job.done.result()[0]) <= 12 for job in drawn)
