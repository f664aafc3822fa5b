"""Ctrl-C during a step, as a command line has it: the step ends, and nothing new begins."""

import signal
import threading
from collections.abc import Iterator

import pytest

from divcon.distill import overlapped, stopping_after_steps
from divcon.distill.training._isolation import in_own_thread


def press_ctrl_c() -> None:
    """Send the signal to the main thread, as the kernel does."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Ctrl-C is heard, though a shell that starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_jobs_under_way_are_finished_and_no_other_begins() -> None:
    begun, told = [], []

    def work(number: int) -> int:
        begun.append(number)
        if number == 1:
            press_ctrl_c()
        return number

    kept = []
    with pytest.raises(KeyboardInterrupt), stopping_after_steps(lambda: told.append(len(kept))):
        for job, result, _ in overlapped(work, range(100), 2):
            kept.append((job, result))
            if len(kept) == 10:
                press_ctrl_c()
                press_ctrl_c()
    assert len(told) == 1
    assert len(begun) == len(kept) < 10


def test_without_a_command_line_and_between_steps_it_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt), stopping_after_steps(lambda: None):
        press_ctrl_c()
    with pytest.raises(KeyboardInterrupt):
        for _ in overlapped(lambda job: job, range(100), 2):
            press_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_training_is_told_to_end_and_waited_for_and_nothing_follows() -> None:
    stop, ended = threading.Event(), []

    def train() -> None:
        press_ctrl_c()
        assert stop.wait(10)
        ended.append(True)

    def both() -> None:
        try:
            in_own_thread(train, stop)
        except KeyboardInterrupt:
            assert ended
        next(overlapped(lambda job: ended.append(job), range(3), 1))

    with pytest.raises(KeyboardInterrupt), stopping_after_steps(lambda: None):
        both()
    assert ended == [True]
