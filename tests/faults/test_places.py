"""The place that a run is in: a full disk, a folder that may not be written, another process, a clock that jumps."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.hostile_server import KEY, HostileServer
from support.small_line import answering, exports, golden, results, timeless, write_pipeline

from divcon import Run, load_pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HostileServer]:
    monkeypatch.setenv("HOSTILE_KEY", KEY)
    with HostileServer(answering(golden()), ("teacher", "solver")) as server:
        yield server


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kilobytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def command(*arguments: object, cwd: Path, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own; `limit` is the size in bytes that none of its files may exceed."""
    start = [str(ROOT / "tests" / "support" / "limited.py"), str(limit)] if limit else ["-m", "divcon.cli"]
    return subprocess.run(
        [sys.executable, *start, *map(str, arguments)],
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def require_one_error(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr


def test_a_disk_that_fills_up_stops_the_run_with_all_kept(
    tmp_path: Path, server: HostileServer, small_disk: Path
) -> None:
    file = write_pipeline(tmp_path / "p.yaml", server.url)
    folder = small_disk / "run"
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 150_000)
    require_one_error(command("collect", file, "--run", folder, cwd=tmp_path), str(folder))
    filler.unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", str(small_disk)], check=True)
    done = command("collect", file, "--run", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert server.right.total() - len(server.right) <= 4, "no more is asked again than was in flight"


def test_a_file_that_may_not_grow_stops_the_run_with_all_kept(tmp_path: Path, server: HostileServer) -> None:
    file = write_pipeline(tmp_path / "p.yaml", server.url)
    folder = tmp_path / "run"
    require_one_error(command("collect", file, "--run", folder, cwd=tmp_path, limit=130_000), str(folder))
    done = command("collect", file, "--run", folder, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert server.right.total() - len(server.right) <= 4, "no more is asked again than was in flight"


def test_a_folder_that_may_not_be_written_is_said_before_anything_is_asked(
    tmp_path: Path, server: HostileServer, small_disk: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    file = write_pipeline(tmp_path / "p.yaml", server.url)
    require_one_error(command("collect", file, "--run", small_disk / "run", cwd=tmp_path), "disk", "Read-only")
    assert not server.right


def test_of_two_processes_on_one_folder_the_second_leaves_and_asks_nothing(
    tmp_path: Path, server: HostileServer
) -> None:
    file = write_pipeline(tmp_path / "p.yaml", server.url)
    first = Run(load_pipeline(file), tmp_path / "run")
    first.check()
    try:
        require_one_error(command("collect", file, "--run", tmp_path / "run", cwd=tmp_path), "in use", str(os.getpid()))
        assert not server.right
        first.collect()
    finally:
        first.close()
    assert command("screen", file, "--run", tmp_path / "run", cwd=tmp_path).returncode == 0


def test_a_clock_that_jumps_changes_no_result_and_no_duration(
    tmp_path: Path, server: HostileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_pipeline(tmp_path / "p.yaml", server.url)
    found = []
    for name in ("steady", "jumping"):
        run = Run(load_pipeline(file), tmp_path / name)
        with monkeypatch.context() as patch:
            if name == "jumping":
                patch.setattr(time, "time", jumping(time.time))
            began = time.monotonic()
            run.check()
            run.collect()
            run.export(run.screen())
            run.evaluate()
            lasted = time.monotonic() - began
        paid = run.store.paid()
        run.close()
        assert lasted < 60
        assert all(0 <= spent["seconds"] < 8 * lasted for spent in paid.values())
        arms = results(tmp_path / name)["arms"]
        assert all(0 <= value <= lasted for arm in arms for value in seconds_in(arm)), "no duration is a day"
        found.append((exports(tmp_path / name), timeless(results(tmp_path / name))))
    assert found[0] == found[1]


def jumping(clock: Callable[[], float]) -> Callable[[], float]:
    """A clock that is a day late and a day early in turns."""
    jumps = itertools.cycle((86_400.0, -86_400.0))
    return lambda: clock() + next(jumps)


def seconds_in(found: object) -> Iterator[float]:
    """All durations in a part of the results."""
    if isinstance(found, dict):
        for key, value in found.items():
            if "seconds" in key and isinstance(value, (int, float)):
                yield float(value)
            else:
                yield from seconds_in(value)
    elif isinstance(found, list):
        for one in found:
            yield from seconds_in(one)
