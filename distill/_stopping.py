"""Stopping at the end of a step: after a first Ctrl-C nothing new is begun, and what is under way is finished and kept.

SIGTERM, with which schedulers and containers end a process, does the same as Ctrl-C. Where nobody asks for it, both do
at once what they do in Python.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Stopping:
    """What Ctrl-C and SIGTERM do.

    Args:
        tell: Called at the first signal during a step.

    Attributes:
        asked: Whether the step under way should end.
        signal: The first signal; SIGINT where there was none.
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self.asked = False
        self.signal = signal.SIGINT
        self._tell = tell
        self._steps: list[Callable[[], None]] = []

    def interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Handle a signal: the first one during a step waits for its end, any other one interrupts."""
        if not self.asked:
            self.signal = signal.Signals(signum)
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
def stopping_after_steps(tell: Callable[[], None]) -> Iterator[_Stopping]:
    """Inside, the first Ctrl-C lets the step under way end, and then raises KeyboardInterrupt; the second doesn't wait.

    SIGTERM counts as Ctrl-C. Outside of a step both interrupt at once, and outside of the main thread they do what they
    did.

    Args:
        tell: Called at the first signal during a step, at once.

    Yields:
        An object whose `signal` is the one that stopped the work, for the exit status.
    """
    global _current
    stopping = _Stopping(tell)
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before, handlers = _current, {one: signal.signal(one, stopping.interrupt) for one in _SIGNALS}
    _current = stopping
    try:
        yield stopping
    finally:
        _current = before
        for one, handler in handlers.items():
            signal.signal(one, handler)


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
