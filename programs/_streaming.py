"""Streaming: a listener for `dspy.streamify` that shows fields of replies as they grow.

DSPy's own listener knows three adapters, and uses the host's adapter instead of the predictor's. It reads all replies
into one state, so it shows the first call of a streamed program alone, and mixes up calls that run at the same time.
Here each reply is read on its own, where it is sent: the caller of the program gets text instead of chunks.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import anyio
import dspy
from dspy.streaming import StreamListener, StreamResponse

from divcon.programs._adapter import CompactAdapter

# DSPy's listener looks for a field's marks in pieces of about a token, and shows nothing of a reply in one piece.
_PIECE = 4  # characters


class FieldListener(StreamListener):
    """Streams one field of a role's replies, with the role's own adapter.

    Every call of the streamed program streams its own text, also where calls run at the same time. Of a plain
    predictor, only the first call is streamed, as by DSPy's own listener.

    Args:
        signature_field_name: The field: `subquestions`, `sub_answers`, `answer`.
        predict: The predictor. If it is None, it is found by the field's name.
        predict_name: The predictor's name in the chunks.
        allow_reuse: Stream every call of a predictor that the program calls several times, instead of the first alone.
            Calls that are made together are shown one after the other.
    """

    def __init__(
        self,
        signature_field_name: str,
        predict: Any = None,
        predict_name: str | None = None,
        allow_reuse: bool = False,
    ) -> None:
        super().__init__(signature_field_name, predict, predict_name, allow_reuse)
        self._turns: WeakKeyDictionary[Any, _Turns] = WeakKeyDictionary()  # by the stream of a run of the program

    def receive(self, chunk: Any) -> StreamResponse | None:
        """DSPy's hook: one piece of a reply. A role's replies have been shown where they were sent."""
        return None if self._turns else super().receive(chunk)

    def turns(self, stream: Any) -> _Turns:
        """The replies that are shown in one run of the program.

        Args:
            stream: Where the run sends what its caller gets.
        """
        return self._turns.setdefault(stream, _Turns())


@contextmanager
def shown_by_field(predict: dspy.Predict, adapter: dspy.Adapter) -> Iterator[None]:
    """Show the replies to a predictor's calls inside the block by the field, where `FieldListener`s listen to it.

    Args:
        predict: The predictor.
        adapter: What reads its replies.
    """
    stream = dspy.settings.send_stream
    listeners = [one for one in dspy.settings.stream_listeners or () if one.predict is predict]
    by_field = [one for one in listeners if isinstance(one, FieldListener)]
    if stream is None or not by_field:
        yield
        return
    turns = {listener: listener.turns(stream) for listener in by_field}
    shown = _Shown(stream, predict, adapter, turns, passes=len(by_field) < len(listeners))
    with dspy.context(send_stream=shown):
        try:
            yield
        finally:
            shown.close()


class _Shown:
    """The stream of one call of a predictor, which turns chunks of replies into text of fields.

    Args:
        stream: The stream of the run.
        predict: The predictor.
        adapter: What reads its replies.
        turns: The listeners, and the replies that each shows in the run.
        passes: Whether the chunks are passed on too, to listeners of DSPy's own.
    """

    def __init__(
        self,
        stream: Any,
        predict: dspy.Predict,
        adapter: dspy.Adapter,
        turns: Mapping[FieldListener, _Turns],
        passes: bool,
    ) -> None:
        self._stream = stream
        self._predict = predict
        self._adapter = adapter
        self._turns = turns
        self._passes = passes
        self._replies: dict[FieldListener, _Reply] = {}

    async def send(self, item: Any) -> None:
        """DSPy's hook: a chunk of a reply, or something else that the run's caller gets as it is."""
        own = getattr(item, "predict_id", None) == id(self._predict)
        if self._passes or not own:
            await self._stream.send(item)
        if own and item.choices:
            for listener, turns in self._turns.items():
                await self._show(listener, turns, item)

    def close(self) -> None:
        """Let other replies be shown, where the last one has broken off."""
        for reply in self._replies.values():
            reply.ended = True

    async def _show(self, listener: FieldListener, turns: _Turns, chunk: Any) -> None:
        reply = self._replies.get(listener)
        if reply is None or reply.ended:
            if not chunk.choices[0].delta.content or (turns.begun and not listener.allow_reuse):
                return
            reply = self._replies[listener] = turns.begin(_Reply(listener, self._adapter))
        reply.add(chunk)
        async with turns.sending:
            for shown in turns.due():
                listener.stream_start = True  # else DSPy sends the prediction to callers who don't want it
                await self._stream.send(shown)


class _Turns:
    """The replies that one listener shows in one run, one after the other.

    Attributes:
        begun: Whether there was one.
        sending: Held by whoever sends what is due.
    """

    def __init__(self) -> None:
        self.begun = False
        self.sending = anyio.Lock()
        self._replies: deque[_Reply] = deque()

    def begin(self, reply: _Reply) -> _Reply:
        self.begun = True
        self._replies.append(reply)
        return reply

    def due(self) -> Iterator[StreamResponse]:
        """What can be shown now: the text of the first reply, and of the next where the first has ended."""
        while self._replies:
            first = self._replies[0]
            while first.unsent:
                yield first.unsent.popleft()
            if not first.ended:
                return
            self._replies.popleft()


class _Reply:
    """One field of one reply, as it grows.

    Args:
        listener: Names the field.
        adapter: What reads it.

    Attributes:
        unsent: What wasn't shown yet.
        ended: Whether the reply has ended.
    """

    def __init__(self, listener: FieldListener, adapter: dspy.Adapter) -> None:
        self.unsent: deque[StreamResponse] = deque()
        self.ended = False
        self._field, self._name = listener.signature_field_name, listener.predict_name
        self._adapter = adapter
        self._signature = listener.predict.signature
        self._theirs = StreamListener(self._field, listener.predict, self._name)
        self._text = ""
        self._read = 0  # characters of the field
        self._begun = self._complete = False

    def add(self, chunk: Any) -> None:
        """Read one chunk."""
        ended = chunk.choices[0].finish_reason is not None
        if not self._complete:
            if isinstance(self._adapter, CompactAdapter):
                self._add_labelled(self._adapter, chunk.choices[0].delta.content or "", ended)
            else:
                self._add_marked(chunk, ended)
        if ended and self._begun and not self._complete:
            self._put("", last=True)
        self.ended = ended

    def _add_labelled(self, adapter: CompactAdapter, text: str, ended: bool) -> None:
        self._text += text
        value, complete = adapter.partial(self._signature, self._text, self._field, ended)
        fresh, self._read = value[self._read :], len(value)
        if fresh or (value and complete):
            self._put(fresh, complete or ended)

    def _add_marked(self, chunk: Any, ended: bool) -> None:
        with dspy.context(adapter=self._adapter):
            for piece in _pieces(chunk):
                if shown := self._theirs.receive(piece):
                    self._put(shown.chunk, shown.is_last_chunk)
            if ended and (shown := self._theirs.finalize()):
                self._put(shown.chunk, last=True)

    def _put(self, text: Any, last: bool) -> None:
        self._begun, self._complete = True, last
        self.unsent.append(StreamResponse(self._name, self._field, text, is_last_chunk=last))


def _pieces(chunk: Any) -> Iterator[Any]:
    """The chunk in pieces that DSPy's listener can read."""
    text = chunk.choices[0].delta.content or ""
    if len(text) <= _PIECE:
        yield chunk
        return
    for at in range(0, len(text), _PIECE):
        piece = copy.deepcopy(chunk)
        piece.choices[0].delta.content = text[at : at + _PIECE]
        yield piece
