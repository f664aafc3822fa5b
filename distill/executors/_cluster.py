"""The connection to a Ray cluster, which everything in this process shares."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from divcon.distill.executors._driver import WorkerLost
from divcon.signatures import FatalError


class RayError(FatalError):
    """Ray isn't installed, or there is no cluster."""


_lock = threading.Lock()
_users: set[object] = set()
_ours = False  # whether the connection was made here


def ray_package() -> Any:
    """The package `ray`.

    Raises:
        RayError: It isn't installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise RayError("The executor ray needs its package.", "pip install 'divcon[ray]'") from error
    return ray


def connected(user: object, address: str) -> Any:
    """The package `ray`, connected to a cluster until `user` and all other users have left.

    Args:
        user: Who uses it.
        address: See `Execution.address`. A connection that is there already is used whatever its address.

    Raises:
        RayError: There is no such cluster, or Ray isn't installed.
    """
    global _ours
    ray = ray_package()
    with _lock:
        if not ray.is_initialized():
            _users.clear()  # of a connection that somebody else has ended
            try:
                with _own_sigterm():
                    ray.init(
                        address=address,
                        namespace="divcon",
                        include_dashboard=False if address == "local" else None,
                        log_to_driver=False,
                        logging_level="ERROR",
                        **({"_node_ip_address": "127.0.0.1"} if address == "local" else {}),
                    )
            except Exception as error:  # a node that doesn't start in time is a bare Exception
                raise RayError(
                    f"There is no Ray cluster at run.address {address}: {error}.",
                    "Start one with 'ray start --head', or write address: local.",
                ) from error
            _ours = True
        _users.add(user)
    return ray


def left(user: object) -> None:
    """Say that a user is done. After the last one, a connection that was made here ends, with a cluster of its own."""
    global _ours
    with _lock:
        if user not in _users:
            return
        _users.discard(user)
        if not _users and _ours:
            _ours = False
            ray_package().shutdown()


def kill(actors: Iterable[Any]) -> None:
    """End actors that the cluster of this connection has."""
    ray = ray_package()
    for actor in actors:
        if ray.is_initialized():
            with contextlib.suppress(ray.exceptions.ActorHandleNotFoundError):  # of a connection that has ended
                ray.kill(actor)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep the handler of SIGTERM. Ray's own ends the process at once, and what is being paid for is lost."""
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread() or handler is None:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def messages_of(stream: Any) -> Iterator[tuple[str, str]]:
    """Yield the messages of a worker as they come.

    Args:
        stream: What Ray returned for the call.

    Raises:
        WorkerLost: The worker ended before the job was done.
    """
    ray = ray_package()
    lost = (
        ray.exceptions.RayActorError,
        ray.exceptions.WorkerCrashedError,
        ray.exceptions.NodeDiedError,
        ray.exceptions.ObjectLostError,
        ray.exceptions.OutOfMemoryError,
        ray.exceptions.LocalRayletDiedError,
    )
    try:
        for message in stream:
            yield ray.get(message)
    except lost as error:
        raise WorkerLost from error
