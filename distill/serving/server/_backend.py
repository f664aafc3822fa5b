"""What a role's engine asks of a server that may die and come again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import dspy
from dspy.lm15 import Request, Response
from dspy.utils.exceptions import LMError

from divcon.distill.serving.server._current import CurrentServer

_LOOKING = ThreadPoolExecutor(256, thread_name_prefix="divcon-looking")


class ServerBackend:
    """Answers requests with the server that runs, by the base or one of its adapters.

    A call that a dying server cut off is asked again of its successor.

    Args:
        current: The server that runs.
        adapter: By its served name; empty for the base.
        added: Extensions of every request.
        engine: The client of the `dspy.LM` behind it: `auto` or `litellm`.
    """

    def __init__(self, current: CurrentServer, adapter: str, added: Mapping[str, Any], engine: str) -> None:
        self._current = current
        self.adapter = adapter
        self.added = added
        self.engine = engine

    def __deepcopy__(self, memo: dict[int, Any]) -> ServerBackend:
        return self

    def complete(self, request: Request, rollout: int) -> Response:
        request = self._current.as_text(request)
        attempt = 0
        while True:
            with self._current.serving(self.adapter) as server:
                began = time.monotonic()
                asker = self._current.asker(self.adapter, server, self.engine)
                try:
                    return asker.complete(self._asked(request, asker.lm), rollout)
                except LMError as error:
                    if not self._current.has_failed(server, error, attempt, began):
                        raise
            attempt += 1

    async def acomplete(self, request: Request, rollout: int) -> Response:
        request = await asyncio.to_thread(self._current.as_text, request)  # the first call loads the tokenizer
        attempt = 0
        while True:
            async with self._current.aserving(self.adapter) as server:
                began = time.monotonic()
                asker = self._current.asker(self.adapter, server, self.engine)
                try:
                    return await asker.acomplete(self._asked(request, asker.lm), rollout)
                except LMError as error:
                    loop = asyncio.get_running_loop()
                    if not await loop.run_in_executor(
                        _LOOKING, self._current.has_failed, server, error, attempt, began
                    ):
                        raise
            attempt += 1

    def _asked(self, request: Request, lm: dspy.LM) -> Request:
        config = request.config
        if self.added:
            config = replace(config, extensions={**(config.extensions or {}), **self.added})
        return replace(request, model=lm.model, config=config)
