from pathlib import Path

import pytest
from support.training_rows import training_rows

from divcon.distill import Base, render_lines


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text(render_lines(training_rows()), encoding="utf-8")
    return file


@pytest.fixture
def tokenizer(tiny_base: Base):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_base.path)
