"""A circuit breaker for each endpoint: a failing server is asked now and then, and given up in the end."""

from __future__ import annotations

import random
from collections.abc import Callable

from dspy.utils.exceptions import LMError, LMTransportError

from divcon.distill._trouble import GivenUpError, reason

_FAILURES = 5  # the circuit opens after so many failures without an answer between them
_FIRST_PAUSE = 1.0  # seconds until the first probe; each further pause is twice as long,
_LONGEST_PAUSE = 60.0  # but not longer than this
_NEVER_ANSWERED = 30.0  # seconds after which a server is given up that has never been reached


class Breaker:
    """Counts the failures of one endpoint, and opens the circuit after five without an answer between them.

    While it is open, calls wait, and one of them at a time is sent as a probe: after a second, then after pauses that
    double up to a minute. Any answer closes it. A server is given up some time after its first failure.

    Args:
        clock: Returns the time in seconds.

    Attributes:
        reached: Whether the endpoint has ever answered, if only with an error.
        last: The last failure; None after an answer.
        probe_at: When the next probe may be sent, on the clock.
        probing: Whether a probe is at the server.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.reached = False
        self.last: LMError | None = None
        self.probe_at = float("-inf")
        self.probing = False
        self._clock = clock
        self._failures = 0
        self._probes = 0
        self._since = 0.0

    @property
    def is_open(self) -> bool:
        """Whether calls have to wait."""
        return self._failures >= _FAILURES

    def answered(self) -> None:
        """Close the circuit, because the server has answered."""
        self.reached = True
        self.last = None
        self._failures = self._probes = 0
        self.probe_at = float("-inf")

    def failed(self, error: LMError, probe: bool = False) -> None:
        """Count a failure.

        Args:
            error: The failure.
            probe: Whether the request was a probe; the pause before the next one is twice as long then.
        """
        now = self._clock()
        self.reached = self.reached or not isinstance(error, LMTransportError)
        if self.last is None:
            self._since = now
        self.last = error
        was_open = self.is_open
        self._failures += 1
        if self.is_open and (probe or not was_open):
            pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** min(self._probes, 10))
            self.probe_at = now + pause * random.uniform(0.75, 1.0)
            self._probes += 1

    def ends(self, give_up: float) -> float:
        """When a call gives the server up, on the clock; infinite where the server hasn't failed.

        Args:
            give_up: Seconds after the first failure.
        """
        if self.last is None:
            return float("inf")
        return self._since + (give_up if self.reached else min(give_up, _NEVER_ANSWERED))

    def given_up(self, server: str) -> GivenUpError:
        """The error of a call that gives the server up.

        Args:
            server: Its address or name.
        """
        assert self.last is not None
        return GivenUpError(server, self.last, self._clock() - self._since)

    def why(self) -> str:
        """The last failure in a few words, as users read it."""
        return reason(self.last) if self.last is not None else ""
