"""What a role is asked: an untrained model with demonstrations, a trained one in the words that it learnt."""

import dspy
import pytest

from divcon._models import prompt_adapter_of, wording_of
from divcon.config import Endpoint
from divcon.programs import LEARNT, ChainOfThought, ChatAdapter, Direct, DivideAndConquer, SelfAsk, Wording
from divcon.signatures import Decompose, Reason, Subquestions, demonstrations


def test_the_shipped_solver_is_asked_what_it_learnt() -> None:
    for name in ("solver", "wide-solver"):
        endpoint = Endpoint(model=f"embedded/{name}")
        program = DivideAndConquer(solver_wording=wording_of(endpoint), adapter=prompt_adapter_of(endpoint))
        system, user = program.solve.prompt(question="Q?", subquestions=Subquestions(["How many?", "And then?"]))
        assert system["content"].startswith("Answer each subquestion in order, then the question.")
        assert user["content"] == "Question: Q?\nSubquestions:\n1. How many?\n2. And then?"
        direct = Direct(wording=wording_of(endpoint), adapter=prompt_adapter_of(endpoint))
        assert [m["content"] for m in direct.solve.prompt(question="Q?")] == [
            "Answer the question. Write the answer alone.",
            "Question: Q?",
        ]
        assert "config" not in direct._inputs("Q?", None), "it learnt to answer at once"


def test_an_untrained_solver_gets_the_subquestions_as_hints_behind_chain_of_thoughts_own_words() -> None:
    endpoint = Endpoint(model="openai/gpt-5")
    program = DivideAndConquer(solver_wording=wording_of(endpoint), adapter=prompt_adapter_of(endpoint))
    system, user = program.solve.prompt(question="Q?", subquestions=Subquestions(["How many?"]))
    reasons = ChainOfThought().solve.prompt(question="Q?")
    assert [system["content"], user["content"]] == [reasons[0]["content"], "Question: Q?\nHints:\n1. How many?"]
    assert "Final answer: ..." in Reason.instructions


def test_demonstrations_are_for_untrained_planners_and_come_back_on_reset() -> None:
    shown = demonstrations(Decompose)
    program = DivideAndConquer(max_subquestions=4)
    assert program.decompose.demos == shown
    program.decompose.demos = []
    program.decompose.reset()
    assert program.decompose.demos == shown
    assert DivideAndConquer(decomposer_wording=LEARNT).decompose.demos == []
    assert "No decomposition" not in str(program.decompose.prompt(question="Q?"))
    assert "No decomposition" in str(DivideAndConquer(allow_whole=True).decompose.prompt(question="Q?"))


@pytest.mark.parametrize("program", [DivideAndConquer, SelfAsk])
def test_either_role_is_asked_in_the_words_it_is_given(program: type[dspy.Module]) -> None:
    named = {"Decompose": "Cut it up.", "FollowUp": "Cut it up.", "Solve": "Work it out.", "SolveStep": "Work it out."}
    wording = Wording(named, demonstrate=False, labels={"question": "Frage"})
    made = program(decomposer_wording=wording, solver_wording=wording)
    for predictor, told in ((made.decompose, "Cut it up."), (made.solve, "Work it out.")):
        system, user = predictor.prompt(question="Q?")
        assert (system["content"], user["content"]) == (told, "Frage: Q?")


def test_the_chat_form_shows_no_json_schema_and_reads_answers_without_its_markers() -> None:
    program = DivideAndConquer(adapter=ChatAdapter())
    prompt = program.decompose.prompt(question="Q?")
    assert "schema" not in str(prompt).casefold()
    assert [message["role"] for message in prompt] == ["system", *["user", "assistant"] * 3, "user"]
    assert "1. Which river flows through Vienna" in prompt[2]["content"]
    adapter = ChatAdapter()
    assert adapter.parse(Reason, "3 * 4 = 12.\nThe answer is \\boxed{12}.")["answer"] == "12"
    marked = "[[ ## reasoning ## ]]\n3 * 4\n\n[[ ## answer ## ]]\n**12** plums\n\n[[ ## completed ## ]]"
    assert adapter.parse(Reason, marked) == {"reasoning": "3 * 4", "answer": "12 plums"}
