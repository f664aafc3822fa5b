"""Keeps a server from outliving the program that started it: run as a script.

Its arguments are the seconds that a server is given to end by itself, and the server's command.

The parent holds the other end of this process' standard input. When that closes, in whatever way the parent ended, or
the parent is gone, the server and all it has started are ended. It needs the standard library alone, so that starting
it costs nothing, and it isn't in the terminal's process group: Ctrl-C reaches the parent, which decides.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

_SET_PDEATHSIG, _SET_CHILD_SUBREAPER = 1, 36  # from <sys/prctl.h>


def main(grace: float, command: list[str]) -> int:
    """Run `command` until it ends or the parent does; its exit status, or 143 where it was ended."""
    parent = os.getppid()
    _prctl(_SET_CHILD_SUBREAPER, 1)  # what a dying server leaves behind becomes ours to end
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: over.set())
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_end_with_this_process
    )
    threading.Thread(target=_wait_for_the_pipe, args=(over,), daemon=True).start()
    while server.poll() is None and not over.wait(0.25):
        if os.getppid() != parent:  # a forked sibling may hold the pipe open
            break
    status = server.poll()
    _end_group(server, grace)
    return 143 if status is None else status if status >= 0 else 128 - status


def _wait_for_the_pipe(over: threading.Event) -> None:
    while os.read(0, 1):  # not sys.stdin, whose lock a daemon thread would hold when the interpreter ends
        pass
    over.set()


def _end_group(server: subprocess.Popen[bytes], grace: float) -> None:
    """Ask everything the server has started to end, and make it end."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        if not _signal_group(server.pid, number):
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            _reap(server)
            if not _signal_group(server.pid, 0):
                return
            time.sleep(0.05)


def _signal_group(group: int, number: int) -> bool:
    """Whether there was still anybody in the group."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _reap(server: subprocess.Popen[bytes]) -> None:
    server.poll()
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _end_with_this_process() -> None:
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)  # where even this process is killed


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        call: Callable[..., int] = ctypes.CDLL(None).prctl
        call(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
