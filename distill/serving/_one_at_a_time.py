"""One at a time: served bases that don't fit into memory together, each closed before another is loaded or started.

Calls to the base that is loaded go in together; a call to another waits until they have ended (see `Turnstile`).
"""

from __future__ import annotations

from typing import Any

from dspy.lm15 import Request, Response

from divcon.distill._engine import Backend
from divcon.distill.serving._engine import ServedBase
from divcon.distill.serving._turn import Turnstile


def turn_name(served: ServedBase) -> str:
    """What a served base's turns are called; no two bases share a name."""
    return f"{served.model_name('')} {id(served):x}"


class OneAtATime:
    """Keeps one of several served bases loaded, that which was called last."""

    def __init__(self) -> None:
        self._bases: dict[str, ServedBase] = {}
        self._loaded: str | None = None
        self._turnstile: Turnstile[str] = Turnstile(self)

    def backend(self, served: ServedBase, backend: Backend) -> TurnBackend:
        """A backend of a served base, whose calls wait until that base may be loaded."""
        name = turn_name(served)
        self._bases[name] = served
        return TurnBackend(self._turnstile, name, backend)

    def close(self) -> None:
        """Close the base that is loaded, when no call is under way."""
        with self._turnstile.lock:
            loaded, self._loaded = self._loaded, None
        if loaded is not None:
            self._bases[loaded].close()

    # -- what the turnstile asks; see `Shared` -----------------------------------------------------------------------

    def there(self, target: str) -> str | None:
        """Its name, where it is the one that is loaded."""
        return target if target == self._loaded else None

    def disturbs(self, target: str) -> bool:
        """Whether another one is loaded."""
        return self._loaded is not None and self._loaded != target

    def refused(self, target: str) -> Exception | None:
        """Nothing is refused."""
        return None

    def change(self, target: str) -> str:
        """Close the one that is loaded; the first call loads the other."""
        self.close()
        with self._turnstile.lock:
            self._loaded = target
        return target


class TurnBackend:
    """A backend whose calls wait for their turn.

    Args:
        turnstile: Lets them in.
        turn: What has to be loaded for them.
        inner: Answers them.
    """

    def __init__(self, turnstile: Turnstile[str], turn: str, inner: Backend) -> None:
        self._turnstile = turnstile
        self.turn = turn
        self.inner = inner

    def __deepcopy__(self, memo: dict[int, Any]) -> TurnBackend:
        return self

    def complete(self, request: Request, rollout: int) -> Response:
        with self._turnstile.using(self.turn):
            return self.inner.complete(request, rollout)

    async def acomplete(self, request: Request, rollout: int) -> Response:
        async with self._turnstile.ausing(self.turn):
            return await self.inner.acomplete(request, rollout)
