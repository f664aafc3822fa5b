"""The program inside larger ones: awaited, in parallel, streamed, as a tool; usage by role under all of them."""

import asyncio
import itertools
import json
from typing import Any

import dspy
import pytest
from support.openai_server import OpenAIServer, fields_asked, in_fields, user_text

from divcon.programs import (
    ChatAdapter,
    CompactAdapter,
    DivideAndConquer,
    FieldListener,
    Ledger,
    SolvedQuestion,
    as_tool,
)
from divcon.signatures import Decompose, Solve, SolveDirect, SolveStep, Subquestions

LIST = "1. What is one?\n2. What is two?"
SOLVED = "1. one\n2. two\nAnswer: 3"


def reply(body: dict) -> str:
    fields = fields_asked(body)
    if "next_tool_name" in fields:
        if "observation_0" in user_text(body):
            return in_fields(next_thought="Done.", next_tool_name="finish", next_tool_args="{}")
        arguments = json.dumps({"question": "What is one and two?"})
        return in_fields(next_thought="Ask.", next_tool_name="divide_and_conquer", next_tool_args=arguments)
    if fields == ["reasoning", "answer"]:
        return in_fields(reasoning="The tool said so.", answer="three")
    if fields == ["subquestions"]:
        return in_fields(subquestions=LIST, completed="")
    if fields == ["sub_answers", "answer"]:
        return in_fields(sub_answers="1. one\n2. two", answer="3", completed="")
    if "Split the question" in body["messages"][0]["content"]:
        return LIST
    if "subquestion, using the steps" in body["messages"][0]["content"]:
        return "3"
    return SOLVED


def lm(server: OpenAIServer, name: str) -> dspy.LM:
    return dspy.LM(f"openai/{name}", api_base=server.url, api_key="k", cache=False)


def program_on(server: OpenAIServer, **kwargs: Any) -> DivideAndConquer:
    return DivideAndConquer(lm(server, "small"), lm(server, "large"), **kwargs)


def known(prediction: dspy.Prediction) -> dict[str, Any]:
    fields = {name: str(prediction[name]) for name in ("answer", "sub_answers", "subquestions", "status", "reason")}
    return {**fields, "usage": {role: {**used, "seconds": 0} for role, used in prediction.usage.items()}}


@pytest.mark.parametrize("solving", ["single_call", "stepwise"])
@pytest.mark.parametrize("context", [None, "Here."])
def test_awaited_called_and_asyncified_are_the_same(solving: Any, context: str | None) -> None:
    with OpenAIServer(reply) as server:
        program = program_on(server, solving=solving)
        called = known(program(question="What?", context=context))
        asked = [json.dumps(body, sort_keys=True) for body in server.requests]
        for run in (program.acall, dspy.asyncify(program)):
            server.requests.clear()
            assert known(asyncio.run(run(question="What?", context=context))) == called
            assert [json.dumps(body, sort_keys=True) for body in server.requests] == asked


def test_many_awaited_at_once_keep_their_usage_apart() -> None:
    with OpenAIServer(reply, delay=0.05) as server:
        program = program_on(server)

        async def all_at_once() -> list[dspy.Prediction]:
            return await asyncio.gather(*(program.acall(question=f"Q{i}?") for i in range(8)))

        with Ledger() as ledger:
            predictions = asyncio.run(all_at_once())
        assert {p.usage["solver"]["calls"] for p in predictions} == {1}
        assert ledger.usage["decomposer"].calls == 8
        assert server.busiest > 1


STREAMED = {
    "compact": (CompactAdapter, "1. one\n2. two"),
    "chat": (ChatAdapter, "1. one\n2. two"),
}


@pytest.mark.parametrize("adapter", STREAMED)
@pytest.mark.parametrize("host", [None, dspy.JSONAdapter()], ids=["plain host", "JSON host"])
def test_fields_are_streamed_as_they_are_written(adapter: str, host: dspy.Adapter | None) -> None:
    made, sub_answers = STREAMED[adapter]
    with OpenAIServer(reply) as server, dspy.context(adapter=host):
        program = program_on(server, adapter=made())
        listeners = [FieldListener(name) for name in ("subquestions", "sub_answers", "answer")]
        streamed = dspy.streamify(program, stream_listeners=listeners, async_streaming=False)
        chunks: dict[str, list[str]] = {}
        final = None
        with Ledger() as ledger:
            for piece in streamed(question="What?"):
                if isinstance(piece, dspy.Prediction):
                    final = piece
                elif isinstance(piece, dspy.streaming.StreamResponse):
                    chunks.setdefault(piece.signature_field_name, []).append(piece.chunk)
        assert final is not None and final.answer == "3"
        assert {name: "".join(parts) for name, parts in chunks.items()} == {
            "subquestions": LIST,
            "sub_answers": sub_answers,
            "answer": "3",
        }
        assert len(chunks["subquestions"]) > 3, "piece by piece, not at the end"
        assert {role: used["calls"] for role, used in final.usage.items()} == {"decomposer": 1, "solver": 1}
        assert ledger.usage["solver"].output_tokens == 5


def test_a_predictor_that_is_called_several_times_streams_every_call_where_asked_to() -> None:
    with OpenAIServer(reply) as server:
        listener = FieldListener("sub_answer", allow_reuse=True)
        streamed = dspy.streamify(
            program_on(server, solving="stepwise"), stream_listeners=[listener], async_streaming=False
        )
        pieces = [p for p in streamed(question="What?") if isinstance(p, dspy.streaming.StreamResponse)]
        assert "".join(piece.chunk for piece in pieces) == "333"
        assert sum(piece.is_last_chunk for piece in pieces) == 3


@pytest.mark.parametrize("end", [5, 14, 17, 20, 23, 26])
def test_what_may_become_a_label_is_held_back(end: int) -> None:
    text = "1. one\n2. two\nAnswer: 3"[:end]
    value, _ = CompactAdapter().partial(Solve, text, "sub_answers")
    assert "1. one\n2. two".startswith(value)
    assert CompactAdapter().partial(Solve, "<think>\n1. dra", "sub_answers") == ("", False)


@pytest.mark.parametrize(
    ("signature", "field", "text", "shown"),
    [
        (Solve, "sub_answers", "Steps: 1. 3 bags\n2. 5 bags\nFinal answer: fifteen", "1. 3 bags\n2. 5 bags"),
        (Solve, "answer", "**Steps:** 1. 3 bags\n\n**Final answer:** fifteen red bags", "fifteen red bags"),
        (Solve, "answer", "1. 3 bags\nAnswer: fifteen red bags", "fifteen red bags"),
        (Solve, "answer", "1. There are 3 bags.\nSo it is \\boxed{15}.", "15"),
        (SolveDirect, "answer", "Final answer: fifteen red bags", "fifteen red bags"),
        (SolveDirect, "answer", "fifteen", "fifteen"),
        (SolveStep, "sub_answer", "18 - 3 = 15\nFinal answer: 15", "15"),
        (Decompose, "subquestions", "Hints:\n1. Who is it?\n2. When is it?", "1. Who is it?\n2. When is it?"),
    ],
)
def test_what_is_shown_only_grows_and_is_the_field_in_the_end(
    signature: type[dspy.Signature], field: str, text: str, shown: str
) -> None:
    adapter = CompactAdapter()
    seen = [adapter.partial(signature, text[:end], field)[0] for end in range(len(text))]
    seen.append(adapter.partial(signature, text, field, ended=True)[0])
    assert all(after.startswith(before) for before, after in itertools.pairwise(seen))
    assert seen[-1] == shown
    read = adapter.parse(signature, text)[field]
    assert (read.render() if isinstance(read, Subquestions) else read) == shown


def test_a_react_agent_uses_it_as_a_typed_tool_called_and_awaited() -> None:
    with OpenAIServer(reply) as server:
        tool = as_tool(program_on(server))
        assert set(tool.args) == {"question", "context"}
        agent = dspy.ReAct("request -> answer", tools=[tool], max_iters=3)
        with dspy.context(lm=lm(server, "agent")), Ledger() as ledger:
            assert agent(request="What is one and two?").answer == "three"
            assert asyncio.run(agent.acall(request="What is one and two?")).answer == "three"
        observed = next(body for body in server.requests if "observation_0" in user_text(body))
        assert "What is two?" in user_text(observed)
        assert {role: used.calls for role, used in ledger.usage.items()} == {"decomposer": 2, "solver": 2}
        models = {(body["model"], user_text(body).startswith("Question:")) for body in server.requests}
        assert models == {("agent", False), ("small", True), ("large", True)}


def test_the_tool_gives_back_a_typed_answer_and_refuses_what_it_does_not_know() -> None:
    with OpenAIServer(reply) as server:
        tool = as_tool(program_on(server))
        assert tool(question="What?") == SolvedQuestion(
            answer="3", subquestions=["What is one?", "What is two?"], sub_answers="1. one\n2. two", status="decomposed"
        )
        with pytest.raises(ValueError, match="topic"):
            tool(question="What?", topic="x")


def test_an_awaited_tool_leaves_the_event_loop_free() -> None:
    with OpenAIServer(reply, delay=0.2) as server:
        tool = as_tool(program_on(server))

        async def beside() -> int:
            task = asyncio.create_task(tool.acall(question="What?"))
            ticks = 0
            while not task.done():
                await asyncio.sleep(0.01)
                ticks += 1
            return ticks

        assert asyncio.run(beside()) > 5
