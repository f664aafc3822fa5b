"""Stopping at the end of a step: after a first Ctrl-C nothing new is begun, and what is under way is finished and kept.

Where nobody asks for it, Ctrl-C raises KeyboardInterrupt at once, as Python does.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType


class _Stopping:
    """What Ctrl-C does.

    Args:
        tell: Called at the first Ctrl-C during a step.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self.asked = False
        self._tell = tell
        self._steps: list[Callable[[], None]] = []

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Handle Ctrl-C: the first one during a step waits for its end, any other one interrupts."""
        if self.asked or not self._steps:
            raise KeyboardInterrupt
        self.asked = True
        self._tell()
        for stop in self._steps:
            stop()

    @contextlib.contextmanager
    def step(self, stop: Callable[[], None]) -> Iterator[None]:
        self._steps.append(stop)
        try:
            yield
        finally:
            self._steps.remove(stop)


_current: _Stopping | None = None


@contextlib.contextmanager
def stopping_after_steps(tell: Callable[[], None]) -> Iterator[None]:
    """Inside, the first Ctrl-C lets the step under way end, and then raises KeyboardInterrupt; the second doesn't wait.

    Outside of a step, and outside of the main thread, Ctrl-C does what it did.

    Args:
        tell: Called at the first Ctrl-C during a step, at once.
    """
    global _current
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopping = _Stopping(tell)
    before, before_handler = _current, signal.signal(signal.SIGINT, stopping.interrupt)
    _current = stopping
    try:
        yield
    finally:
        _current = before
        signal.signal(signal.SIGINT, before_handler)


@contextlib.contextmanager
def step(stop: Callable[[], None] = lambda: None) -> Iterator[Callable[[], bool]]:
    """A step that Ctrl-C lets end.

    Args:
        stop: Called at the first Ctrl-C, to end the step soon.

    Yields:
        A function that tells whether the step should end.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed during an earlier step.
    """
    stopping = _current
    if stopping is None:
        yield lambda: False
        return
    if stopping.asked:
        raise KeyboardInterrupt
    with stopping.step(stop):
        yield lambda: stopping.asked
