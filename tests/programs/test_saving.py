import asyncio
import copy
import pickle
from pathlib import Path

import dspy
import pytest
from support.openai_server import OpenAIServer

from divcon.programs import DivideAndConquer, ForeignEndpoint, NotPickled, RoleWithoutEndpoint, bind
from divcon.signatures import Subquestions


def reply(body: dict) -> str:
    if "Split the question" in body["messages"][0]["content"]:
        return "1. What is one?\n2. What is two?"
    return "1. one\n2. two\nAnswer: 3"


def lm(server: OpenAIServer, name: str) -> dspy.LM:
    return dspy.LM(f"openai/{name}", api_base=server.url, api_key="sk-secret", cache=False, headers={"X-Key": "hush"})


def with_demo(program: DivideAndConquer) -> DivideAndConquer:
    program.decompose.demos = [{"question": "Q?", "subquestions": Subquestions(["What is a?", "What is b?"])}]
    program.decompose.signature = program.decompose.signature.with_instructions("Split the question into parts.")
    return program


def test_state_round_trips_in_json_and_lms_are_bound_again_by_role(tmp_path: Path) -> None:
    with OpenAIServer(reply) as server:
        program = with_demo(DivideAndConquer(lm(server, "small"), lm(server, "large")))
        program(question="What?")
        program.save(tmp_path / "program.json")
        loaded = DivideAndConquer()
        loaded.load(tmp_path / "program.json")
        with pytest.raises(RoleWithoutEndpoint):
            loaded(question="What?")
        bind(loaded, decomposer=lm(server, "small"), solver=lm(server, "large"))
        assert loaded(question="What?").answer == "3"
        assert server.requests[0]["messages"] == server.requests[2]["messages"]


def test_no_file_holds_a_secret_or_an_address(tmp_path: Path) -> None:
    with OpenAIServer(reply) as server:
        with_demo(DivideAndConquer(lm(server, "small"), lm(server, "large"))).save(tmp_path / "program.json")
        text = (tmp_path / "program.json").read_text()
    assert not [word for word in ("sk-secret", "hush", "X-Key", "127.0.0.1", "openai/") if word in text]


def test_an_endpoint_in_a_file_is_never_taken(tmp_path: Path) -> None:
    with OpenAIServer(reply) as server:
        plain = DivideAndConquer()
        state = plain.dump_state()
        state["decompose"]["lm"] = {"model": "openai/gpt-5", "model_type": "chat"}
        plain.load_state(state)
        with pytest.raises(RoleWithoutEndpoint), dspy.context(lm=lm(server, "global")):
            plain(question="What?")
        assert server.requests == []


def test_loading_keeps_the_lms_in_place(tmp_path: Path) -> None:
    with OpenAIServer(reply) as server:
        small, large = lm(server, "small"), lm(server, "large")
        with_demo(DivideAndConquer(small, large)).save(tmp_path / "p.json")
        program = DivideAndConquer(small, large)
        program.load(tmp_path / "p.json")
        assert (program.decompose.lm, program.solve.lm) == (small, large)
        assert len(program.decompose.demos) == 1


def test_a_trained_role_takes_no_lm_that_serves_something_else(tmp_path: Path) -> None:
    with OpenAIServer(reply) as server:
        program = DivideAndConquer(lm(server, "sd-r-0123abcd"), lm(server, "large"))
        program.decompose.trained = {"served": "sd-r-0123abcd", "content": "0123abcd"}
        program.save(tmp_path / "p.json")
        fresh = DivideAndConquer()
        fresh.load(tmp_path / "p.json")
        with pytest.raises(ForeignEndpoint, match=r"trained as sd-r-0123abcd.*serves sd-r-9999ffff"):
            bind(fresh, decomposer=lm(server, "sd-r-9999ffff"), solver=lm(server, "large"))
        assert fresh.solve.lm is None, "a program is bound whole or not at all"
        bind(fresh, decomposer=lm(server, "sd-r-0123abcd"), solver=lm(server, "large"))
        with pytest.raises(ForeignEndpoint):
            DivideAndConquer(lm(server, "other"), lm(server, "large")).load(tmp_path / "p.json")


def test_bind_names_what_is_missing_or_unknown() -> None:
    with OpenAIServer(reply) as server:
        with pytest.raises(RoleWithoutEndpoint, match="solver has no endpoint"):
            bind(DivideAndConquer(), decomposer=lm(server, "small"))
        with pytest.raises(ValueError, match=r"no role judge; it has decomposer, solver"):
            bind(DivideAndConquer(), judge=lm(server, "small"))


def test_pickling_is_refused_with_a_reason(tmp_path: Path) -> None:
    program = DivideAndConquer()
    with pytest.raises(NotPickled, match=r"hold its LMs' keys.*program\.save"):
        pickle.dumps(program)
    with pytest.raises(RuntimeError, match="isn't pickled"):
        program.save(tmp_path / "whole", save_program=True)
    assert not list(tmp_path.glob("whole/*.pkl")) or (tmp_path / "whole" / "program.pkl").stat().st_size == 0


def test_copies_are_their_own_but_for_the_lms() -> None:
    with OpenAIServer(reply) as server:
        program = with_demo(DivideAndConquer(lm(server, "small"), lm(server, "large")))
        for other in (copy.deepcopy(program), program.deepcopy(), program.reset_copy()):
            assert other.decompose is not program.decompose
            assert other.decompose.lm is program.decompose.lm
            other.decompose.demos = []
            other.decompose.signature = other.decompose.signature.with_instructions("Other.")
            assert asyncio.run(other.acall(question="What?")).answer == "3"
        assert len(program.decompose.demos) == 1
        assert program.decompose.signature.instructions == "Split the question into parts."
