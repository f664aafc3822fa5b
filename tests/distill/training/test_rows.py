from pathlib import Path

import pytest
from support.training_rows import training_rows

from divcon.distill import TrainingError, render_lines
from divcon.distill.training import read_rows


def test_broken_and_missing_rows_are_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="Run 'divcon export' first"):
        read_rows(tmp_path / "none.jsonl")
    (tmp_path / "a.jsonl").write_text('{"prompt": []}\n')
    with pytest.raises(TrainingError, match="Line 1 of"):
        read_rows(tmp_path / "a.jsonl")
    (tmp_path / "b.jsonl").write_text("")
    with pytest.raises(TrainingError, match="no training row"):
        read_rows(tmp_path / "b.jsonl")


def test_a_line_separator_in_a_row_does_not_split_it(tmp_path: Path) -> None:
    row = training_rows(1)[0]
    row["prompt"][1]["content"] += "\u2028more"
    (tmp_path / "a.jsonl").write_text(render_lines([row]), encoding="utf-8")
    assert read_rows(tmp_path / "a.jsonl") == [row]
