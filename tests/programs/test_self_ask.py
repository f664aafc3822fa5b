import asyncio
from collections.abc import Callable

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from support.openai_server import OpenAIServer, Reply, user_text

from divcon.programs import ChatAdapter, SelfAsk

WAYS = (lambda p, **i: p(**i), lambda p, **i: asyncio.run(p.acall(**i)))


def lm(server: OpenAIServer, name: str) -> dspy.LM:
    return dspy.LM(f"openai/{name}", api_base=server.url, api_key="k", cache=False)


def planner(*asks: Reply) -> Callable[[dict], Reply]:
    """Asks in order, told by the number of steps already done; the solver answers with their number."""

    def reply(body: dict) -> Reply:
        done = user_text(body).partition("Steps:")[2].count(" = ")
        if "subquestion to answer next" in body["messages"][0]["content"]:
            return asks[min(done, len(asks) - 1)]
        return f"= {done}"

    return reply


@pytest.mark.parametrize("way", WAYS)
def test_it_asks_on_until_nothing_more_is_needed(way: Callable) -> None:
    with OpenAIServer(
        planner("How many bags?", "Follow up: How many plums?\nIntermediate answer: 9", "Nothing more.")
    ) as s:
        prediction = way(SelfAsk(lm(s, "small"), lm(s, "large"), max_steps=5), question="What is left?", context="P.")
        assert list(prediction.subquestions) == ["How many bags?", "How many plums?"]
        assert prediction.sub_answers == "1. How many bags? = 0\n2. How many plums? = 1"
        assert (prediction.answer, prediction.status, prediction.reason) == ("= 2", "decomposed", None)
        assert {role: used["calls"] for role, used in prediction.usage.items()} == {"decomposer": 3, "solver": 3}
        assert s.models() == ["small", "large"] * 3
        for body in s.requests:  # the question and the passage stand in every prompt
            assert "Question: What is left?" in user_text(body) and "Passage: P." in user_text(body)
        assert [body.get("stop") for body in s.requests[::2]] == [["\n"]] * 3
        assert not any(body.get("stop") for body in s.requests[1::2])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("asks", "status", "reason", "number"),
    [
        (("No.",), "whole", None, 0),
        (("None needed",), "whole", None, 0),
        (("The final answer: 7",), "whole", None, 0),
        (("So the answer is 7.",), "whole", None, 0),
        (("Nothing more",), "whole", None, 0),
        (("what is left?",), "fell_back", "duplicate", 0),
        (("How many bags?", "how many bags?"), "decomposed", None, 1),
        (("How many a?", "How many b?", "How many c?", "How many d?"), "decomposed", None, 3),
        (("1. How many bags?", "Nothing more."), "decomposed", None, 1),
        (("Now, who is it?", "no more"), "decomposed", None, 1),
        (("",), "fell_back", "unreadable", 0),
    ],
)
def test_when_it_stops(way: Callable, asks: tuple, status: str, reason: str | None, number: int) -> None:
    with OpenAIServer(planner(*asks)) as server:
        prediction = way(SelfAsk(lm(server, "s"), lm(server, "l")), question="What is left?")
    assert (prediction.status, prediction.reason, len(prediction.subquestions)) == (status, reason, number)
    assert prediction.answer == f"= {number}"


@pytest.mark.parametrize("before", ["\n", "<think>\nbags first</think>\n"])
def test_a_stop_that_leaves_nothing_is_done_without(before: str) -> None:
    """A server that honours stop strings ends such a reply before its first word."""

    def reply(body: dict) -> Reply:
        if "subquestion to answer next" not in body["messages"][0]["content"]:
            return "= 0"
        done = "Steps:" in user_text(body)
        text = before + ("Nothing more." if done else "How many bags?")
        return text.partition("\n")[0] if body.get("stop") else text

    with OpenAIServer(reply) as server:
        prediction = SelfAsk(lm(server, "s"), lm(server, "l"))(question="What is left?")
        assert list(prediction.subquestions) == ["How many bags?"]
        assert [bool(body.get("stop")) for body in server.requests if body["model"] == "s"] == [True, False, False]


def test_another_adapter_is_sent_no_stop() -> None:
    def reply(body: dict) -> str:
        field = "follow_up" if "follow_up" in body["messages"][-1]["content"] else "sub_answer"
        done = "[[ ## steps ## ]]\n1." in user_text(body)
        said = "Nothing more." if done else "How many bags?"
        return f"[[ ## {field} ## ]]\n{said if field == 'follow_up' else '7'}\n\n[[ ## completed ## ]]"

    with OpenAIServer(reply) as server:
        prediction = SelfAsk(lm(server, "s"), lm(server, "l"), adapter=ChatAdapter())(question="What is left?")
        assert list(prediction.subquestions) == ["How many bags?"]
        assert not any(body.get("stop") for body in server.requests)


def test_a_solver_that_cant_be_read_is_an_error_and_stop_strings_can_be_left_out() -> None:
    def reply(body: dict) -> str:
        return "How many bags?" if "answer next" in body["messages"][0]["content"] else "<think>never ends"

    with OpenAIServer(reply) as server:
        with pytest.raises(AdapterParseError):
            SelfAsk(lm(server, "s"), lm(server, "l"), stop=False)(question="Q?")
        assert not any(body.get("stop") for body in server.requests)
    with pytest.raises(ValueError, match="1 or more"):
        SelfAsk(max_steps=0)
