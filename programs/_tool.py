"""A program as a tool: typed in and out, for `dspy.ReAct`, for `dspy.Tool`, and behind the MCP server."""

from __future__ import annotations

import asyncio
from typing import Any

import dspy
from pydantic import BaseModel

from divcon.programs._arguments import require_program


class SolvedQuestion(BaseModel):
    """What the tool returns.

    Attributes:
        answer: The answer alone.
        subquestions: Those that were asked; empty where the question was answered whole.
        sub_answers: The solver's steps, as it wrote them.
        status: `decomposed`, `salvaged`, `whole` or `fell_back`.
    """

    answer: str
    subquestions: list[str]
    sub_answers: str
    status: str


class _ProgramTool(dspy.Tool):
    async def acall(self, **kwargs: Any) -> Any:
        # DSPy would run the function on the event loop, and block it.
        return await asyncio.to_thread(self, **kwargs)


def as_tool(
    program: dspy.Module,
    name: str = "divide_and_conquer",
    description: str = "Answer a question that takes several steps: it is split into subquestions, which are solved.",
) -> dspy.Tool:
    """A tool that answers a question with `program`.

    It works in `dspy.ReAct`, called or awaited, and its usage counts in the caller's ledger, by role.

    Args:
        program: `DivideAndConquer`, a baseline, or any program that takes `question` and `context`.
        name: What an agent calls it.
        description: What an agent is told.

    Raises:
        UnusableArgument: `program` is no program.
    """
    require_program(program)

    def solve(question: str, context: str | None = None) -> SolvedQuestion:
        prediction = program(question=question, context=context)
        return SolvedQuestion(
            answer=str(prediction.answer),
            subquestions=list(prediction.get("subquestions") or ()),
            sub_answers=str(prediction.get("sub_answers") or ""),
            status=str(prediction.get("status") or "whole"),
        )

    return _ProgramTool(
        solve,
        name=name,
        desc=description,
        arg_desc={"question": "the whole question", "context": "a passage the question is about, if there is one"},
    )
