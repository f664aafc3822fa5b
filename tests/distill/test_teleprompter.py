"""DistillDecomposer, on our program and on one that isn't ours, with a real teacher over HTTP and a tiny student."""

import json
from pathlib import Path

import dspy
import pytest
from support.openai_server import OpenAIServer, fields_asked, in_fields, user_text

import divcon.distill._teleprompter as teleprompter
from divcon.distill import Base, DistillationError, DistillDecomposer, ManifestError, TrainSettings, bind_adapter
from divcon.programs import CompactAdapter, DivideAndConquer, ForeignEndpoint, RolePredict
from divcon.signatures import DivconError, Subquestions, UnusableArgument

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


def exported(folder: Path) -> Path:
    return next((folder / "exports").glob("*.jsonl"))


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
    rows = [json.loads(line) for line in exported(tmp_path).read_text().splitlines()]
    assert [row["completion"][0]["content"] for row in rows] == ["Go 0.", "Go 1.", "Go 2.", "Go 7."]
    assert rows[0]["prompt"][-1]["content"] == "Goal: Go 0"
    card = (Path(found["adapter"]) / "README.md").read_text(encoding="utf-8")
    assert "Teacher: `openai/teacher`." in card
    assert "4 of 8 plans were kept (1 cut_off, 1 unreadable, 2 unsolved lost)" in card
    assert "    Goal: {goal}" in card


def test_rows_are_the_bytes_of_inference(tiny_base: Base, tmp_path: Path) -> None:
    with OpenAIServer(reply) as server:
        compiled = distil(tiny_base, tmp_path).compile(errand(server), trainset=goals(), teacher=lm(server, "teacher"))
    rows = [json.loads(line) for line in exported(tmp_path).read_text().splitlines()]
    assert compiled.plan.prompt(goal="Go 7") == rows[-1]["prompt"]


def test_nothing_is_asked_twice_and_a_failure_loses_nothing(tiny_base: Base, tmp_path: Path) -> None:
    broken = {"on": True}

    def shaky(body: dict):
        if broken["on"] and "steps" in fields_asked(body) and number_in(body) == 7:
            return 500
        return reply(body)

    with OpenAIServer(shaky) as server:
        program = errand(server)
        with pytest.raises(DistillationError, match=r"1 of 8 runs of the program failed.*Compile again"):
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
        ({"trainset": ["Go 1"]}, r"Number 1 of the trainset is a str.*with_inputs"),
        ({"trainset": [dspy.Example(goal="Go 1")]}, r"Example 1 of the trainset.*with_inputs"),
        ({"valset": [*goals(1), None]}, r"Number 2 of the valset is a NoneType"),
        ({"teacher": "gpt-5"}, "neither an LM nor a program"),
        ({"teacher": [Errand(), Errand()]}, "several teachers"),
        ({"metric": lambda e, p, t=None: False}, "None of 8 runs of the program can be learnt from"),
        ({"no_lm": None}, "predictor 'act' has no LM"),
        ({"no_lm": "openai/actor"}, "predictor 'act' has a str for its LM"),
    ],
)
def test_bad_input_is_named(tiny_base: Base, tmp_path: Path, change: dict, says: str) -> None:
    with OpenAIServer(reply) as server:
        program = errand(server)
        if "no_lm" in change:
            program.act.lm = change["no_lm"]
        tune = distil(tiny_base, tmp_path, **({"predictor": change["predictor"]} if "predictor" in change else {}))
        tune.metric = change.get("metric", good)
        with pytest.raises(DistillationError, match=says):
            tune.compile(
                program,
                trainset=change.get("trainset", goals()),
                teacher=change.get("teacher", lm(server, "teacher")),
                valset=change.get("valset"),
            )
        assert server.requests == [] or "metric" in change


def test_what_training_lacks_is_named_before_a_call_is_paid_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OpenAIServer(reply) as server:
        tune = DistillDecomposer(good, tmp_path, predictor="plan", base=str(tmp_path / "nowhere"))
        with pytest.raises(DivconError, match=r"no folder '.*nowhere'"):
            tune.compile(errand(server), trainset=goals())
        monkeypatch.setattr(teleprompter, "_TRAINED_WITH", ("torch", "no_such_package"))
        with pytest.raises(DistillationError, match=r"needs no_such_package.*pip install 'divcon\[train\]'"):
            tune.compile(errand(server), trainset=goals())
        assert server.requests == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"metric": 0.9}, r"metric is a float.*lambda"),
        ({"samples": 0}, "samples is 0"),
        ({"concurrency": 1.5}, r"concurrency is 1\.5"),
        ({"adapter": "chat"}, "adapter is a str"),
        ({"train": {"epochs": 1}}, r"train is a dict.*TrainSettings"),
    ],
)
def test_bad_settings_are_refused_at_once(tmp_path: Path, given: dict, said: str) -> None:
    with pytest.raises(UnusableArgument, match=said):
        DistillDecomposer(**{"metric": good, "folder": tmp_path, **given})


@pytest.fixture(scope="module")
def trained(tiny_base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bind")
    with OpenAIServer(reply) as server:
        program = DivideAndConquer(lm(server, "small"), lm(server, "large"))
        examples = [dspy.Example(question=f"Q{i}?").with_inputs("question") for i in range(4)]
        tune = DistillDecomposer(lambda e, p, trace=None: True, folder, base=str(tiny_base.path), train=TRAIN)
        tune.compile(program, trainset=examples)
    return next((folder / "adapters").iterdir())


CHANGES = {
    "instruction": lambda role: setattr(role, "signature", role.signature.with_instructions("Cut it up.")),
    "demos": lambda role: role.demos.append({"question": "Q?", "subquestions": Subquestions(["What is a?"])}),
    "layout": lambda role: setattr(role, "adapter", CompactAdapter(labels={"question": "Task"})),
    "set of outputs": lambda role: setattr(role, "signature", role.signature.append("note", dspy.OutputField())),
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


# -- programs of other makes -------------------------------------------------------------------------------------------


class Queue(dspy.Module):
    """It uses up the planner's list, and hands the planner a list that it goes on filling."""

    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("goal, done: list[str] -> steps: list[str]")

    def forward(self, goal: str) -> dspy.Prediction:
        done: list[str] = []
        for _ in range(2):
            steps = self.plan(goal=goal, done=done).steps
            while steps:
                done.append(steps.pop(0))
        return dspy.Prediction(result="good")


class Awaited(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("goal -> steps")

    async def aforward(self, goal: str) -> dspy.Prediction:
        return dspy.Prediction(result="good", steps=(await self.plan.acall(goal=goal)).steps)


class Aliased(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("goal -> steps")
        self.again = [self.plan]

    def forward(self, goal: str) -> dspy.Prediction:
        return dspy.Prediction(result="good", steps=[self.plan(goal=goal).steps, self.again[0](goal=goal).steps])


class Best(dspy.Module):
    def __init__(self) -> None:
        super().__init__()
        self.plan = dspy.Predict("goal -> steps")

    def forward(self, goal: str) -> dspy.Prediction:
        best = dspy.BestOfN(self.plan, N=2, reward_fn=lambda a, p: float("second" in p.steps), threshold=1.0)
        return dspy.Prediction(result="good", steps=best(goal=goal).steps)


def rows_of(folder: Path) -> list[tuple[str, str]]:
    rows = [json.loads(line) for line in exported(folder).read_text().splitlines()]
    return [(row["prompt"][-1]["content"], row["completion"][0]["content"]) for row in rows]


def test_rows_are_what_was_asked_and_said_then_whatever_the_program_made_of_it(tiny_base: Base, tmp_path: Path) -> None:
    def two_steps(body: dict) -> str:
        return in_fields(steps='["left", "right"]', completed="")

    with OpenAIServer(two_steps) as server:
        program = Queue()
        program.plan.lm = lm(server, "planner")
        distil(tiny_base, tmp_path).compile(program, trainset=goals(1))
    (first, said), (second, _) = rows_of(tmp_path)
    assert json.loads(said) == ["left", "right"]
    assert "left" not in first
    assert "left" in second


@pytest.mark.parametrize("make", [Awaited, Aliased, Best])
def test_programs_of_other_makes(tiny_base: Base, tmp_path: Path, make: type[dspy.Module]) -> None:
    def numbered(body: dict) -> str:
        return in_fields(steps=f"Go {number_in(body)}{' second' if body.get('temperature') else ''}.", completed="")

    with OpenAIServer(numbered) as server:
        program = make()
        program.plan.lm = lm(server, "planner")
        compiled = distil(tiny_base, tmp_path).compile(program, trainset=goals(4))
        assert compiled.distillation["kept"] == 4
        assert len(rows_of(tmp_path)) == 4
        if make is Aliased:
            assert compiled.again[0] is compiled.plan and compiled.plan.lm.model.startswith("embedded/")


def test_a_program_compiled_earlier_keeps_its_adapter(tiny_base: Base, tmp_path: Path) -> None:
    def saying(word: str):
        return lambda body: in_fields(**dict.fromkeys([f for f in fields_asked(body) if f != "completed"], word))

    tune = distil(tiny_base, tmp_path, train=TrainSettings(epochs=8, batch_size=4, rank=8, learning_rate=2e-2))
    tune.metric = lambda e, p, t=None: True
    compiled = []
    for word in ("alpha", "gamma"):
        with OpenAIServer(saying(word)) as server:
            compiled.append(tune.compile(errand(server), trainset=goals(4), teacher=lm(server, f"teacher-{word}")))
    first, second = (program.plan.lm for program in compiled)
    assert first.model != second.model
    second.kill()
    first.launch()
    prompt = compiled[0].plan.prompt(goal="Go 1")
    text = "".join(f"{message['role']}: {message['content']}" for message in prompt)
    assert first(text) != second(text), "each answers with its own weights"


def test_two_compilations_do_not_share_a_folder_at_once(tiny_base: Base, tmp_path: Path) -> None:
    from filelock import FileLock

    tmp_path.mkdir(exist_ok=True)
    with OpenAIServer(reply) as server, FileLock(tmp_path / "compile.lock"):
        with pytest.raises(DistillationError, match="Another compilation is running"):
            distil(tiny_base, tmp_path).compile(errand(server), trainset=goals())
        assert server.requests == []


def test_what_is_in_flight_when_the_key_is_refused_is_kept(tiny_base: Base, tmp_path: Path) -> None:
    import time

    refusing = {"on": True}

    def slow(body: dict):
        time.sleep(0.5)  # so that the others are in flight when the first is refused
        return 401 if refusing["on"] and number_in(body) == 0 else reply(body)

    with OpenAIServer(slow) as server:
        program = errand(server)
        with pytest.raises(dspy.utils.exceptions.LMAuthError):
            distil(tiny_base, tmp_path).compile(program, trainset=goals(3))
        planned = [body for body in server.requests if "steps" in fields_asked(body)]
        refusing["on"] = False
        before = len(server.requests)
        distil(tiny_base, tmp_path).compile(program, trainset=goals(3))
        again = [body for body in server.requests[before:] if "steps" in fields_asked(body)]
    assert len(planned) == 3
    assert [number_in(body) for body in again] == [0], "only the refused one is asked again"


def test_a_field_that_is_no_text_is_named_before_anything_is_asked(tiny_base: Base, tmp_path: Path) -> None:
    class Looking(dspy.Module):
        def __init__(self) -> None:
            super().__init__()
            self.plan = dspy.Predict("picture: dspy.Image, goal -> steps")

    with OpenAIServer(reply) as server:
        program = Looking()
        program.plan.lm = lm(server, "planner")
        with pytest.raises(DistillationError, match="field 'picture' is a Image"):
            distil(tiny_base, tmp_path).compile(program, trainset=goals())
        assert server.requests == []


def test_a_reply_that_would_be_read_otherwise_is_lost(tiny_base: Base, tmp_path: Path) -> None:
    def labelled(body: dict) -> str:
        number = number_in(body)
        return in_fields(steps="Steps: go" if number == 0 else f"Go {number}.", result="good", completed="")

    with OpenAIServer(labelled) as server:
        compiled = distil(tiny_base, tmp_path).compile(errand(server), trainset=goals(3))
    assert compiled.distillation["lost"] == {"unreadable": 1}


def test_a_trained_role_answers_by_no_other_lm(trained: Path) -> None:
    with OpenAIServer(reply) as server:
        program = DivideAndConquer(lm(server, "decompose-000000000000"), lm(server, "large"))
        bind_adapter(program.decompose, program.decompose.lm, trained)
        program.decompose.lm = lm(server, "other")
        with pytest.raises(ForeignEndpoint, match="serves other"):
            program(question="Q?")
        assert server.requests == []
