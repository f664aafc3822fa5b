"""Every optimizer that a pipeline file may name, on a teacher over HTTP: what changes and who answers."""

import json
import re
from typing import Any

import dspy
import pytest
from support.openai_server import OpenAIServer, fields_asked, in_fields, user_text

from divcon.distill import CompileError, LMBackend, StoredEngine, compile_program, role_lm
from divcon.distill._compile import _ELSEWHERE, OPTIMIZERS
from divcon.programs import DivideAndConquer, Item, RoleWithoutEndpoint
from divcon.signatures import UnusableArgument

ARGUMENTS: dict[str, dict[str, Any]] = {
    "LabeledFewShot": {"k": 2},
    "BootstrapFewShot": {"max_bootstrapped_demos": 1},
    "BootstrapFewShotWithRandomSearch": {"max_bootstrapped_demos": 1, "num_candidate_programs": 1, "num_threads": 2},
    "COPRO": {"breadth": 2, "depth": 1, "eval_kwargs": {"num_threads": 2}},
    "MIPROv2": {
        "auto": None,
        "num_candidates": 2,
        "num_trials": 2,
        "minibatch": False,
        "max_bootstrapped_demos": 1,
        "max_labeled_demos": 0,
    },
    "GEPA": {"max_metric_calls": 20, "num_threads": 1},
    "SIMBA": {"bsize": 4, "num_candidates": 2, "max_steps": 1, "max_demos": 1, "num_threads": 1},
    "InferRules": {"num_candidates": 1, "num_rules": 2, "max_bootstrapped_demos": 1},
}


def items() -> list[Item]:
    return [
        Item(f"i{i}", f"Q{i}?", "3", subquestions=("What is one?", f"What is {i}?"), sub_answers=("1", "3"))
        for i in range(10)
    ]


def reply(body: dict) -> str:
    text = user_text(body)
    if text.startswith("Question: "):
        if "Hints:" in text:
            return f"1. one\n2. two\nAnswer: {4 if 'Q1?' in text or 'Q5?' in text else 3}"
        return "1. What is one?\n2. What is two?"
    says = "Split the question otherwise."
    if "JSON object" in str(body["messages"]):
        return json.dumps(dict.fromkeys(re.findall(r'"(\w+)": "?\{', str(body["messages"])), says))
    return in_fields(**dict.fromkeys(fields_asked(body), says))


def lm_on(server: OpenAIServer, name: str) -> dspy.LM:
    return dspy.LM(f"openai/{name}", api_base=server.url, api_key="k", cache=False, num_retries=0)


def program_on(server: OpenAIServer) -> DivideAndConquer:
    return DivideAndConquer(lm_on(server, "teacher"), lm_on(server, "solver"))


def right(item: Item, answer: str) -> bool:
    return item.answer == answer


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_it_changes_the_decomposer_alone_and_every_call_is_its_own_roles(optimizer: str) -> None:
    with OpenAIServer(reply) as server:
        program = program_on(server)
        before, shown = program.solve.signature.instructions, list(program.decompose.demos)
        compiled = compile_program(program, optimizer, items(), right, ARGUMENTS[optimizer])
        assert compiled.solve.signature.instructions == before
        assert compiled.solve.demos == []
        assert all("subquestions" in demo for demo in compiled.decompose.demos)
        assert program.decompose.demos == shown
        assert compiled(question="Q0?").answer == "3"
        for body in server.requests:
            text = user_text(body)
            solves = text.startswith("Question: ") and "Hints:" in text
            assert body["model"] == ("solver" if solves else "teacher")


def test_labelled_few_shot_shows_the_references() -> None:
    with OpenAIServer(reply) as server:
        compiled = compile_program(program_on(server), "LabeledFewShot", items(), right, {"k": 2})
        assert len(compiled.decompose.demos) == 2
        assert server.requests == []


@pytest.mark.parametrize(
    ("optimizer", "arguments", "says"),
    [
        *[(name, {}, f"{name} can't be a pipeline's optimizer") for name in _ELSEWHERE],
        ("Nonsense", {}, "There is no optimizer 'Nonsense'"),
        ("GEPA", {}, "GEPA failed: AssertionError: Exactly one of max_metric_calls"),
        ("COPRO", {"width": 2}, r"COPRO doesn't take width; it takes breadth, depth"),
        ("SIMBA", {"bsize": 100}, "Trainset too small"),
    ],
)
def test_what_cannot_work_is_named(optimizer: str, arguments: dict, says: str) -> None:
    with OpenAIServer(reply) as server:
        with pytest.raises(CompileError, match=says):
            compile_program(program_on(server), optimizer, items(), right, arguments)
        assert server.requests == []


def test_every_optimizer_of_dspy_is_either_taken_or_sent_elsewhere() -> None:
    from dspy.teleprompt import Teleprompter

    known = {
        name
        for name in dir(dspy.teleprompt)
        if isinstance(found := getattr(dspy.teleprompt, name), type) and issubclass(found, Teleprompter)
    }
    not_for_programs_of_this_kind = {"Teleprompter", "AvatarOptimizer", "BootstrapRS"}
    assert known - not_for_programs_of_this_kind <= {*OPTIMIZERS, *_ELSEWHERE}


def test_a_call_that_was_refused_a_stream_and_then_answered_fails_no_compilation() -> None:
    with OpenAIServer(reply, stream="refuses") as server:
        stored = [
            role_lm(
                StoredEngine(LMBackend(lm_on(server, name)), role, f"openai/{name}", None),
                temperature=None,
                max_tokens=None,
            )
            for role, name in (("decomposer", "teacher"), ("solver", "solver"))
        ]
        program = DivideAndConquer(*stored)
        compiled = compile_program(program, "BootstrapFewShot", items(), right, ARGUMENTS["BootstrapFewShot"])
        assert compiled.decompose.demos


def test_a_program_without_its_models_is_refused_before_a_call_is_paid_for() -> None:
    with OpenAIServer(reply) as server:
        program = program_on(server)
        program.solve.lm = None
        with pytest.raises(RoleWithoutEndpoint, match="solver has no endpoint"):
            compile_program(program, "BootstrapFewShot", items(), right)
        with pytest.raises(UnusableArgument, match=r"program is a Predict.*DivideAndConquer"):
            compile_program(dspy.Predict("question -> answer"), "BootstrapFewShot", items(), right)
        assert server.requests == []
