"""Whose turn it is, without any server: what is shared is a name, and a change takes as long as a test wants."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from divcon.distill.serving._turn import Turnstile


class Named:
    """Is under one name at a time; the part after a dot is loaded beside it (`a.x` and `a.y` are both under `a`).

    Attributes:
        changes: The targets that something was changed for, in order.
        hold: Kept set but where a test wants changes to wait.
        fails: Targets whose change fails, and how often.
        final: Whether a failure is remembered.
    """

    def __init__(self) -> None:
        self.now: str | None = None
        self.loaded: set[str] = set()
        self.changes: list[str] = []
        self.begun = threading.Event()
        self.hold = threading.Event()
        self.hold.set()
        self.fails: dict[str, int] = {}
        self.final = True
        self.failed: set[str] = set()
        self.closings = 0
        self.turnstile: Turnstile[str] = Turnstile(self)

    def there(self, target: str) -> str | None:
        return target if target in self.loaded else None

    def disturbs(self, target: str) -> bool:
        return self.now != target.partition(".")[0]

    def refused(self, target: str) -> Exception | None:
        return ValueError(f"{target} failed before") if target in self.failed else None

    def change(self, target: str) -> str:
        closings = self.closings
        self.changes.append(target)
        self.begun.set()
        assert self.hold.wait(10)
        with self.turnstile.lock:
            if self.closings > closings:
                raise ValueError("closed")
            if self.fails.get(target, 0):
                self.fails[target] -= 1
                self.failed |= {target} if self.final else set()
                raise ValueError(f"{target} fails")
            if self.disturbs(target):
                assert self.turnstile.calls == 0
                self.now, self.loaded = target.partition(".")[0], set()
            self.loaded.add(target)
        return target

    def close(self) -> None:
        with self.turnstile.lock:
            self.now, self.loaded = None, set()
            self.closings += 1


@pytest.fixture
def shared() -> Named:
    return Named()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(64) as made:
        yield made


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def used(shared: Named, target: str, seconds: float = 0.0) -> str:
    with shared.turnstile.using(target) as found:
        assert found in shared.loaded
        time.sleep(seconds)
        return found


def test_calls_to_the_same_go_in_together(shared: Named, pool: ThreadPoolExecutor) -> None:
    all_in = threading.Barrier(20)

    def call(_: int) -> None:
        with shared.turnstile.using("a"):
            all_in.wait(10)

    list(pool.map(call, range(20)))
    assert shared.changes == ["a"]
    assert shared.turnstile.calls == 0


def test_new_calls_dont_starve_one_who_needs_something_else(shared: Named, pool: ThreadPoolExecutor) -> None:
    over = threading.Event()
    calls = 0

    def keep_calling() -> None:
        nonlocal calls
        while not over.is_set():
            used(shared, "a", 0.01)
            calls += 1

    callers = [pool.submit(keep_calling) for _ in range(8)]
    until(lambda: calls > 16)
    before = calls
    with shared.turnstile.using("b"):
        during = calls - before
        over.set()
    for caller in callers:
        caller.result(10)
    assert during <= 24  # those under way, and a few that came in before it stood in the queue


def test_who_waits_for_something_else_is_served_in_order(shared: Named, pool: ThreadPoolExecutor) -> None:
    waiting: list[Future[str]] = []
    with shared.turnstile.using("a"):
        for target in ("b", "c", "a", "b", "d"):
            waiting.append(pool.submit(used, shared, target, 0.01))
            until(lambda: len(shared.turnstile._waiting) == len(waiting))
        assert shared.changes == ["a"]
    assert [one.result(10) for one in waiting] == ["b", "c", "a", "b", "d"]
    assert shared.changes == ["a", "b", "c", "a", "d"]  # both who waited for b had one change


def test_a_change_that_disturbs_nobody_waits_for_nobody(shared: Named, pool: ThreadPoolExecutor) -> None:
    with shared.turnstile.using("a"):
        assert pool.submit(used, shared, "a.x").result(10) == "a.x"
        assert pool.submit(used, shared, "a").result(10) == "a"
    assert shared.changes == ["a", "a.x"]


def test_who_waited_for_a_change_that_failed_gets_the_error(shared: Named, pool: ThreadPoolExecutor) -> None:
    shared.fails["a"] = 1
    shared.hold.clear()
    waiting = [pool.submit(used, shared, "a") for _ in range(8)]
    until(lambda: len(shared.turnstile._waiting) == 7)
    shared.hold.set()
    errors = [str(one.exception(10)) for one in waiting]
    assert sorted(errors) == [*["a failed before"] * 7, "a fails"]
    assert shared.changes == ["a"]
    assert used(shared, "b") == "b"


def test_where_a_failure_isnt_final_the_next_tries_again(shared: Named, pool: ThreadPoolExecutor) -> None:
    shared.fails["a"], shared.final = 2, False
    shared.hold.clear()
    waiting = [pool.submit(used, shared, "a") for _ in range(8)]
    until(lambda: len(shared.turnstile._waiting) == 7)
    shared.hold.set()
    assert sorted(str(one.exception(10)) for one in waiting) == [*["None"] * 6, "a fails", "a fails"]
    assert shared.changes == ["a"] * 3
    assert shared.turnstile.calls == 0


def test_a_failed_change_keeps_nobody_from_what_is_there(shared: Named, pool: ThreadPoolExecutor) -> None:
    used(shared, "a")
    shared.fails["a.x"] = 1
    shared.begun.clear()
    shared.hold.clear()
    loading = pool.submit(used, shared, "a.x")
    until(shared.begun.is_set)
    others = [pool.submit(used, shared, "a") for _ in range(4)]
    shared.hold.set()
    assert [one.result(10) for one in others] == ["a"] * 4
    assert isinstance(loading.exception(10), ValueError)


def test_what_is_closed_during_a_change_is_changed_again_for_those_who_waited(
    shared: Named, pool: ThreadPoolExecutor
) -> None:
    shared.hold.clear()
    waiting = [pool.submit(used, shared, "a") for _ in range(4)]
    until(lambda: len(shared.turnstile._waiting) == 3)
    shared.close()
    shared.hold.set()
    assert sorted(str(one.exception(10)) for one in waiting) == ["None", "None", "None", "closed"]
    assert shared.changes == ["a", "a"]


def test_what_is_closed_under_a_call_is_changed_for_the_next_once_that_has_ended(
    shared: Named, pool: ThreadPoolExecutor
) -> None:
    with shared.turnstile.using("a"):
        shared.close()
        following = pool.submit(used, shared, "a")
        until(lambda: shared.turnstile._waiting)
        assert shared.changes == ["a"]
    assert following.result(10) == "a"
    assert shared.changes == ["a", "a"]


async def awaited(shared: Named, target: str) -> str:
    async with shared.turnstile.ausing(target) as found:
        await asyncio.sleep(0.005)
        return found


def test_awaiting_callers_share_changes_and_hold_no_thread(shared: Named) -> None:
    async def main() -> list[str]:
        shared.hold.clear()
        callers = [asyncio.create_task(awaited(shared, "ab"[i % 2])) for i in range(600)]
        while len(shared.turnstile._waiting) < 599:
            await asyncio.sleep(0.005)
        shared.hold.set()
        return await asyncio.gather(*callers)

    assert asyncio.run(main()) == ["a", "b"] * 300
    assert shared.changes == ["a", "b"]
    assert shared.turnstile.calls == 0


def test_a_waiting_caller_that_is_cancelled_holds_up_nobody(shared: Named) -> None:
    async def main() -> None:
        async with shared.turnstile.ausing("a"):
            waiting = asyncio.create_task(awaited(shared, "b"))
            behind = asyncio.create_task(awaited(shared, "a"))
            await asyncio.sleep(0.02)
            assert len(shared.turnstile._waiting) == 2
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await behind == "a"  # nobody wants a change any more

    asyncio.run(main())
    assert shared.changes == ["a"]
    assert (shared.turnstile.calls, len(shared.turnstile._waiting)) == (0, 0)


def test_a_caller_cancelled_while_it_has_a_change_made_leaves_it_to_the_others(shared: Named) -> None:
    async def main() -> None:
        shared.hold.clear()
        first, second = (asyncio.create_task(awaited(shared, "a")) for _ in range(2))
        while not shared.begun.is_set():
            await asyncio.sleep(0.005)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        shared.hold.set()
        assert await second == "a"

    asyncio.run(main())
    assert shared.changes == ["a"]
    until(lambda: shared.turnstile.calls == 0)


def test_a_loop_that_ends_during_a_change_leaves_nobody_in(shared: Named) -> None:
    async def main() -> None:
        shared.hold.clear()
        asyncio.create_task(awaited(shared, "a"))  # noqa: RUF006 - cancelled with the loop
        while not shared.begun.is_set():
            await asyncio.sleep(0.005)

    asyncio.run(main())
    shared.hold.set()
    assert used(shared, "b") == "b"
    assert shared.turnstile.calls == 0


def test_an_answer_that_a_cancelled_caller_never_heard_is_taken_back(shared: Named) -> None:
    async def main() -> None:
        async with shared.turnstile.ausing("a"):
            entering = [asyncio.create_task(awaited(shared, "b")) for _ in range(2)]
            await asyncio.sleep(0.02)
        for one in entering:  # the first was told to make the change; the loop hasn't come to it
            one.cancel()
        for one in entering:
            with contextlib.suppress(asyncio.CancelledError):
                await one
        assert await awaited(shared, "c") == "c"

    asyncio.run(main())
    until(lambda: shared.turnstile.calls == 0)
    assert used(shared, "d") == "d"
