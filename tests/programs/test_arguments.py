"""What programs are given is checked before a call is paid for, and they show their roles."""

import asyncio
from collections.abc import Callable
from typing import Any

import dspy
import pytest
from support.openai_server import OpenAIServer

from divcon.programs import (
    ChainOfThought,
    Direct,
    DivideAndConquer,
    NotAnEndpoint,
    OneRole,
    RolePredict,
    RoleWithoutEndpoint,
    SelfAsk,
    Wording,
    as_tool,
    bind,
)
from divcon.signatures import DivconError, UnusableArgument


def lm(server: OpenAIServer, name: str) -> dspy.LM:
    return dspy.LM(f"openai/{name}", api_base=server.url, api_key="k", cache=False)


PROGRAMS: list[Callable[[dspy.LM], dspy.Module]] = [
    lambda model: DivideAndConquer(model, model),
    lambda model: SelfAsk(model, model),
    lambda model: ChainOfThought(model),
    lambda model: Direct(model),
]


@pytest.mark.parametrize("build", PROGRAMS)
@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"question": ""}, "The question is empty"),
        ({"question": " \n"}, "The question is empty"),
        ({"question": None}, "The question is a NoneType, not text"),
        ({"question": ["How many?"]}, "The question is a list, not text"),
        (
            {"question": "How many?", "context": ["a passage", "another"]},
            "The context is a list.*blank lines",
        ),
    ],
)
def test_an_unusable_input_costs_nothing_sync_or_async(
    build: Callable[[dspy.LM], dspy.Module], inputs: dict[str, Any], said: str
) -> None:
    with OpenAIServer("1. How many?") as server:
        program = build(lm(server, "m"))
        with pytest.raises(UnusableArgument, match=said) as caught:
            program(**inputs)
        with pytest.raises(UnusableArgument, match=said):
            asyncio.run(program.acall(**inputs))
        assert caught.value.code == "unusable-argument"
        assert caught.value.remedy
        assert server.requests == []


@pytest.mark.parametrize("kind", [DivideAndConquer, SelfAsk])
def test_a_missing_solver_is_found_before_the_planner_is_paid(kind: Any) -> None:
    with OpenAIServer("1. How many?") as server:
        program = kind(lm(server, "planner"))
        with pytest.raises(RoleWithoutEndpoint, match=r"The solver has no endpoint.*solver="):
            program(question="How many?")
        with pytest.raises(RoleWithoutEndpoint):
            asyncio.run(program.acall(question="How many?"))
        program.solve.lm = "openai/gpt-4.1-mini"
        with pytest.raises(NotAnEndpoint, match=r"text 'openai/gpt-4.1-mini'.*solver=dspy.LM\('openai/gpt-4.1-mini'\)"):
            program(question="How many?")
        assert server.requests == []


@pytest.mark.parametrize(
    "build",
    [
        lambda: DivideAndConquer("openai/a", dspy.LM("openai/b")),
        lambda: DivideAndConquer(dspy.LM("openai/b"), "openai/a"),
        lambda: SelfAsk("openai/a"),
        lambda: ChainOfThought("openai/a"),
        lambda: Direct(solver="openai/a"),
        lambda: RolePredict("question -> answer", "solver", lm="openai/a"),
        lambda: bind(DivideAndConquer(), decomposer=dspy.LM("openai/b"), solver="openai/a"),
        lambda: ChainOfThought(dspy.LM),
    ],
)
def test_what_is_no_lm_is_refused_where_it_is_given(build: Callable[[], Any]) -> None:
    with pytest.raises(NotAnEndpoint, match=r"no LM.*dspy\.LM\('") as caught:
        build()
    assert caught.value.code == "not-an-endpoint"
    assert isinstance(caught.value, DivconError)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: DivideAndConquer(solving="onecall"), "solving is 'onecall'.*single_call, direct, stepwise, dag"),
        (lambda: DivideAndConquer(max_subquestions=0), "max_subquestions is 0.*1 or more"),
        (lambda: DivideAndConquer(max_subquestions="3"), "max_subquestions is '3'"),
        (lambda: DivideAndConquer(reask=2), "reask is 2.*from 0 to 1"),
        (lambda: DivideAndConquer(adapter="chat"), "adapter is a str.*CompactAdapter"),
        (lambda: DivideAndConquer(solver_wording="learnt"), "wording is a str.*LEARNT"),
        (lambda: Wording({"Decomposer": "Cut it up."}), "no signature 'Decomposer'.*Name Decompose, Solve"),
        (lambda: Wording("Cut it up."), "What is said by signature is a str.*a dict"),
        (lambda: Wording(labels={"questions": "Frage"}), "no field 'questions'.*Name context, question, subquestions"),
        (lambda: SelfAsk(max_steps=0), "max_steps is 0"),
        (lambda: OneRole(DivideAndConquer(), "plan"), "no predictor 'plan'; it has decompose, solve"),
        (lambda: OneRole("program", "plan"), "program is a str.*dspy.Module"),
        (lambda: as_tool(lambda question: question), "program is a function.*dspy.Module"),
        (lambda: bind("program"), "program is a str"),
    ],
)
def test_other_arguments_are_refused_with_what_to_give(build: Callable[[], Any], said: str) -> None:
    with pytest.raises(UnusableArgument, match=said):
        build()


def test_binding_nothing_to_a_role_keeps_its_lm_out_of_none() -> None:
    program = DivideAndConquer(dspy.LM("openai/a"), dspy.LM("openai/b"))
    with pytest.raises(RoleWithoutEndpoint):
        bind(program, solver=None)
    assert program.solve.lm.model == "openai/b"


def test_a_printed_program_shows_roles_and_models_and_no_key() -> None:
    program = DivideAndConquer(dspy.LM("openai/small", api_key="sk-very-secret-key-0123456789"), solving="dag")
    program.decompose.trained = {"served": "small", "content": "0"}
    program.decompose.demos = []
    lines = str(program).splitlines()
    assert lines[0] == "DivideAndConquer"
    assert lines[1] == "  decomposer: openai/small (trained), 0 demonstrations"
    assert lines[2].startswith("  solver: no LM yet, ")
    assert "secret" not in str(program) + repr(SelfAsk(program.decompose.lm, program.decompose.lm))


def test_a_prediction_in_a_notebook_is_escaped_and_shows_what_was_asked_and_spent() -> None:
    def reply(body: dict[str, Any]) -> str:
        split = "Split the question" in body["messages"][0]["content"]
        return "1. How many <b>bags</b>?\n2. How many are left?" if split else "1. 3 < 4\nAnswer: <script>"

    with OpenAIServer(reply) as server:
        shown = DivideAndConquer(lm(server, "small"), lm(server, "large"))(question="How many?")._repr_html_()
    assert "How many &lt;b&gt;bags&lt;/b&gt;?" in shown
    assert "&lt;script&gt;" in shown
    assert "<script" not in shown
    assert "decomposed" in shown
    assert "unknown" in shown  # the price of a model that no list has
