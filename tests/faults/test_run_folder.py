"""A run folder: one process works on it, commands leave it whole, and its damaged files are named."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.openai_server import OpenAIServer, user_text
from support.processes import heed_ctrl_c
from typer.testing import CliRunner

from divcon import DivconError, Run, load_pipeline
from divcon.benchmarks import Arm
from divcon.benchmarks._evaluate import answered_by
from divcon.cli import app
from divcon.config import load_saved_pipeline
from divcon.distill import (
    FolderBusy,
    Hold,
    Job,
    Key,
    ManifestError,
    RunStore,
    StoreError,
    TrainingError,
    read_export,
    read_manifest,
    write_whole,
)
from divcon.distill._files import unfinished
from divcon.distill._hold import holder_of
from divcon.distill._probe import read_probe
from divcon.distill.training import read_rows
from divcon.distill.training._checkpoints import Checkpoints

DIVCON = Path(sys.executable).with_name("divcon")
KEYED = {**os.environ, "OPENAI_API_KEY": "k"}
QUESTIONS = 20


def decomposition(body: dict) -> str:
    return f"1. What is said in {sum(map(ord, user_text(body)))}?\n2. What follows?"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(decomposition, delay=0.1) as made:
        yield made


@pytest.fixture
def file(tmp_path: Path, server: OpenAIServer) -> Path:
    made = tmp_path / "p.yaml"
    made.write_text(
        f"task: {{name: word-problems, train: {QUESTIONS}, test: 5}}\n"
        f"roles:\n  teacher: {{model: openai/t, api_base: '{server.url}', retries: 0}}\n"
        "  solver: {model: openai/solver, api_base: 'http://127.0.0.1:9/v1'}\n"
        "collect: {concurrency: 1}\nscreen: {rule: none}\n"
    )
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "p"


def started(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(DIVCON), *map(str, arguments)],
        env=KEYED,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=heed_ctrl_c,
    )


def wait_for(what: object, server: OpenAIServer, number: int) -> None:
    deadline = time.monotonic() + 60
    while len(server.requests) < number:
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


# -- one process -------------------------------------------------------------------------------------------------------


def test_a_second_process_leaves_and_says_who_works_and_one_that_waits_asks_nothing_again(
    file: Path, server: OpenAIServer
) -> None:
    both_came = threading.Event()
    server.reply = lambda body: decomposition(body) if both_came.wait(60) else 500
    first = started("collect", file)
    wait_for("the first process", server, 1)
    second, waiting = started("collect", file), started("collect", file, "--wait")
    _, said = second.communicate(timeout=60)
    assert waiting.stdout is not None
    told = waiting.stdout.readline()
    both_came.set()
    assert second.returncode == 1
    assert "Traceback" not in said
    assert all(part in said for part in (f"process {first.pid}", "'divcon collect", "since 20", "--wait")), said
    assert first.wait(60) == 0
    _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, said
    assert told.startswith(f"wait: for process {first.pid}"), told
    assert len(server.requests) == QUESTIONS, "each question is asked once"


def test_a_killed_holder_blocks_nobody_and_its_note_is_not_believed(
    file: Path, folder: Path, server: OpenAIServer
) -> None:
    first = started("collect", file)
    wait_for("the first process", server, 3)
    first.kill()
    first.communicate()
    note = json.loads((folder / "run.holder.json").read_text())
    assert note["pid"] == first.pid
    assert holder_of(folder) == "another process"
    second = started("collect", file)
    assert second.communicate(timeout=60)[1] == ""
    assert second.returncode == 0
    assert not (folder / "run.holder.json").exists()


def test_what_a_killed_process_has_left_half_written_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write = (
        "import os, signal, sys; from pathlib import Path; from divcon.distill._files import unfinished\n"
        "adapter = unfinished(Path(sys.argv[1]) / 'adapters' / 'sd-r')\n"
        "adapter.mkdir(parents=True)\n"
        "(adapter / 'manifest.json').write_text('{')\n"
        "unfinished(Path(sys.argv[1]) / 'results.json').write_text('{')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", write, folder])
    living = unfinished(folder / "adapters" / "sd-t")
    living.mkdir()
    assert len(list(folder.rglob("*.building"))) == 3
    Hold(folder).release()
    assert list(folder.rglob("*.building")) == [living], "another thread of this process may still write it"


def test_looking_needs_no_hold(file: Path, folder: Path) -> None:
    run = Run(load_pipeline(file), folder)
    run.hold()
    done = subprocess.run([DIVCON, "status", file], env=KEYED, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert CliRunner().invoke(app, ["store", "check", str(folder)]).exit_code == 0
    done = subprocess.run([DIVCON, "store", "repair", folder], env=KEYED, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"process {os.getpid()}" in done.stderr
    run.close()


def test_runs_of_one_process_share_the_hold_until_the_last_one_leaves(file: Path, folder: Path) -> None:
    one, other = Run(load_pipeline(file), folder), Run(load_pipeline(file), folder)
    one.hold()
    one.hold()
    other.hold()
    one.close()
    check = "import sys; from pathlib import Path; from divcon.distill import Hold; Hold(Path(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", check, folder], capture_output=True, text=True)
    assert "FolderBusy" in done.stderr
    other.close()
    done = subprocess.run([sys.executable, "-c", check, folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_busy_folder_has_a_code_and_a_remedy(tmp_path: Path) -> None:
    begun = "import sys, time; from pathlib import Path; from divcon.distill import Hold; "
    begun += "hold = Hold(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", begun, tmp_path / "run"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    try:
        with pytest.raises(FolderBusy, match=f"process {process.pid}") as caught:
            Hold(tmp_path / "run")
        assert caught.value.code == "folder-busy"
        assert "--wait" in caught.value.remedy
    finally:
        process.kill()
        process.wait()
    Hold(tmp_path / "run").release()


def test_a_folder_that_cannot_be_held_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="can't be written"):
        Hold(tmp_path / "file" / "run")


def test_files_written_by_many_at_once_are_whole(tmp_path: Path) -> None:
    texts = [str(n) * 200_000 for n in range(8)]
    failed: list[Exception] = []

    def write(text: str) -> None:
        try:
            for _ in range(20):
                write_whole(tmp_path / "x.json", text)
        except Exception as error:
            failed.append(error)

    writers = [threading.Thread(target=write, args=(text,)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert failed == []
    assert (tmp_path / "x.json").read_text() in texts
    assert [one.name for one in tmp_path.iterdir()] == ["x.json"]


# -- leaving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["to the end", "with an error", "by Ctrl-C"])
def test_a_command_leaves_a_store_that_is_one_file(file: Path, folder: Path, server: OpenAIServer, how: str) -> None:
    if how == "with an error":
        server.reply = lambda body: decomposition(body) if len(server.requests) < 5 else 401
    process = started("collect", file)
    if how == "by Ctrl-C":
        wait_for(process, server, 5)
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == {"to the end": 0, "with an error": 1, "by Ctrl-C": 130}[how]
    assert not (folder / "run.sqlite-wal").exists()
    alone = folder.with_name("alone")
    alone.mkdir()
    (alone / "run.sqlite").write_bytes((folder / "run.sqlite").read_bytes())
    store = RunStore(alone)
    assert store.paid()["teacher"]["calls"] >= 4
    store.close()


def test_asking_leaves_the_store_whole_too(file: Path, folder: Path) -> None:
    run = Run(load_pipeline(file), folder)
    run.check()
    run.close()
    done = CliRunner().invoke(app, ["status", str(file), "--run", str(folder)])
    assert done.exit_code == 0
    assert not (folder / "run.sqlite-wal").exists()


# -- damaged files -----------------------------------------------------------------------------------------------------

DAMAGE = pytest.mark.parametrize("damage", [b"\xff\xfe\x00{", b'{"schema_version": 1, "rol', b"", b"[]"])


@DAMAGE
def test_a_damaged_pipeline_is_one_error(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "pipeline.json").write_bytes(damage)
    with pytest.raises(DivconError, match=r"pipeline\.json") as caught:
        load_saved_pipeline(tmp_path)
    assert caught.value.remedy


@DAMAGE
def test_damaged_manifests_probes_and_notes_are_named_or_made_again(tmp_path: Path, damage: bytes) -> None:
    for name in ("manifest.json", "probe.json", "rows.manifest.json", "rows.jsonl"):
        (tmp_path / name).write_bytes(damage)
    with pytest.raises(ManifestError, match=r"manifest\.json can't be read"):
        read_manifest(tmp_path)
    with pytest.raises(ManifestError, match=r"probe\.json can't be read"):
        read_probe(tmp_path)
    with pytest.raises(TrainingError, match=r"rows\.jsonl"):
        read_rows(tmp_path / "rows.jsonl")
    assert read_export(tmp_path / "rows.jsonl") is None, "it is exported again"


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
@pytest.mark.parametrize("damage", [b"\xff\xfe\x00{", b'{"r": ', b"[]", None])
def test_a_damaged_adapter_is_one_error(tmp_path: Path, name: str, damage: bytes | None) -> None:
    manifest = {
        "role": "decomposer", "student": "sd-t", "base": {}, "prompt_hash": "", "chat_template_hash": "",
        "data_hash": "", "rows": 1, "content_hash": "0",
    }  # fmt: skip
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    if damage is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(damage)
    with pytest.raises(ManifestError, match=r"is damaged|isn't the one"):
        read_manifest(tmp_path)


@DAMAGE
@pytest.mark.parametrize("name", ["made-from.json", "seconds.json"])
def test_checkpoints_whose_notes_are_damaged_are_begun_anew(tmp_path: Path, name: str, damage: bytes) -> None:
    before = Checkpoints(tmp_path / "sd-t", {"data": "x"})
    before.saved()
    (before.folder / "checkpoint-4").mkdir()
    (before.folder / "checkpoint-4" / "trainer_state.json").write_text("{}")
    assert Checkpoints(tmp_path / "sd-t", {"data": "x"}).last() is not None
    (before.folder / name).write_bytes(damage)
    again = Checkpoints(tmp_path / "sd-t", {"data": "x"})
    assert again.last() is None
    assert again.seconds() < 5


@pytest.mark.parametrize("state", [None, "", '{"epoch": 1'])
def test_a_checkpoint_that_a_kill_left_half_written_is_not_gone_on_from(tmp_path: Path, state: str | None) -> None:
    checkpoints = Checkpoints(tmp_path / "sd-t", {"data": "x"})
    for step, written in ((2, "{}"), (4, state)):
        folder = checkpoints.folder / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"x")
        if written is not None:
            (folder / "trainer_state.json").write_text(written)
    last = checkpoints.last()
    assert last is not None
    assert Path(last).name == "checkpoint-2"


def test_rows_that_were_cut_after_the_export_are_not_trained_on(file: Path, folder: Path) -> None:
    run = Run(load_pipeline(file, ["roles.teacher={model: scripted/references}"]), folder)
    run.check()
    run.collect()
    run.export(run.screen())
    rows = folder / "exports" / "sd-t.jsonl"
    rows.write_bytes(b"".join(rows.read_bytes().splitlines(keepends=True)[:5]))
    with pytest.raises(DivconError, match="or changed since") as caught:
        run.train()
    assert "divcon export" in caught.value.remedy
    run.close()


# -- clocks ------------------------------------------------------------------------------------------------------------


def test_a_clock_that_is_set_changes_no_duration(monkeypatch: pytest.MonkeyPatch, items: list, tmp_path: Path) -> None:
    """The wall clock jumps a day back at every look; only the stamp of a record is taken from it."""
    now = iter(range(2_000_000_000, 0, -86_400))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))

    def program(**asked: object) -> object:
        time.sleep(0.05)
        return __import__("dspy").Prediction(answer="0")

    arm = Arm("cot", program, Key({}), "CoT")  # type: ignore[arg-type]
    record = answered_by(arm, Job("evaluate cot", items[0]))
    assert 0.05 <= record["seconds"] < 5
    assert record["started"] > 1_000_000_000
