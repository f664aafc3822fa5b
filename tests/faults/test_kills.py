"""A run that is killed at any moment, and run again, comes to what an undisturbed run comes to.

`DIVCON_KILLS` sets the number of kills, `DIVCON_KILLS_RECORD` names a JSON file to write what happened to.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.hostile_server import KEY, HostileServer
from support.killable import started
from support.small_line import answering, exports, golden, results, write_pipeline

from divcon.distill import Base

pytestmark = pytest.mark.model

DIVCON = Path(sys.executable).with_name("divcon")
KILLS = int(os.environ.get("DIVCON_KILLS", "20"))
SEED = 13
CONCURRENCY = 4
STATIONS = ("check", "compile", "collect", "screen", "export", "train", "evaluate")


@dataclass
class Kills:
    """What was killed, and where.

    Attributes:
        at: Kills by the station that ran.
        by: Kills by the way their moment was chosen.
        twice: Requests that were asked twice.
        in_flight: The most requests that can have been in flight at the kills.
        folders: Runs that came to their end.
    """

    at: Counter[str] = field(default_factory=Counter)
    by: Counter[str] = field(default_factory=Counter)
    twice: int = 0
    in_flight: int = 0
    folders: int = 0


def station_of(said: Path) -> str:
    """The station that a command was in, by what it said."""
    found = re.findall(rf"^({'|'.join(STATIONS)}): ", said.read_text(errors="replace") if said.exists() else "", re.M)
    return found[-1] if found else "start"


def left_behind(folder: Path) -> set[str]:
    """The files of a run folder that another process could stumble over, by their path."""
    usual = re.compile(r"run\.sqlite-(wal|shm)|divcon\.log|.*\.lock")
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if not usual.fullmatch(file.name)}


def waited(process: Any, server: HostileServer, said: Path, rng: random.Random, whole: float, station: str) -> str:
    """Wait for the moment of a kill, or for the end of the process; returns the way the moment was chosen."""
    way = rng.choice(["time", "replies", "station"])
    end = time.monotonic() + {"time": rng.uniform(0.0, whole), "replies": 60.0, "station": 60.0}[way]
    replies = server.right.total() + rng.randint(1, 12)
    heard = False
    while process.is_alive() and time.monotonic() < end:
        if way == "replies" and server.right.total() >= replies:
            break
        if way == "station" and not heard and station_of(said) == station:
            heard, end = True, time.monotonic() + rng.uniform(0.0, 0.6)
        time.sleep(0.005)
    return way


def test_a_run_killed_again_and_again_loses_nothing_and_asks_nothing_twice(
    tmp_path: Path, tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTILE_KEY", KEY)
    answer, rng, found = answering(golden()), random.Random(SEED), Kills()

    def slowly(body: dict[str, Any]) -> str:
        time.sleep(0.02)
        return answer(body)

    def require_whole(folder: Path) -> None:
        assert exports(folder) == whole
        assert scores(folder) == measured
        assert left_behind(folder) == files
        assert expected - server.right == Counter(), "every answer was asked for"
        more = server.right - expected
        assert set(more) <= set(expected), "nothing else was asked"
        found.twice += more.total()
        found.folders += 1
        server.right.clear()

    with HostileServer(slowly, ("teacher", "solver")) as server:
        file = write_pipeline(
            tmp_path / "line.yaml",
            server.url,
            more=(
                "compile: {optimizer: bootstrap, examples: 4, arguments: {max_bootstrapped_demos: 1}}\n"
                "train: {epochs: 2, batch_size: 4, save_every: 1}\n"
            ),
            arms=", untuned, sd-r",
            base=str(tiny_base.path),
        )
        command = ["run", str(file), "--set", "screen.rule=oracle", "--run"]
        began = time.monotonic()
        process = started([*command, "whole"], tmp_path, tmp_path / "whole.txt")
        process.join(120)
        assert process.exitcode == 0, (tmp_path / "whole.txt").read_text()
        lasts = time.monotonic() - began
        whole, measured, files = (
            exports(tmp_path / "whole"),
            scores(tmp_path / "whole"),
            left_behind(tmp_path / "whole"),
        )
        expected = Counter(server.right)
        server.right.clear()
        number = 0
        while found.at.total() < KILLS:
            folder, said = tmp_path / f"killed-{found.folders}", tmp_path / f"{number}.txt"
            process = started([*command, folder.name], tmp_path, said)
            way = waited(process, server, said, rng, lasts, STATIONS[number % len(STATIONS)])
            if process.is_alive():
                process.kill()
                found.at[station_of(said)] += 1
                found.by[way] += 1
                found.in_flight += CONCURRENCY
            process.join(30)
            number += 1
            if process.exitcode == 0:
                require_whole(folder)
            else:
                assert process.exitcode == -9, said.read_text()
        folder = tmp_path / f"killed-{found.folders}"
        done = subprocess.run([str(DIVCON), *command, folder.name], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        require_whole(folder)
    assert found.twice <= found.in_flight
    assert strays(tmp_path) == []
    if KILLS >= 20:
        assert {"collect", "train", "evaluate"} <= set(found.at), found.at
    if record := os.environ.get("DIVCON_KILLS_RECORD"):
        write_record(Path(record), found)


def scores(folder: Path) -> list[tuple[Any, ...]]:
    """What the arms that no student answers came to."""
    asked = (arm for arm in results(folder)["arms"] if arm["name"] in ("direct", "cot", "teacher"))
    return [(arm["name"], arm["right"], arm["wrong"], arm["failed"]) for arm in asked]


def strays(folder: Path) -> list[str]:
    """Processes that still work in a folder."""
    found = []
    for process in psutil.process_iter():
        try:
            command = " ".join(process.cmdline())
            helps = "multiprocessing" in command  # what forks the commands, and stays for the next test
            if Path(process.cwd()).is_relative_to(folder) and process.pid != os.getpid() and not helps:
                found.append(command)
        except (psutil.Error, OSError):
            continue
    return found


def write_record(file: Path, found: Kills) -> None:
    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "perf"))
    from _common import commit, machine

    record = {
        "machine": machine(),
        "commit": commit(),
        "seed": SEED,
        "kills": found.at.total(),
        "by_station": dict(sorted(found.at.items())),
        "by_moment": dict(sorted(found.by.items())),
        "runs_that_came_to_their_end": found.folders,
        "exports_that_differed": 0,
        "asked_twice": found.twice,
        "at_most_in_flight": found.in_flight,
    }
    file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
