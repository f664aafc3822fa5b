import asyncio

import dspy
import pytest
from support.openai_server import OpenAIServer, user_text
from support.programs import Nested

from divcon.programs import DivideAndConquer, Ledger, ReplyCutOff, RolePredict, RoleWithoutEndpoint
from divcon.signatures import Decompose


def reply(body: dict) -> str:
    system = body["messages"][0]["content"]
    if "Split the question" in system:
        return "1. What is one?\n2. What is two?"
    return "1. one\n2. two\nAnswer: 3"


def lm(server: OpenAIServer, name: str) -> dspy.LM:
    return dspy.LM(f"openai/{name}", api_base=server.url, api_key="k", cache=False)


def test_without_an_endpoint_a_role_refuses_to_run_even_where_a_global_lm_is_set() -> None:
    with OpenAIServer(reply) as server, dspy.context(lm=lm(server, "global")):
        with pytest.raises(RoleWithoutEndpoint, match="decomposer has no endpoint"):
            RolePredict(Decompose, "decomposer")(question="Q?")
        assert server.requests == []


def test_reset_keeps_the_lm() -> None:
    with OpenAIServer(reply) as server:
        role = RolePredict(Decompose, "decomposer", lm=lm(server, "small"))
        role.demos = [{"question": "x", "subquestions": "y"}]
        role.reset()
        assert role.lm.model == "openai/small"
        assert role.demos == []


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("optimizer", ["LabeledFewShot", "BootstrapFewShot"])
def test_no_teleprompter_moves_a_role_to_the_global_lm(optimizer: str, nested: bool) -> None:
    with OpenAIServer(reply) as server:
        program = DivideAndConquer(lm(server, "small"), lm(server, "large"))
        student = Nested(program) if nested else program
        trainset = [dspy.Example(question=f"Q{i}?", answer="3").with_inputs("question") for i in range(3)]
        with dspy.context(lm=lm(server, "global")):
            if optimizer == "LabeledFewShot":
                compiled = dspy.LabeledFewShot(k=1).compile(student, trainset=[])
            else:
                compiled = dspy.BootstrapFewShot(metric=lambda g, p, trace=None: p.answer == "3").compile(
                    student, trainset=trainset
                )
            compiled(question="Q?")
        asked = {(b["model"], "Split" in b["messages"][0]["content"]) for b in server.requests}
        assert asked == {("small", True), ("large", False)}
        inner = compiled.inner if nested else compiled
        assert (inner.decompose.lm.model, inner.solve.lm.model) == ("openai/small", "openai/large")


@pytest.mark.parametrize("host", [dspy.JSONAdapter(), dspy.XMLAdapter(), dspy.ChatAdapter()])
def test_a_hosts_adapter_does_not_change_the_prompt(host: dspy.Adapter) -> None:
    with OpenAIServer(reply) as server:
        program = DivideAndConquer(lm(server, "small"), lm(server, "large"))
        with dspy.context(adapter=host):
            assert program(question="Q?").answer == "3"
        assert server.requests[0]["messages"][-1]["content"] == "Question: Q?"


def test_a_reply_that_ran_out_of_tokens_is_refused() -> None:
    with OpenAIServer(lambda body: ("1. What is one?\n2. What is tw?", "length")) as server:
        role = RolePredict(Decompose, "decomposer", lm=lm(server, "small"), refuse_cut_off=True)
        with pytest.raises(ReplyCutOff, match="ran out of tokens"):
            role(question="Q?")
        with pytest.raises(ReplyCutOff):
            asyncio.run(role.acall(question="Q?"))


def test_cut_off_and_usage_are_seen_where_the_host_keeps_no_history() -> None:
    with OpenAIServer(lambda body: ("1. What is one?\n2. What is tw?", "length")) as server:
        role = RolePredict(Decompose, "decomposer", lm=lm(server, "small"), refuse_cut_off=True)
        with dspy.context(disable_history=True, max_history_size=0), Ledger() as ledger, pytest.raises(ReplyCutOff):
            role(question="Q?")
        assert ledger.usage["decomposer"].input_tokens == 10


def test_an_unreadable_reply_costs_one_call_not_two() -> None:
    with OpenAIServer(lambda body: "I would rather not.") as server:
        role = RolePredict(Decompose, "decomposer", lm=lm(server, "small"))
        with Ledger() as ledger, pytest.raises(dspy.utils.exceptions.AdapterParseError):
            role(question="Q?")
        assert len(server.requests) == 1
        assert ledger.usage["decomposer"].calls == 1


def test_usage_is_by_role_even_where_two_roles_share_a_model_and_under_parallel() -> None:
    with OpenAIServer(reply) as server:
        shared = lm(server, "one")
        program = DivideAndConquer(shared, shared)
        with Ledger() as ledger:
            dspy.Parallel(num_threads=4, disable_progress_bar=True)(
                [(program, {"question": f"Q{i}?"}) for i in range(6)]
            )
        usage = ledger.as_dict()
        assert {role: used["calls"] for role, used in usage.items()} == {"decomposer": 6, "solver": 6}
        assert usage["solver"]["input_tokens"] == 60
        assert usage["solver"]["cost"] is None
        assert usage["solver"]["unpriced_calls"] == 6


def test_the_question_is_what_the_server_got() -> None:
    with OpenAIServer(reply) as server:
        DivideAndConquer(lm(server, "s"), lm(server, "l"))(question="Où est «Zoë»? 数", context="Là.")
        assert user_text(server.requests[0]) == "Passage: Là.\nQuestion: Où est «Zoë»? 数"
