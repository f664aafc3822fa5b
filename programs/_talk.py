"""How a program of several calls is held, so that it is written once and runs both plainly and awaited.

A program is a generator: it yields what to ask next, all at once what doesn't wait for each other, and takes the
replies; what it returns is the prediction. A reply that can't be read comes in as the error where it was asked for.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from divcon.signatures import SubquestionsError

Ask = tuple[dspy.Predict, dict[str, Any]]
Talk = Generator[Sequence[Ask], Any, dspy.Prediction]

UNREADABLE = (AdapterParseError, SubquestionsError)


def hold(talk: Talk) -> dspy.Prediction:
    """Run a program; asks that are yielded together are asked in threads, each in a copy of this one's context."""
    try:
        asks = next(talk)
        while True:
            try:
                replies = _asked(asks)
            except UNREADABLE as error:
                asks = talk.throw(error)
            else:
                asks = talk.send(replies)
    except StopIteration as end:
        return end.value


async def ahold(talk: Talk) -> dspy.Prediction:
    """`hold`, awaited."""
    try:
        asks = next(talk)
        while True:
            try:
                replies = await _aasked(asks)
            except UNREADABLE as error:
                asks = talk.throw(error)
            else:
                asks = talk.send(replies)
    except StopIteration as end:
        return end.value


def _asked(asks: Sequence[Ask]) -> list[dspy.Prediction]:
    if len(asks) == 1:
        return [predictor(**inputs) for predictor, inputs in asks]
    with ThreadPoolExecutor(len(asks), thread_name_prefix="divcon-talk") as pool:
        running = [
            pool.submit(contextvars.copy_context().run, lambda p=predictor, i=inputs: p(**i))
            for predictor, inputs in asks
        ]
        return [future.result() for future in running]


async def _aasked(asks: Sequence[Ask]) -> list[dspy.Prediction]:
    if len(asks) == 1:
        return [await predictor.acall(**inputs) for predictor, inputs in asks]
    return list(await asyncio.gather(*(predictor.acall(**inputs) for predictor, inputs in asks)))


def given(context: str | None) -> str | None:
    """A passage, or None where it is blank."""
    return context if context and context.strip() else None
