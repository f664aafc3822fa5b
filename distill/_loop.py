"""The event loop that all HTTP calls share, in a thread of its own."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

R = TypeVar("R")

_lock = threading.Lock()
_thread: threading.Thread | None = None
_loop: asyncio.AbstractEventLoop | None = None


def on_the_loop(work: Coroutine[Any, Any, R]) -> Future[R]:
    """Run `work` on the shared event loop, in a thread of its own.

    Threads and other loops share it, so that they share a pace and a pool of connections. A request on it can be
    cancelled while the server is silent, which isn't possible for a blocking read.
    """
    global _thread, _loop
    with _lock:
        # A forked process has a copy of the loop, but not the thread.
        if _loop is None or _thread is None or not _thread.is_alive():
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_loop.run_forever, name="divcon-http", daemon=True)
            _thread.start()
        return asyncio.run_coroutine_threadsafe(work, _loop)


@atexit.register
def _end_the_loop() -> None:
    loop, thread = _loop, _thread
    if loop is None or thread is None or not thread.is_alive():
        return

    async def cancel_all() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    with suppress(TimeoutError):
        asyncio.run_coroutine_threadsafe(cancel_all(), loop).result(2.0)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(2.0)
