"""Processes that a test starts and ends."""

import signal


def heed_ctrl_c() -> None:
    """For `preexec_fn`: take Ctrl-C as a terminal's child does, also where the tests run in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
