"""Streaming: a listener for `dspy.streamify` that reads the pinned adapter's reply as it grows.

DSPy's own listener knows three adapters, and uses the host's adapter instead of the predictor's.
"""

from __future__ import annotations

from typing import Any

import dspy
from dspy.streaming import StreamListener, StreamResponse

from divcon.programs._adapter import CompactAdapter
from divcon.programs._roles import RolePredict


class FieldListener(StreamListener):
    """Streams one field of a role's replies, with whatever adapter the role has pinned.

    Args:
        signature_field_name: The field: `subquestions`, `sub_answers`, `answer`.
        predict: The predictor; found by the field's name when it is None.
        predict_name: What the chunks call it.
        allow_reuse: Stream every call of a predictor that is called several times, not the first alone.
    """

    def __init__(
        self,
        signature_field_name: str,
        predict: Any = None,
        predict_name: str | None = None,
        allow_reuse: bool = False,
    ) -> None:
        super().__init__(signature_field_name, predict, predict_name, allow_reuse)
        self.stream_start = self.stream_end = False
        self._text = ""
        self._sent = 0

    def receive(self, chunk: Any) -> StreamResponse | None:
        """DSPy's hook: one piece of a reply, of which only the field's text comes out."""
        if not isinstance(self.predict, RolePredict):
            return super().receive(chunk)
        if not isinstance(self.predict.adapter, CompactAdapter):
            with dspy.context(adapter=self.predict.adapter):
                return super().receive(chunk)
        if self.stream_end:
            return None
        choice = chunk.choices[0]
        self._text += choice.delta.content or ""
        ended = choice.finish_reason is not None
        value, complete = self.predict.adapter.partial(self.predict.signature, self._text, self.signature_field_name)
        return self._emit(value, complete or ended, ended)

    def finalize(self) -> StreamResponse | None:
        """DSPy's hook: the text that is left when the program has ended."""
        if isinstance(self.predict, RolePredict) and isinstance(self.predict.adapter, CompactAdapter):
            return None  # `receive` has marked the last piece already
        adapter = getattr(self.predict, "adapter", None)
        with dspy.context(**({"adapter": adapter} if adapter else {})):
            return super().finalize()

    def _emit(self, value: str, complete: bool, ended: bool) -> StreamResponse | None:
        fresh = value[self._sent :]
        last = complete and not self.stream_end and (bool(value) or ended)
        self._sent = len(value)
        if fresh:
            self.stream_start = True
        if last:
            self.stream_end = True
        if ended and self.allow_reuse:
            self._text, self._sent, self.stream_end = "", 0, False
        if not fresh and not (last and self.stream_start):
            return None
        return StreamResponse(self.predict_name, self.signature_field_name, fresh, is_last_chunk=last)
