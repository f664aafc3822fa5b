"""DistillDecomposer, on our program and on one that isn't ours, with a real teacher over HTTP and a tiny student."""

import json
from pathlib import Path

import dspy
import pytest
from support.openai_server import OpenAIServer, fields_asked, in_fields, user_text

from divcon.distill import Base, DistillationError, DistillDecomposer, ManifestError, TrainSettings, bind_adapter
from divcon.programs import CompactAdapter, DivideAndConquer, RolePredict
from divcon.signatures import Subquestions

TRAIN = TrainSettings(epochs=1, batch_size=4, rank=2)


class Errand(dspy.Module):
    """A program of somebody else's: plain predictors, one of them called three times."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("goal -> steps")
        self.act = dspy.Predict("steps -> result")

    def forward(self, goal: str) -> dspy.Prediction:
        steps = self.plan(goal=goal).steps
        results = [self.act(steps=steps).result for _ in range(3)]
        return dspy.Prediction(steps=steps, result=results[-1])


def number_in(body: dict) -> int:
    return int("".join(letter for letter in user_text(body).split("Respond")[0] if letter.isdigit()) or 0)


def reply(body: dict):
    fields = fields_asked(body)
    if "steps" in fields:
        if number_in(body) == 3:
            return in_fields(steps="Go 3 and", completed=""), "length"
        if number_in(body) == 4:
            return "I would rather not."
        return in_fields(steps=f"Go {number_in(body)}.", completed="")
    if "result" in fields:
        return in_fields(result="bad" if number_in(body) in (5, 6) else "good", completed="")
    if "Split the question" in body["messages"][0]["content"]:
        return "1. What is one?\n2. What is two?"
    return "1. one\n2. two\nAnswer: 3"


def lm(server: OpenAIServer, name: str) -> dspy.LM:
    return dspy.LM(f"openai/{name}", api_base=server.url, api_key="k", cache=False, num_retries=0)


def goals(n: int = 8) -> list[dspy.Example]:
    return [dspy.Example(goal=f"Go {i}", want="good").with_inputs("goal") for i in range(n)]


def good(example: dspy.Example, prediction: dspy.Prediction, trace=None) -> bool:
    return prediction.result == example.want


def errand(server: OpenAIServer) -> Errand:
    program = Errand()
    program.plan.lm, program.act.lm = lm(server, "planner"), lm(server, "actor")
    return program


def distil(tiny_base: Base, folder: Path, **kwargs) -> DistillDecomposer:
    settings = {"predictor": "plan", "base": str(tiny_base.path), "train": TRAIN, "max_tokens": 8, **kwargs}
    return DistillDecomposer(good, folder, **settings)


def test_the_planner_of_a_foreign_program_moves_and_nothing_else(tiny_base: Base, tmp_path: Path) -> None:
    with OpenAIServer(reply) as server:
        program = errand(server)
        compiled = distil(tiny_base, tmp_path).compile(program, trainset=goals(), teacher=lm(server, "teacher"))
        models = {(body["model"], "steps" in fields_asked(body)) for body in server.requests}
        assert models == {("teacher", True), ("actor", False)}
        assert type(program.plan) is dspy.Predict and program.plan.lm.model == "openai/planner"
        assert type(compiled.act) is dspy.Predict and compiled.act.lm.model == "openai/actor"
        assert isinstance(compiled.plan, RolePredict) and compiled.plan.lm.model.startswith("embedded/plan-")
    found = compiled.distillation
    assert (found["collected"], found["kept"]) == (8, 4)
    assert found["lost"] == {"cut_off": 1, "unreadable": 1, "unsolved": 2}
    rows = [json.loads(line) for line in (tmp_path / "exports" / "plan.jsonl").read_text().splitlines()]
    assert [row["completion"][0]["content"] for row in rows] == ["Go 0.", "Go 1.", "Go 2.", "Go 7."]
    assert rows[0]["prompt"][-1]["content"] == "Goal: Go 0"


def test_rows_are_the_bytes_of_inference(tiny_base: Base, tmp_path: Path) -> None:
    with OpenAIServer(reply) as server:
        compiled = distil(tiny_base, tmp_path).compile(errand(server), trainset=goals(), teacher=lm(server, "teacher"))
    rows = [json.loads(line) for line in (tmp_path / "exports" / "plan.jsonl").read_text().splitlines()]
    assert compiled.plan.prompt(goal="Go 7") == rows[-1]["prompt"]


def test_nothing_is_asked_twice_and_a_failure_loses_nothing(tiny_base: Base, tmp_path: Path) -> None:
    broken = {"on": True}

    def shaky(body: dict):
        if broken["on"] and "steps" in fields_asked(body) and number_in(body) == 7:
            return 500
        return reply(body)

    with OpenAIServer(shaky) as server:
        program = errand(server)
        with pytest.raises(DistillationError, match=r"1 of 8 runs of the program failed.*compile again"):
            distil(tiny_base, tmp_path).compile(program, trainset=goals(), teacher=lm(server, "teacher"))
        assert program.plan.lm.model == "openai/planner", "the program is as it was"
        broken["on"] = False
        before = len(server.requests)
        first = distil(tiny_base, tmp_path).compile(program, trainset=goals(), teacher=lm(server, "teacher"))
        # the plan of goal 7, and the one act it leads to (the three calls of it are equal)
        assert len(server.requests) - before == 2
        second = distil(tiny_base, tmp_path).compile(program, trainset=goals(), teacher=lm(server, "teacher"))
        assert len(server.requests) - before == 2
        assert first.plan.lm.model == second.plan.lm.model


def test_our_program_is_screened_by_its_own_cap_and_a_list_of_nothing(tiny_base: Base, tmp_path: Path) -> None:
    def asked(body: dict):
        if "Split the question" not in body["messages"][0]["content"]:
            return "1. one\n2. two\nAnswer: 3"
        number = number_in(body)
        long = "\n".join(f"{i}. What is {i}?" for i in range(1, 6))
        return {0: "No decomposition.", 1: long}.get(number, f"1. What is {number}?\n2. And then?")

    with OpenAIServer(asked) as server:
        program = DivideAndConquer(lm(server, "small"), lm(server, "large"))
        examples = [dspy.Example(question=f"Q{i}?").with_inputs("question") for i in range(6)]
        tune = DistillDecomposer(
            lambda e, p, trace=None: p.answer == "3", tmp_path, base=str(tiny_base.path), train=TRAIN
        )
        compiled = tune.compile(program, trainset=examples)
    assert compiled.distillation["lost"] == {"over_long": 1, "whole": 1}
    assert compiled.decompose.role == "decomposer"
    assert compiled.solve.lm.model == "openai/large"


def test_several_samples_are_several_calls_and_a_score_below_the_threshold_is_lost(
    tiny_base: Base, tmp_path: Path
) -> None:
    with OpenAIServer(reply) as server:
        tune = distil(tiny_base, tmp_path, samples=2)
        tune.metric = lambda e, p, trace=None: 0.05 if p.steps == "Go 1." else 1.0
        compiled = tune.compile(errand(server), trainset=goals(3), teacher=lm(server, "teacher"))
        plans = [body for body in server.requests if "steps" in fields_asked(body)]
    assert len(plans) == 6
    assert {body.get("temperature") for body in plans} == {0.7}
    assert compiled.distillation["lost"] == {"unsolved": 2}


def test_valset_scores_are_three_valued(tiny_base: Base, tmp_path: Path) -> None:
    with OpenAIServer(reply) as server:
        compiled = distil(tiny_base, tmp_path).compile(
            errand(server), trainset=goals(), teacher=lm(server, "teacher"), valset=goals(6)
        )
    before = compiled.distillation["valset"]["before"]
    assert before["answered"] + before["failed"] == 6
    assert set(compiled.distillation["valset"]) == {"before", "after"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"predictor": "think"}, "no predictor 'think'; it has plan, act"),
        ({"trainset": []}, "trainset is empty"),
        ({"teacher": "gpt-5"}, "neither an LM nor a program"),
        ({"teacher": [Errand(), Errand()]}, "several teachers"),
        ({"metric": lambda e, p, t=None: False}, "none can be learnt from"),
        ({"no_lm": True}, "predictor 'act' has no LM"),
    ],
)
def test_bad_input_is_named(tiny_base: Base, tmp_path: Path, change: dict, says: str) -> None:
    with OpenAIServer(reply) as server:
        program = errand(server)
        if change.get("no_lm"):
            program.act.lm = None
        tune = distil(tiny_base, tmp_path, **({"predictor": change["predictor"]} if "predictor" in change else {}))
        tune.metric = change.get("metric", good)
        with pytest.raises(DistillationError, match=says):
            tune.compile(
                program, trainset=change.get("trainset", goals()), teacher=change.get("teacher", lm(server, "teacher"))
            )


@pytest.fixture(scope="module")
def trained(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bind")
    with OpenAIServer(reply) as server:
        program = DivideAndConquer(lm(server, "small"), lm(server, "large"))
        examples = [dspy.Example(question=f"Q{i}?").with_inputs("question") for i in range(4)]
        tune = DistillDecomposer(lambda e, p, trace=None: True, folder, base=str(tiny_base.path), train=TRAIN)
        tune.compile(program, trainset=examples)
    return folder / "adapters" / "decompose"


CHANGES = {
    "instruction": lambda role: setattr(role, "signature", role.signature.with_instructions("Cut it up.")),
    "demos": lambda role: role.demos.append({"question": "Q?", "subquestions": Subquestions(["What is a?"])}),
    "layout": lambda role: setattr(role, "adapter", CompactAdapter(labels={"question": "Task"})),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_what_changed_since_the_training_is_named_and_refused_unless_allowed(trained: Path, changed: str) -> None:
    served = dspy.LM("embedded/decompose-000000000000", api_base="http://127.0.0.1:9", api_key="k")
    role = DivideAndConquer().decompose
    bind_adapter(role, served, trained)
    assert role.trained["served"] == "decompose-000000000000"
    CHANGES[changed](role)
    with pytest.raises(ManifestError, match=f"trained with another {changed} than the program has"):
        bind_adapter(role, served, trained)
    bind_adapter(role, served, trained, allow=[changed])
    with pytest.raises(ValueError, match="allow holds prompt"):
        bind_adapter(role, served, trained, allow=["prompt"])


def test_a_changed_chat_template_is_named(trained: Path, tiny_base: Base) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_base.path)
    served = dspy.LM("embedded/x", api_base="http://127.0.0.1:9", api_key="k")
    bind_adapter(DivideAndConquer().decompose, served, trained, tokenizer=tokenizer)
    tokenizer.chat_template = tokenizer.chat_template.replace("assistant", "helper")
    with pytest.raises(ManifestError, match="another chat template"):
        bind_adapter(DivideAndConquer().decompose, served, trained, tokenizer=tokenizer)


@pytest.mark.parametrize("host", [dspy.JSONAdapter(), dspy.XMLAdapter(), "two_step"])
def test_a_trained_decomposer_answers_the_same_in_any_host(trained: Path, tiny_base: Base, host) -> None:
    from divcon.distill import embedded_lm

    student = embedded_lm(str(tiny_base.path), adapter=trained, max_tokens=8)
    with OpenAIServer(reply) as server:
        program = DivideAndConquer(student, lm(server, "large"))
        bind_adapter(program.decompose, student, trained)
        plain = program(question="Q1?")
        adapter = dspy.TwoStepAdapter(lm(server, "extractor")) if host == "two_step" else host
        with dspy.context(adapter=adapter, lm=lm(server, "host")):
            hosted = program(question="Q1?")
        assert (hosted.subquestions, hosted.status, hosted.answer) == (plain.subquestions, plain.status, plain.answer)
        assert {body["model"] for body in server.requests} == {"large"}
