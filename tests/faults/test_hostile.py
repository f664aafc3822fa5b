"""Every behaviour of a hostile server, in every station that asks a model.

A station ends with the right result, or with a named error and everything that was answered kept. When the server has
recovered, the same command asks only for what wasn't answered, and the results are those of an undisturbed run.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dspy.utils.exceptions import LMError
from support.hostile_server import BEHAVIOURS, KEY, Behaviour, HostileServer, asking
from support.small_line import answering, exports, golden, results, timeless, write_pipeline

from divcon import Run, load_pipeline
from divcon.distill import RunStore
from divcon.distill._pace import forget_pace
from divcon.pipeline import Incomplete, explain_lm_error
from divcon.signatures import DivconError

DIVCON = Path(sys.executable).with_name("divcon")
STATIONS: dict[str, Callable[[Run], Any]] = {
    "collect": Run.collect,
    "screen": Run.screen,
    "evaluate": Run.evaluate,
}
QUICK = ", retries: 0"
IMPATIENT = ", retries: 0, timeout: 0.6, first_token: 0.8, longest: 2"
SECONDS = 15.0  # a station's time in the worst case; a wait without bound takes longer


@pytest.fixture(scope="module")
def gold() -> dict[str, str]:
    return golden()


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTILE_KEY", KEY)


@pytest.fixture(scope="module")
def port() -> int:
    """The port of all servers here: exports name the server, so equal ones have an equal port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def server(gold: dict[str, str], port: int) -> Iterator[HostileServer]:
    with HostileServer(answering(gold), ("teacher", "solver"), port) as server:
        yield server
    forget_pace(server.url)  # the next test's server has this address too


def attempt(file: Path, folder: Path, station: str) -> Exception | None:
    """One station in a new `Run`, as one command; the error that the command would show."""
    run = Run(load_pipeline(file), folder)
    try:
        run.check()
        STATIONS[station](run)
    except LMError as error:
        return explain_lm_error(error, run.pipeline)
    except DivconError as error:
        return error
    finally:
        run.close()
        forget_pace(url_of(run))  # the next command is another process
    return None


def url_of(run: Run) -> str:
    return str(run.pipeline.roles.teacher.api_base)


@pytest.fixture(scope="module")
def undisturbed(
    gold: dict[str, str], port: int, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, bytes], Any, int]:
    """Exports, results and the number of requests of a run whose server is always right."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch, HostileServer(answering(gold), port=port) as server:
        patch.setenv("HOSTILE_KEY", KEY)
        file = write_pipeline(folder / "p.yaml", server.url)
        for station in STATIONS:
            assert attempt(file, folder / "run", station) is None
        written(file, folder / "run")
        assert set(server.right.values()) == {1}
        return exports(folder / "run"), results(folder / "run"), server.right.total()


def written(file: Path, folder: Path) -> dict[str, bytes]:
    run = Run(load_pipeline(file), folder)
    run.export()
    run.close()
    return exports(folder)


def stored(folder: Path) -> int:
    store = RunStore(folder)
    found = sum(paid["calls"] for paid in store.paid().values())
    store.close()
    return found


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_hostile_server_costs_no_answer_and_no_result(
    tmp_path: Path, server: HostileServer, undisturbed: tuple[dict[str, bytes], Any, int], name: str
) -> None:
    behaviour = BEHAVIOURS[name]
    folder = tmp_path / "run"
    file = write_pipeline(tmp_path / "hostile.yaml", server.url, endpoint=IMPATIENT if behaviour.waits else QUICK)
    patient = write_pipeline(tmp_path / "patient.yaml", server.url)
    kept = False
    # Time limits are the same in every station, and take their time.
    disturbed = ["collect"] if behaviour.waits else list(STATIONS)
    for station in STATIONS:
        if station not in disturbed:
            assert attempt(patient, folder, station) is None
            continue
        before = Counter(server.right)
        server.turn_hostile(behaviour)
        began = time.monotonic()
        error = attempt(file, folder, station)
        assert time.monotonic() - began < SECONDS
        assert server.wrong, "the station met the behaviour"
        answered = server.right - before
        server.recover()
        held = stored(folder)
        assert held >= server.right.total(), "every right answer is kept"
        require_ending(behaviour, error)
        now = Counter(server.right)
        assert attempt(patient, folder, station) is None
        again = server.right - now
        assert not set(again) & set(answered), "nothing is asked again that was answered"
        if error is None:
            kept = True
            assert not again, "what ended well is whole"
    assert server.astray == []
    made = written(patient, folder)
    if kept and "kept" in behaviour.ending:
        return  # the odd replies are the model's own, and are part of the results
    assert set(server.right.values()) <= {1}
    assert made == undisturbed[0]
    if kept:  # an odd reply that was used may have said nothing of its tokens
        assert scores(results(folder)) == scores(undisturbed[1])
    else:
        # A reply without an answer is paid for all the same.
        assert timeless(results(folder), ("paid",)) == timeless(undisturbed[1], ("paid",))
        assert server.right.total() == undisturbed[2]


def scores(found: dict[str, Any]) -> Any:
    """The part of the results that doesn't depend on what a server says of its tokens."""
    names = ("name", "right", "wrong", "failed", "accuracy", "ci95")
    return [{name: arm[name] for name in names} for arm in found["arms"]], found["differences"], found["screening"]


def require_ending(behaviour: Behaviour, error: Exception | None) -> None:
    """The station has ended in one of the ways that the behaviour allows."""
    if error is None:
        assert behaviour.ending != "fails", "replies without an answer were taken for answers"
        return
    assert "fails" in behaviour.ending, error
    assert isinstance(error, DivconError)
    assert error.problem
    assert error.remedy
    assert isinstance(error, Incomplete) or "hosted_vllm/" in error.problem, error.problem


@pytest.mark.parametrize(
    ("name", "commands"),
    [
        ("reset before headers", 1),
        ("status 500", 1),
        ("status 429 wait 0", 1),
        ("error in the stream", 3),
        ("content null", 3),
    ],
)
def test_a_fault_that_passes_is_asked_again(
    tmp_path: Path, server: HostileServer, undisturbed: tuple[dict[str, bytes], Any, int], name: str, commands: int
) -> None:
    """The first request of one question in four fails, the second is answered: within the command, or by the next."""
    file = write_pipeline(tmp_path / "p.yaml", server.url, endpoint=", retries: 2")
    met: Counter[str] = Counter()

    def first_time(body: dict[str, Any]) -> bool:
        key = asking(body)
        if not body.get("stream") or server.streams:
            met[key] += 1
        return met[key] == 1 and list(met).index(key) % 4 == 0

    server.takes = first_time
    server.turn_hostile(BEHAVIOURS[name])
    for station in STATIONS:
        errors = [attempt(file, tmp_path / "run", station) for _ in range(commands)]
        assert errors[-1] is None
    assert server.wrong
    assert written(file, tmp_path / "run") == undisturbed[0]
    assert set(server.right.values()) == {1}


COMMANDS = {
    "status 401": "HOSTILE_KEY",
    "status 502 html": "502",
    "reset in the body": "teacher",
    "truncated json": "teacher",
    "key echoed in an error": "teacher",
    "choices null": "teacher",
    "ten megabytes": "",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_ends_with_one_message_and_no_traceback(tmp_path: Path, server: HostileServer, name: str) -> None:
    file = write_pipeline(tmp_path / "p.yaml", server.url, endpoint=QUICK)
    server.turn_hostile(BEHAVIOURS[name])
    command = [str(DIVCON), "collect", str(file), "--run", "run"]

    def collect() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, text=True, capture_output=True, timeout=60, env=os.environ)

    done = collect()
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert KEY not in said
    assert "\x1b" not in said
    if done.returncode == 0:
        assert "kept" in BEHAVIOURS[name].ending
    else:
        assert done.returncode == 1
        assert done.stderr.count("error:") == 1
        assert COMMANDS[name] in done.stderr
    server.recover()
    again = collect()
    assert again.returncode == 0, again.stderr
    assert set(server.right.values()) == {1}
