"""Served bases that don't fit into memory together: never two at once, and no call is cut off."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from divcon.distill.serving import OneAtATime

loaded: set[str] = set()
lock = threading.Lock()


class Base:
    """Loads with the first call, and notes what else is loaded."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0
        self.loads = 0

    def model_name(self, name: str) -> str:
        return self.name

    def complete(self, request: Any, rollout: int) -> str:
        with lock:
            self.loads += self.name not in loaded
            loaded.add(self.name)
            assert loaded == {self.name}
            self.calls += 1
        time.sleep(0.002)
        with lock:
            self.calls -= 1
            assert loaded == {self.name}
        return self.name

    async def acomplete(self, request: Any, rollout: int) -> str:
        return await asyncio.to_thread(self.complete, request, rollout)

    def close(self) -> None:
        with lock:
            assert not self.calls
            loaded.discard(self.name)


def test_one_is_closed_before_the_other_is_loaded_whoever_asks() -> None:
    turns, bases = OneAtATime(), [Base("one"), Base("two")]
    first, second = (turns.backend(base, base) for base in bases)  # type: ignore[arg-type]
    assert (first.turn == second.turn, first.turn) == (False, turns.backend(bases[0], bases[0]).turn)  # type: ignore[arg-type]
    with ThreadPoolExecutor(8) as pool:
        asked = [first, first, second, first, second, second] * 6
        said = list(pool.map(lambda backend: backend.complete(None, 0), asked))  # type: ignore[arg-type]
    assert said == ["one", "one", "two", "one", "two", "two"] * 6

    async def both() -> list[Any]:
        return await asyncio.gather(*(backend.acomplete(None, 0) for backend in asked[:12]))  # type: ignore[arg-type]

    assert asyncio.run(both()) == said[:12]
    turns.close()
    assert not loaded


def test_calls_to_what_is_loaded_change_nothing() -> None:
    turns, base = OneAtATime(), Base("one")
    backend = turns.backend(base, base)  # type: ignore[arg-type]
    for _ in range(5):
        backend.complete(None, 0)  # type: ignore[arg-type]
    assert base.loads == 1
    turns.close()
