"""What a role's engine asks of the embedded engine: a chat in, a reply out."""

from __future__ import annotations

import asyncio
import hashlib
import random
from typing import TYPE_CHECKING, Any

from dspy.lm15 import Message, Request, Response, TextPart, Usage
from dspy.utils.exceptions import ContextWindowExceededError, LMInvalidRequestError

from divcon.distill.serving.embedded._decoding import Ended, Job

if TYPE_CHECKING:
    from divcon.distill.serving.embedded._model import EmbeddedModel

_MAX_TOKENS = 256  # of a reply where the request gives no limit


class EmbeddedBackend:
    """Answers requests with an `EmbeddedModel`, by the base or one of its adapters."""

    def __init__(self, model: EmbeddedModel, adapter: str, thinks: bool = True) -> None:
        self.model = model
        self.adapter = adapter
        self.thinks = thinks

    def __deepcopy__(self, memo: dict[int, Any]) -> EmbeddedBackend:
        return self

    def complete(self, request: Request, rollout: int) -> Response:
        job = self._job(request, rollout)
        written, ended = self.model.submit(job).result()
        return self._response(job, written, ended, request)

    async def acomplete(self, request: Request, rollout: int) -> Response:
        job = await asyncio.to_thread(self._job, request, rollout)
        written, ended = await asyncio.wrap_future(self.model.submit(job))
        return self._response(job, written, ended, request)

    def _job(self, request: Request, rollout: int) -> Job:
        config = request.config
        ids = self.model.encode(_messages(request), self.thinks)
        limit = config.max_tokens or _MAX_TOKENS
        room = self.model.context_length - len(ids)
        if room < 1:
            raise ContextWindowExceededError(
                message=f"The prompt has {len(ids)} tokens, more than {self.model.base.id} can read. Shorten it.",
                model=request.model,
            )
        seed = hashlib.sha256(f"{config.seed}/{rollout}/{self.adapter}/{ids}".encode()).digest()
        return Job(
            ids=ids,
            adapter=self.adapter,
            max_tokens=min(limit, room),
            temperature=config.temperature or 0.0,
            top_p=config.top_p if config.top_p is not None else 1.0,
            stop=config.stop,
            rng=random.Random(seed),
        )

    def _response(self, job: Job, written: list[int], ended: Ended, request: Request) -> Response:
        text = self.model.tokenizer.decode(written, skip_special_tokens=True)
        for stop in job.stop:
            text = text.partition(stop)[0]
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant([TextPart(text)]),
            finish_reason="length" if ended == "length" else "stop",
            usage=Usage(input_tokens=len(job.ids), output_tokens=len(written) + (ended == "token")),
        )


def _messages(request: Request) -> list[dict[str, str]]:
    messages = []
    if request.system is not None:
        system = request.system
        text = system if isinstance(system, str) else "".join(part.text for part in system)
        messages.append({"role": "system", "content": text})
    for message in request.messages:
        if message.text is None:
            raise LMInvalidRequestError("The embedded engine reads text only.", model=request.model)
        messages.append({"role": message.role, "content": message.text})
    return messages
