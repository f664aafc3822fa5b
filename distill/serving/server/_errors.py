"""What can go wrong with a model server."""

from __future__ import annotations

from divcon.signatures import FatalError


class ServerError(FatalError):
    """A model server that can't be started, reached or used."""


class ServerDied(ServerError):
    """The server's process has ended by itself.

    Attributes:
        port_taken: Whether it did because somebody else had its port.
    """

    port_taken = False


class ServerUnreachable(ServerError):
    """Nobody answers at a server's address."""


class KeyRefused(ServerError):
    """A server doesn't take the key it was given."""


class WrongAddress(ServerError):
    """A server answers at an address, but not there."""


class ProbeError(ServerError):
    """A server that doesn't serve what was trained."""
