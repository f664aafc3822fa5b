"""What of a run is there, and why a station would run again."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from divcon import DivconError, Run, load_pipeline
from divcon.cli import app
from divcon.distill import Manifest, content_hash
from divcon.pipeline import StationStatus
from divcon.pipeline._record import record_key

FILE = """\
task: {name: offline, train: 12, test: 4}
roles:
  teacher: {model: scripted/references, faults: {missing_step: 0.2}}
  solver: {model: embedded/solver}
screen: {rule: none}
evaluate: {arms: [cot, teacher, sd-t]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "line.yaml"
    made.write_text(FILE)
    return made


def statuses(file: Path, folder: Path, *changes: str) -> dict[str, StationStatus]:
    run = Run(load_pipeline(file, changes), folder)
    found = {one.station: one for one in run.status()}
    run.close()
    return found


def collected(file: Path, folder: Path) -> None:
    run = Run(load_pipeline(file), folder)
    run.check()
    run.collect()
    run.export(run.screen())
    run.close()


def test_a_new_folder_has_everything_to_do_and_looking_asks_nothing(file: Path, tmp_path: Path) -> None:
    found = statuses(file, tmp_path / "run")
    assert list(found) == [
        "collect", "screen none", "export sd-t", "train sd-t", "evaluate cot", "evaluate teacher", "evaluate sd-t",
        "results",
    ]  # fmt: skip
    assert {one.state for one in found.values()} == {"to do"}
    assert found["collect"].note == "0 of 12"


def test_what_is_there_is_done_and_what_was_added_is_missing(file: Path, tmp_path: Path) -> None:
    collected(file, tmp_path / "run")
    found = statuses(file, tmp_path / "run")
    assert [found[name].state for name in ("collect", "screen none", "export sd-t")] == ["done"] * 3
    assert found["train sd-t"].state == "to do"
    more = statuses(file, tmp_path / "run", "task.train=16")
    assert (more["collect"].state, more["collect"].note) == ("partly", "12 of 16")


def test_a_change_is_named_where_it_counts(file: Path, tmp_path: Path) -> None:
    collected(file, tmp_path / "run")
    other_teacher = statuses(file, tmp_path / "run", "roles.teacher.faults.missing_step=0.3")
    assert other_teacher["collect"].state == "again"
    assert ("teacher.faults.missing_step", "0.2", "0.3") in other_teacher["collect"].changes
    assert other_teacher["screen none"].note == "0 of 12; collection: before -> changed"
    other_screen = statuses(file, tmp_path / "run", "screen.samples=5")
    assert other_screen["collect"].state == "done"
    assert other_screen["screen none"].changes == (("screen.samples", "2", "5"),)


def test_the_command_prints_a_line_a_station(file: Path, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["status", str(file), "--run", str(tmp_path / "run"), "--json"])
    assert told.exit_code == 0, told.output
    first = json.loads(told.stdout)[0]
    assert (first["station"], first["state"], first["total"]) == ("collect", "to do", 12)
    assert not (tmp_path / "run").exists(), "looking makes no folder"


def test_a_student_whose_rows_were_deleted_is_still_trained(file: Path, tmp_path: Path) -> None:
    """A run would write the rows again, and find the adapter that was trained on them."""
    folder = tmp_path / "run"
    collected(file, folder)
    run = Run(load_pipeline(file), folder)
    [student] = run.pipeline.students
    adapter = folder / "adapters" / "sd-t"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    (adapter / "adapter_model.safetensors").write_bytes(b"x")
    base = {"id": run.models.base.id, "revision": run.models.base.revision, "dtype": run.models.base.dtype}
    made = {"role": "decomposer", "student": "SD-T", "base": base, "rows": 12, "content_hash": content_hash(adapter)}
    Manifest(**made, prompt_hash="", chat_template_hash="", data_hash="").write(adapter)
    record_key(folder, "train sd-t", run.stations.training_key(student))
    run.close()
    shutil.rmtree(folder / "exports")
    found = statuses(file, folder)
    assert (found["export sd-t"].state, found["train sd-t"].state) == ("to do", "done")
    (adapter / "adapter_model.safetensors").write_bytes(b"y")
    assert statuses(file, folder)["train sd-t"].state == "to do", "a damaged adapter is trained again"


@pytest.mark.parametrize("text", ['{"collect":', "[]", '{"collect": {"digest": "x"}}'])
def test_a_damaged_record_of_keys_stops_nothing(file: Path, tmp_path: Path, text: str) -> None:
    collected(file, tmp_path / "run")
    (tmp_path / "run" / "keys.json").write_text(text)
    assert statuses(file, tmp_path / "run")["collect"].state == "done"
    collected(file, tmp_path / "run")


def test_a_damaged_prompt_is_compiled_again_and_named_where_it_would_answer(file: Path, tmp_path: Path) -> None:
    run = Run(load_pipeline(file, ["compile.optimizer=LabeledFewShot"]), tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "program.json").write_text('{"stamp":')
    assert run.compiled is None
    with pytest.raises(DivconError, match=r"program\.json is damaged"):
        run.answering_program()
    run.close()


def test_asking_a_saved_run_changes_nothing_for_its_stations(file: Path, tmp_path: Path) -> None:
    """A prompt that was compiled from other settings answers for the saved run; the stations compile it anew."""
    run = Run(load_pipeline(file, ["compile.optimizer=LabeledFewShot"]), tmp_path / "run")
    (tmp_path / "run").mkdir(exist_ok=True)
    (tmp_path / "run" / "program.json").write_text(
        json.dumps({"stamp": "of other settings", "instructions": "Split it.", "demos": []})
    )
    program, name = run.answering_program()
    assert (name, program.decompose.signature.instructions) == ("untuned", "Split it.")
    assert run.compiled is None
    assert next(one for one in run.status() if one.station == "compile").state == "to do"
    run.close()
