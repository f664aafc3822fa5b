"""Runs a multi-call program, sync or async.

A program is written once, as a generator. It yields the calls to make next, together where none needs another's reply,
and is sent their predictions; it returns the program's prediction. Where a reply can't be read, its error is raised at
the `yield`.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Awaitable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import dspy
from dspy.utils.exceptions import AdapterParseError

from divcon.signatures import SubquestionsError

Call = tuple[dspy.Predict, dict[str, Any]]
Calls = Generator[Sequence[Call], Any, dspy.Prediction]

UNREADABLE = (AdapterParseError, SubquestionsError)


def run_calls(program: Calls) -> dspy.Prediction:
    """Run a program; calls that are yielded together run in threads, each in a copy of this thread's context."""
    try:
        calls = next(program)
        while True:
            try:
                predictions = _made(calls)
            except UNREADABLE as error:
                calls = program.throw(error)
            else:
                calls = program.send(predictions)
    except StopIteration as end:
        return end.value


async def arun_calls(program: Calls) -> dspy.Prediction:
    """`run_calls`, awaited; calls that are yielded together are awaited together."""
    try:
        calls = next(program)
        while True:
            try:
                predictions = await _amade(calls)
            except UNREADABLE as error:
                calls = program.throw(error)
            else:
                calls = program.send(predictions)
    except StopIteration as end:
        return end.value


def _made(calls: Sequence[Call]) -> list[dspy.Prediction]:
    if len(calls) == 1:
        return [predictor(**inputs) for predictor, inputs in calls]
    if dspy.settings.send_stream is not None:
        return anyio.from_thread.run(_made_in_reach, calls)
    with ThreadPoolExecutor(len(calls), thread_name_prefix="divcon-calls") as pool:
        running = [
            pool.submit(contextvars.copy_context().run, lambda p=predictor, i=inputs: p(**i))
            for predictor, inputs in calls
        ]
        return [future.result() for future in running]


async def _made_in_reach(calls: Sequence[Call]) -> list[dspy.Prediction]:
    """The calls' predictions; each call runs in a thread from which DSPy reaches the event loop that it streams to."""
    limiter = anyio.CapacityLimiter(len(calls))
    return await _all_ended(
        anyio.to_thread.run_sync(functools.partial(predictor, **inputs), limiter=limiter) for predictor, inputs in calls
    )


async def _amade(calls: Sequence[Call]) -> list[dspy.Prediction]:
    if len(calls) == 1:
        return [await predictor.acall(**inputs) for predictor, inputs in calls]
    return await _all_ended(predictor.acall(**inputs) for predictor, inputs in calls)


async def _all_ended(running: Iterable[Awaitable[dspy.Prediction]]) -> list[dspy.Prediction]:
    """The predictions of calls that run together. Where one fails, the others end first: they are paid for."""
    predictions = []
    for made in await asyncio.gather(*running, return_exceptions=True):
        if isinstance(made, BaseException):
            raise made
        predictions.append(made)
    return predictions
