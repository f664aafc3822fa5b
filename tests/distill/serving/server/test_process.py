"""Real processes: a small HTTP server stands in for vLLM, whose own tests are in test_vllm.py."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support.processes import heed_ctrl_c

from divcon.distill.serving.server import Causes, ServerDied, ServerError
from divcon.distill.serving.server._process import ServerProcess, free_port

CAUSES = Causes("Such a server", "Lower something.", "the cache is too small")
SCRIPT = Path(__file__).parents[3] / "support" / "child_server.py"


@pytest.fixture
def mark() -> str:
    """A word in the command lines of this test's processes."""
    return f"mark-{uuid.uuid4().hex}"


def alive(mark: str) -> list[int]:
    """Process ids with the mark in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if mark in (process.info["cmdline"] or []) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process.pid)
    return found


def gone(mark: str, patience: float = 15.0) -> bool:
    deadline = time.monotonic() + patience
    while alive(mark) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(mark)


@pytest.fixture
def start(tmp_path: Path, mark: str) -> Iterator[Callable[..., tuple[ServerProcess, str]]]:
    made: list[ServerProcess] = []

    def begin(*words: str, grace: float = 1.0) -> tuple[ServerProcess, str]:
        port = free_port()
        command = [sys.executable, str(SCRIPT), str(port), mark, *words]
        made.append(ServerProcess(command, {}, tmp_path / "log", "the server", CAUSES, grace))
        return made[-1], f"http://127.0.0.1:{port}/health"

    yield begin
    for process in made:
        process.stop()


@pytest.mark.parametrize("words", [(), ("child",), ("child", "stubborn")])
def test_stop_leaves_no_process(start: Callable, mark: str, words: tuple[str, ...]) -> None:
    process, health = start(*words)
    process.wait_until_ready(health, 30)
    assert process.running
    assert len(alive(mark)) == 2 + ("child" in words)  # with the watchdog
    process.stop()
    process.stop()
    assert not process.running
    assert not alive(mark)


PARENT = """
    import sys, time
    from pathlib import Path
    from divcon.distill.serving.server import Causes
    from divcon.distill.serving.server._process import ServerProcess, free_port
    port = free_port()
    command = [sys.executable, {script!r}, str(port), {mark!r}, "child"]
    process = ServerProcess(command, {{}}, Path("log"), "it", Causes("It"), 1.0)
    process.wait_until_ready(f"http://127.0.0.1:{{port}}/health", 30)
    print("ready", flush=True)
    {then}
"""


@pytest.mark.parametrize(
    ("then", "ending"),
    [
        ("pass", None),
        ("raise SystemExit(3)", None),
        ("raise RuntimeError('boom')", None),
        ("import os; os._exit(1)", None),
        ("time.sleep(600)", signal.SIGINT),
        ("time.sleep(600)", signal.SIGTERM),
        ("time.sleep(600)", signal.SIGKILL),
        # A fork that lives on holds the pipe open.
        ("import os\n    if os.fork() == 0: time.sleep(600)\n    time.sleep(600)", signal.SIGKILL),
    ],
)
def test_however_the_parent_ends_no_server_is_left(
    tmp_path: Path, mark: str, then: str, ending: signal.Signals | None
) -> None:
    code = textwrap.dedent(PARENT.format(script=str(SCRIPT), mark=mark, then=then))
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, preexec_fn=heed_ctrl_c
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"ready\n"
    forked = psutil.Process(parent.pid).children() if ending else []
    if ending:
        parent.send_signal(ending)
    parent.wait(20)
    assert gone(mark)
    for process in forked:
        if process.is_running():
            process.kill()


KILLED = """
    import os, random, signal, sys, time
    from pathlib import Path
    from divcon.distill.serving.server import Causes
    from divcon.distill.serving.server._process import ServerProcess, free_port
    rng = random.Random(13)
    for _ in range(10):
        child = os.fork()
        if child == 0:
            port = free_port()
            command = [sys.executable, {script!r}, str(port), {mark!r}, "child"]
            process = ServerProcess(command, {{}}, Path("log"), "it", Causes("It"), 1.0)
            process.wait_until_ready(f"http://127.0.0.1:{{port}}/health", 30)
            time.sleep(600)
        time.sleep(rng.uniform(0.0, 0.6))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""


def test_a_parent_that_is_killed_at_any_moment_of_the_start_leaves_no_server(tmp_path: Path, mark: str) -> None:
    code = textwrap.dedent(KILLED.format(script=str(SCRIPT), mark=mark))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, stderr=subprocess.DEVNULL)
    assert gone(mark)


def test_stop_ends_a_server_whose_pipe_a_forked_process_holds(start: Callable, mark: str) -> None:
    process, health = start()
    process.wait_until_ready(health, 30)
    if (child := os.fork()) == 0:
        time.sleep(60)
        os._exit(0)
    try:
        process.stop()
        assert not process.running
        assert gone(mark, 1.0)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_a_killed_watchdog_takes_the_server_with_it(start: Callable, mark: str) -> None:
    process, health = start()
    process.wait_until_ready(health, 30)
    os.kill(process._watchdog.pid, signal.SIGKILL)
    assert gone(mark)


def test_a_server_that_dies_says_why(start: Callable) -> None:
    process, health = start("raise")
    with pytest.raises(ServerDied, match=r"status 1\): ValueError: no such thing as this model") as caught:
        process.wait_until_ready(health, 30)
    assert "loading" in caught.value.problem
    process, health = start("out-of-memory")
    with pytest.raises(ServerDied, match="ran out of memory") as caught:
        process.wait_until_ready(health, 30)
    assert caught.value.remedy == "Lower something."
    process, health = start("killed")
    with pytest.raises(ServerDied, match=r"was killed .*memory"):
        process.wait_until_ready(health, 30)


def test_a_server_that_dies_later_is_seen(start: Callable) -> None:
    process, health = start("dies")
    process.wait_until_ready(health, 30)
    deadline = time.monotonic() + 10
    while process.running and time.monotonic() < deadline:
        time.sleep(0.05)
    assert "exit status 3" in process.died().problem


def test_a_slow_start_is_ended_at_the_deadline(start: Callable, mark: str) -> None:
    process, health = start("never-ready")
    told: list[float] = []
    with pytest.raises(ServerError, match="wasn't ready after"):
        process.wait_until_ready(health, 1.0, told.append)
    assert told
    assert not alive(mark)


def test_a_taken_port_is_named(start: Callable, tmp_path: Path, mark: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ServerError, match=f"Port {port} .*in use"):
            free_port(port)
        process = ServerProcess([sys.executable, str(SCRIPT), str(port), mark], {}, tmp_path / "log", "it", CAUSES)
        with pytest.raises(ServerDied, match="its port was taken") as caught:
            process.wait_until_ready(f"http://127.0.0.1:{port}/health", 10)
        assert caught.value.port_taken


def test_a_key_in_the_log_is_not_shown(start: Callable) -> None:
    process, health = start("secret")
    process.wait_until_ready(health, 30)
    assert "api_key" in process.tail()
    assert "sesame" not in process.tail()


def test_a_python_that_is_none_is_an_error(tmp_path: Path) -> None:
    process = ServerProcess([str(tmp_path / "nothing")], {}, tmp_path / "log", "it", CAUSES)
    with pytest.raises(ServerDied, match="exit status 1"):
        process.wait_until_ready("http://127.0.0.1:9/health", 10)
