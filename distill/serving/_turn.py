"""Whose turn it is, where many use one thing at once and some need it changed.

Calls to what is there go in together. A caller who needs something else waits for the calls under way and no longer:
who comes after it waits behind it, first come, first served. A change serves all who wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

S = TypeVar("S")
S_co = TypeVar("S_co", covariant=True)

# Not an event loop's own threads: calls that wait for a change may hold all of them.
_CHANGES = ThreadPoolExecutor(16, thread_name_prefix="divcon-changing")


class Shared(Protocol[S_co]):
    """What is shared. All but `change` is called under the turnstile's lock; it must be quick and raise nothing."""

    def there(self, target: str) -> S_co | None:
        """What a call to `target` uses; None where something has to be changed first."""

    def disturbs(self, target: str) -> bool:
        """Whether the change that `target` needs would cut off the calls under way."""

    def refused(self, target: str) -> Exception | None:
        """Why the change for `target` isn't tried again, as an error to raise; None where it is."""

    def change(self, target: str) -> S_co:
        """Bring about what `target` needs. Called without the lock, by one caller at a time."""


@dataclass(eq=False)
class _Waiter(Generic[S]):
    """A caller in the queue.

    Attributes:
        answer: What the caller uses; None where it is the one to make the change.
    """

    target: str
    answer: Future[S | None] = field(default_factory=Future)

    def tell(self, answer: S | Exception | None) -> bool:
        """Answer the caller; False where it has given up."""
        if not self.answer.set_running_or_notify_cancel():
            return False
        if isinstance(answer, Exception):
            self.answer.set_exception(answer)
        else:
            self.answer.set_result(answer)
        return True


class Turnstile(Generic[S]):
    """Lets callers in to what they share, in a fair order.

    A caller that is in must not enter again: somebody who waits for a change would keep it out, and wait for it.

    Args:
        shared: What is shared.

    Attributes:
        lock: Guards what the methods of `shared` look at.
        calls: How many are in.
    """

    def __init__(self, shared: Shared[S]) -> None:
        self.lock = threading.Lock()
        self.calls = 0
        self._shared = shared
        self._changing = False
        self._waiting: deque[_Waiter[S]] = deque()

    @contextlib.contextmanager
    def using(self, target: str) -> Iterator[S]:
        """What a call to `target` uses, for the time of the call.

        Raises:
            Exception: What `refused` or `change` of the shared thing raised.
        """
        found = self._enter(target)
        try:
            yield found
        finally:
            self._leave()

    @contextlib.asynccontextmanager
    async def ausing(self, target: str) -> AsyncIterator[S]:
        """`using`, awaited."""
        found = await self._aenter(target)
        try:
            yield found
        finally:
            self._leave()

    def _enter(self, target: str) -> S:
        waiter = self._arrive(target)
        try:
            found = waiter.answer.result()
        except BaseException:
            self._give_up(waiter)
            raise
        return self._change(target) if found is None else found

    async def _aenter(self, target: str) -> S:
        waiter = self._arrive(target)
        try:
            found = waiter.answer.result() if waiter.answer.done() else await asyncio.wrap_future(waiter.answer)
        except BaseException:
            self._give_up(waiter)
            raise
        if found is not None:
            return found
        changing = _CHANGES.submit(self._change, target)
        try:
            return await asyncio.shield(asyncio.wrap_future(changing))
        except asyncio.CancelledError:
            changing.add_done_callback(self._leave_after)  # the change goes on: others may wait for it
            raise

    def _arrive(self, target: str) -> _Waiter[S]:
        waiter: _Waiter[S] = _Waiter(target)
        with self.lock:
            self._waiting.append(waiter)
            self._admit()
        return waiter

    def _give_up(self, waiter: _Waiter[S]) -> None:
        """Take back what a caller was given who was interrupted before it heard of it."""
        with self.lock:
            if waiter.answer.cancel():
                if waiter in self._waiting:
                    self._waiting.remove(waiter)
            elif waiter.answer.exception() is None:
                if waiter.answer.result() is None:
                    self._changing = False
                else:
                    self.calls -= 1
            self._admit()

    def _admit(self) -> None:
        """Answer those at the head of the queue, up to the first who has to go on waiting."""
        while self._waiting and not self._changing:
            head = self._waiting[0]
            if not self._settle(head):
                if self.calls and self._shared.disturbs(head.target):
                    return
                self._changing = head.tell(None)
            self._waiting.popleft()

    def _settle(self, waiter: _Waiter[S]) -> bool:
        """Answer a caller for whom nothing has to be changed, or nothing will be; False for another."""
        if (found := self._shared.there(waiter.target)) is not None:
            self.calls += waiter.tell(found)
        elif (error := self._shared.refused(waiter.target)) is not None:
            waiter.tell(error)
        else:
            return False
        return True

    def _change(self, target: str) -> S:
        made: S | None = None
        try:
            made = self._shared.change(target)
        finally:
            with self.lock:
                self._changing = False
                self.calls += made is not None
                # It serves all who wait for it, wherever they stand in the queue.
                self._waiting = deque(waiter for waiter in self._waiting if not self._settle(waiter))
                self._admit()
        return made

    def _leave(self) -> None:
        with self.lock:
            self.calls -= 1
            self._admit()

    def _leave_after(self, changed: Future[S]) -> None:
        if changed.exception() is None:
            self._leave()
