import asyncio
import time

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from support.openai_server import OpenAIServer, Reply, user_text

from divcon.programs import ChainOfThought, Direct, DivideAndConquer
from divcon.programs._calls import Calls, arun_calls, run_calls


def lm(server: OpenAIServer, name: str) -> dspy.LM:
    return dspy.LM(f"openai/{name}", api_base=server.url, api_key="k", cache=False)


def scripted(decomposition: Reply):
    def reply(body: dict) -> Reply:
        system = body["messages"][0]["content"]
        if "Split the question" in system:
            return decomposition
        if "using the steps" in system:
            return "7"
        return "1. 3 * 4 = 12\nAnswer: 10" if "on a line of its own" in system else "10"

    return reply


def both(program: dspy.Module, **inputs: str) -> list[dspy.Prediction]:
    return [program(**inputs), asyncio.run(program.acall(**inputs))]


TWO = "1. How many are in the bags?\n2. How many are left?"


def test_one_call_solves_all_subquestions_sync_and_async() -> None:
    with OpenAIServer(scripted(TWO)) as server:
        program = DivideAndConquer(lm(server, "small"), lm(server, "large"))
        for prediction in both(program, question="Q?", context="P."):
            assert prediction.answer == "10"
            assert prediction.sub_answers == "1. 3 * 4 = 12"
            assert list(prediction.subquestions) == ["How many are in the bags?", "How many are left?"]
            assert (prediction.status, prediction.reason) == ("decomposed", None)
            assert {role: used["calls"] for role, used in prediction.usage.items()} == {"decomposer": 1, "solver": 1}
        assert server.models() == ["small", "large"] * 2


def test_direct_gives_the_subquestions_and_takes_the_answer_alone() -> None:
    with OpenAIServer(lambda body: "1. How many bags?" if "Split" in body["messages"][0]["content"] else "7") as server:
        program = DivideAndConquer(lm(server, "small"), lm(server, "large"), solving="direct")
        prediction = program(question="What is left?")
        assert (prediction.answer, prediction.sub_answers, prediction.status) == ("7", "", "decomposed")
        assert "How many bags?" in user_text(server.requests[-1])
        assert len(server.requests) == 2


def test_stepwise_feeds_earlier_answers_on_sync_and_async() -> None:
    with OpenAIServer(scripted(TWO)) as server:
        program = DivideAndConquer(lm(server, "small"), lm(server, "large"), solving="stepwise")
        for prediction in both(program, question="Q?"):
            assert prediction.answer == "7"
            assert prediction.sub_answers == "1. How many are in the bags? 7\n2. How many are left? 7"
            assert prediction.usage["solver"]["calls"] == 3
        second = server.requests[2]["messages"][-1]["content"]
        assert "1. How many are in the bags? 7" in second
        assert second.endswith("Subquestion: How many are left?")


GRAPH = "1. How old is Ada?\n2. How old is Ben?\n3. Is #1 more than #2?\n4. What is #3 in case #9?"


def test_a_dag_asks_what_doesnt_wait_at_once_and_fills_references_in() -> None:
    def reply(body: dict) -> str:
        if "Split the question" in body["messages"][0]["content"]:
            return GRAPH
        asked = body["messages"][-1]["content"].rpartition("Subquestion: ")[2]
        return {"How old is Ada?": "7", "How old is Ben?": "5", "Is 7 more than 5?": "yes"}.get(asked, "done")

    for way in (lambda p: p(question="Q?"), lambda p: asyncio.run(p.acall(question="Q?"))):
        with OpenAIServer(reply, delay=0.2) as server:
            program = DivideAndConquer(lm(server, "s"), lm(server, "l"), solving="dag", max_subquestions=4)
            prediction = way(program)
            assert server.busiest == 2
        assert prediction.answer == "done"
        assert prediction.sub_answers.splitlines() == [
            "1. How old is Ada? 7",
            "2. How old is Ben? 5",
            "3. Is 7 more than 5? yes",
            "4. What is yes in case #9? done",
        ]
        assert prediction.usage["solver"]["calls"] == 5
        third = next(r for r in server.requests if "Is 7 more than 5?" in r["messages"][-1]["content"].splitlines()[-1])
        assert "1. How old is Ada? 7\n2. How old is Ben? 5" in third["messages"][-1]["content"]
        first = server.requests[1]["messages"][-1]["content"]
        assert "Steps" not in first


def test_calls_that_are_made_together_have_all_ended_where_one_of_them_failed() -> None:
    ended = []

    class Fails(dspy.Module):
        def forward(self) -> None:
            raise RuntimeError("no such model")

        async def aforward(self) -> None:
            self.forward()

    class Takes(dspy.Module):
        def forward(self) -> None:
            time.sleep(0.2)
            ended.append("in a thread")

        async def aforward(self) -> None:
            await asyncio.sleep(0.2)
            ended.append("awaited")

    def program() -> Calls:
        yield [(Fails(), {}), (Takes(), {})]  # type: ignore[list-item]
        return dspy.Prediction()

    with pytest.raises(RuntimeError):
        run_calls(program())
    assert ended == ["in a thread"]

    async def awaited() -> None:
        with pytest.raises(RuntimeError):
            await arun_calls(program())
        assert ended == ["in a thread", "awaited"]

    asyncio.run(awaited())


def test_a_dag_without_references_is_solved_stepwise() -> None:
    with OpenAIServer(scripted(TWO), delay=0.05) as server:
        program = DivideAndConquer(lm(server, "small"), lm(server, "large"), solving="dag")
        assert program(question="Q?").sub_answers == "1. How many are in the bags? 7\n2. How many are left? 7"
        assert server.busiest == 1


@pytest.mark.parametrize(
    ("decomposition", "status", "reason"),
    [
        ("No decomposition.", "whole", None),
        ("I don't know.", "fell_back", "unreadable"),
        (("1. How many red", "length"), "fell_back", "cut_off"),
        ("<think> so", "fell_back", "cut_off"),
    ],
)
@pytest.mark.parametrize("solving", ["single_call", "stepwise", "dag"])
def test_without_usable_subquestions_the_question_goes_to_the_solver_whole(
    decomposition: Reply, status: str, reason: str | None, solving: str
) -> None:
    with OpenAIServer(scripted(decomposition)) as server:
        program = DivideAndConquer(lm(server, "small"), lm(server, "large"), solving=solving)
        for prediction in both(program, question="Q?"):
            assert (prediction.status, prediction.reason) == (status, reason)
            assert len(prediction.subquestions) == 0
            assert (prediction.answer, prediction.read_by) == ("10", "answer_line")
            baseline = ChainOfThought(lm(server, "large"))
            assert baseline(question="Q?").answer == "10"
            _, solved, reasoned = server.requests[-3:]
            assert solved == reasoned, "the same call, so the same stored reply"


@pytest.mark.parametrize(
    ("decomposition", "used", "reason"),
    [
        (
            "1. How many bags?\n2. How many plums?\n3. How many bags?",
            ["How many bags?", "How many plums?"],
            "duplicate",
        ),
        (
            ("1. How many bags?\n2. How many plums?\n3. How ma", "length"),
            ["How many bags?", "How many plums?"],
            "cut_off",
        ),
        (("1. How many bags?\n2. How many plums?", "length"), ["How many bags?", "How many plums?"], "cut_off"),
        (("1. كم عدد الأكياس؟\n2. كم عدد الثمار؟", "length"), ["كم عدد الأكياس؟", "كم عدد الثمار؟"], "cut_off"),
        (("1. Find the bags。\n2. Find the plums。", "length"), ["Find the bags。", "Find the plums。"], "cut_off"),
        ("1. Same?\n2. Same?", ["Same?"], "duplicate"),
        (("1. Same?\n2. Same?\n3. Sa", "length"), ["Same?"], "cut_off"),
    ],
)
def test_what_stands_whole_in_a_refused_list_is_used(decomposition: Reply, used: list[str], reason: str) -> None:
    with OpenAIServer(scripted(decomposition)) as server:
        program = DivideAndConquer(lm(server, "small"), lm(server, "large"))
        for prediction in both(program, question="Q?"):
            assert (prediction.status, prediction.reason) == ("salvaged", reason)
            assert list(prediction.subquestions) == used
        strict = DivideAndConquer(lm(server, "small"), lm(server, "large"), salvage=False)
        for prediction in both(strict, question="Q?"):
            assert (prediction.status, prediction.reason, len(prediction.subquestions)) == ("fell_back", reason, 0)


def test_an_unreadable_reply_is_asked_for_its_last_line_once_and_both_calls_are_counted() -> None:
    def reply(body: dict) -> Reply:
        if "Here is a question, and a reply to it" in body["messages"][0]["content"]:
            return "12"
        return "There are 3 bags, and each of them holds 4 plums.\nThat is what we know of the bags and of the plums."

    with OpenAIServer(reply) as server:
        for prediction in both(ChainOfThought(lm(server, "large")), question="How many?"):
            assert (prediction.answer, prediction.read_by) == ("12", "reask")
            assert prediction.sub_answers.startswith("There are 3 bags")
            assert prediction.usage["solver"]["calls"] == 2
        assert "That is what we know" in user_text(server.requests[-1])
    unreadable = "There is more than one way to look at this.\nIt may be this, that, or something else, who can tell."
    with OpenAIServer(lambda body: unreadable) as server:
        with pytest.raises(AdapterParseError):
            ChainOfThought(lm(server, "large"))(question="How many?")
        assert len(server.requests) == 2
        with pytest.raises(AdapterParseError):
            ChainOfThought(lm(server, "large"), reask=0)(question="How many plums?")
        assert len(server.requests) == 3


def test_an_answer_counts_in_a_reply_that_was_cut_off_behind_it_and_half_a_line_does_not() -> None:
    replies: list[Reply] = [
        ("3 * 4 = 12\nAnswer: 12\n\nThis is beca", "length"),
        ("3 * 4 = 12\nThat makes 1", "length"),
        "12",
        ("3 * 4 = 12\nAnswer: 1", "length"),
        "12",
        ("So the final answer is 1", "length"),
        "12",
        ("3 * 4 = 12\nSo it is $\\boxed{12}$ pl", "length"),
    ]
    with OpenAIServer(lambda body: replies[len(server.requests) - 1]) as server:
        program = ChainOfThought(lm(server, "large"))
        assert program(question="Q?").read_by == "answer_line"
        for question in ("R?", "S?", "T?"):
            found = program(question=question)
            assert (found.answer, found.read_by) == ("12", "reask")
        assert program(question="U?").read_by == "boxed"


def test_direct_is_held_to_the_answer_alone() -> None:
    with OpenAIServer(lambda body: "12") as server:
        assert Direct(lm(server, "large"))(question="Q?").answer == "12"
        [asked] = server.requests
        assert asked["stop"] == ["\n"]
        assert 32 in (asked.get("max_tokens"), asked.get("max_completion_tokens"))
        assert [message["role"] for message in asked["messages"]] == ["system", *["user", "assistant"] * 3, "user"]
        reasoning = dspy.LM("openai/o3", api_base=server.url, api_key="k", cache=False, max_tokens=20000)
        Direct(reasoning)(question="Q?")
        assert "stop" not in server.requests[-1]


def test_a_decomposer_that_ignores_the_cap_is_cut_to_it() -> None:
    many = "\n".join(f"{i}. What is number {i}?" for i in range(1, 8))
    with OpenAIServer(scripted(many)) as server:
        prediction = DivideAndConquer(lm(server, "s"), lm(server, "l"), max_subquestions=2)(question="Q?")
        assert len(prediction.subquestions) == 2
        assert (prediction.status, prediction.reason) == ("decomposed", "over_long")


@pytest.mark.parametrize(("baseline", "steps"), [(Direct, ""), (ChainOfThought, "1. 3 * 4 = 12")])
def test_baselines_answer_in_the_same_form(baseline: type[dspy.Module], steps: str) -> None:
    with OpenAIServer(scripted(TWO)) as server:
        for prediction in both(baseline(lm(server, "large")), question="Q?"):
            assert (prediction.answer, prediction.sub_answers, prediction.status) == ("10", steps, "whole")
            assert prediction.usage["solver"]["calls"] == 1


def test_an_unknown_way_of_solving_is_refused() -> None:
    with pytest.raises(ValueError, match="single_call"):
        DivideAndConquer(solving="magic")


def test_a_server_error_is_raised_and_never_an_answer() -> None:
    with OpenAIServer(lambda body: 500) as server:
        broken = dspy.LM("openai/x", api_base=server.url, api_key="k", cache=False, num_retries=0)
        with pytest.raises(dspy.LMError):
            DivideAndConquer(broken, broken)(question="Q?")


def test_a_deep_copy_keeps_both_lms() -> None:
    with OpenAIServer(scripted(TWO)) as server:
        copied = DivideAndConquer(lm(server, "small"), lm(server, "large")).deepcopy()
        assert copied(question="Q?").answer == "10"
        assert server.models() == ["small", "large"]
