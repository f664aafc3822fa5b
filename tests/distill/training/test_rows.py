import json
from pathlib import Path

import pytest
from support.training_rows import training_rows

from divcon.distill import Destination, TrainingError, read_export, render_lines
from divcon.distill.training import read_rows, write_rows
from divcon.programs import RolePredict
from divcon.signatures import Decompose


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


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    role = RolePredict(Decompose, "decomposer")
    to = Destination(tmp_path / "sd-t.jsonl", "sd-t", key="k")
    return write_rows(training_rows(3), role, to, {"kept": 3}).file


def test_what_an_export_says_is_read_as_it_was_written(exported: Path) -> None:
    read = read_export(exported)
    assert read is not None
    assert (read.schema_version, read.student, read.rows, read.key) == (1, "sd-t", 3, "k")
    assert (read.screening, sorted(read.prompt)) == ({"kept": 3}, ["demos", "instruction", "layout", "set of outputs"])


def test_an_export_of_another_form_or_without_its_rows_is_none(exported: Path) -> None:
    beside = exported.with_suffix(".manifest.json")
    now = json.loads(beside.read_text())
    earlier = {name: value for name, value in now.items() if name not in ("schema_version", "key")} | {"stamp": "k"}
    for other in (earlier, now | {"schema_version": 2}):
        beside.write_text(json.dumps(other))
        assert read_export(exported) is None
    beside.write_text(json.dumps(now))
    exported.unlink()
    assert read_export(exported) is None
