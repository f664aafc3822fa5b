"""The hold on a run folder: one process at a time works on it.

Without it, two processes ask for the same replies, and both are paid for. Reading needs no hold: SQLite serves readers,
and also the few replies that `divcon ask` stores, beside the process that works.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from divcon.distill._database import unwritable
from divcon.distill._files import has_ended, remove_unfinished, write_whole
from divcon.signatures import DivconError

_LOCK = "run.lock"
_HOLDER = "run.holder.json"
_LOOKS, _LOOK = 10, 0.1  # how often, and seconds between
_noting = threading.Lock()


class FolderBusy(DivconError):
    """Another process works on the run folder."""


class Holder(BaseModel):
    """The process that works on a run folder.

    Attributes:
        pid: Its process id.
        host: The machine it runs on.
        command: Its command line.
        since: When it began, by the machine's clock, in ISO 8601.
    """

    pid: int
    host: str
    command: str
    since: str

    @classmethod
    def of_this_process(cls) -> Holder:
        program, *arguments = sys.argv or [""]
        now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        command = shlex.join([Path(program).name, *arguments])
        return cls(pid=os.getpid(), host=socket.gethostname(), command=command, since=now)

    def ended(self) -> bool:
        """Whether it was a process of this machine that is gone."""
        return self.host == socket.gethostname() and has_ended(self.pid)


class Hold:
    """The hold of this process on a run folder. Several holds of one process on one folder are one.

    The operating system takes it back when the process ends, however it ends. What a killed process has left half
    written in the folder is removed.

    Args:
        folder: The run folder; made if it isn't there.
        waiting: Waits for another process, and is called once with who that is. None doesn't wait.

    Raises:
        FolderBusy: Another process works on the folder.
        StoreError: The folder can't be made or written.
    """

    def __init__(self, folder: Path, waiting: Callable[[str], None] | None = None) -> None:
        self._folder = folder.absolute()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # One object a process and folder, which counts its holds.
            self._lock = FileLock(folder.resolve() / _LOCK, thread_local=False, is_singleton=True)
            try:
                self._lock.acquire(timeout=0)
            except Timeout as error:
                if waiting is None:
                    raise FolderBusy(
                        f"{folder} is in use by {holder_of(folder)}.",
                        "Wait for it, run the command with --wait, or choose another folder with --run.",
                    ) from error
                waiting(holder_of(folder))
                self._lock.acquire(timeout=-1)
        except OSError as error:
            raise unwritable(folder, error) from error
        with _noting:
            if self._lock.lock_counter == 1:
                remove_unfinished(self._folder)
                write_whole(self._folder / _HOLDER, Holder.of_this_process().model_dump_json() + "\n")

    def release(self) -> None:
        """Let another process work on the folder, once the last hold of this process is released."""
        with _noting:
            if self._lock.lock_counter == 1:
                (self._folder / _HOLDER).unlink(missing_ok=True)
            self._lock.release()


def holder_of(folder: Path) -> str:
    """Who works on a run folder, in words. A note that a killed process left behind isn't believed."""
    for _ in range(_LOOKS):
        try:
            holder = Holder.model_validate_json((folder / _HOLDER).read_bytes())
        except (OSError, ValidationError):
            holder = None
        if holder is not None and not holder.ended():
            return f"process {holder.pid} on {holder.host} ('{holder.command}'), since {holder.since}"
        time.sleep(_LOOK)  # who has just begun hasn't written its note yet
    return "another process"
