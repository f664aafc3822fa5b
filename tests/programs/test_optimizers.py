"""Every optimizer of DSPy 3.4.1 on a program with two LMs: which LM served which call, and where the LMs are after.

The figures in docs/optimizers.md are these tests' own.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
import numpy as np
import pytest
from support.openai_server import OpenAIServer, user_text
from support.programs import Nested

from divcon.distill import Base, DecompositionMetric, DistillDecomposer, TrainSettings, embedded_lm
from divcon.programs import CompactAdapter, DivideAndConquer, OneRole

EXAMPLES = 8


def kind(body: dict) -> str:
    """What a request asks, told by its shape, since optimizers change the words."""
    text = user_text(body)
    if not text.startswith("Question: "):
        return "meta"
    return "solve" if "Hints:" in text else "decompose"


def reply(body: dict) -> str:
    if kind(body) == "decompose":
        return "1. What is one?\n2. What is two?"
    if kind(body) == "solve":
        wrong = "Question: Q1?" in user_text(body) or "Question: Q5?" in user_text(body)
        return f"1. one\n2. two\nAnswer: {4 if wrong else 3}"
    text = "\n".join(m["content"] if isinstance(m["content"], str) else str(m["content"]) for m in body["messages"])
    says = f"Split the question into parts, try {len(text) % 97}."
    if "JSON object" in text:
        fields = re.findall(r'"(\w+)": "?\{', text.rpartition("Outputs will be a JSON object")[2])
        return json.dumps(dict.fromkeys(fields, says))
    fields = re.findall(r"\[\[ ## (\w+) ## \]\]", text.rpartition("Respond with")[2])
    return "\n".join(f"[[ ## {name} ## ]]\n{says}" for name in fields)


@dataclass
class Setting:
    server: OpenAIServer
    program: DivideAndConquer
    student: dspy.Module
    meta: dspy.LM
    trainset: list[dspy.Example]
    metric: DecompositionMetric

    @property
    def decompose(self) -> str:
        return "decompose" if self.student is self.program else "inner.decompose"

    def by_lm(self) -> set[tuple[str, str]]:
        return {(kind(body), body["model"]) for body in self.server.requests}

    def calls(self) -> dict[str, int]:
        return dict(Counter(kind(body) for body in self.server.requests))


def lm(server: OpenAIServer, name: str) -> dspy.LM:
    return dspy.LM(f"openai/{name}", api_base=server.url, api_key="k", cache=False, num_retries=0)


def right(example: dspy.Example, answer: str) -> bool:
    return answer == example.answer


@pytest.fixture(params=["top", "nested"])
def setting(request: pytest.FixtureRequest) -> Iterator[Setting]:
    with OpenAIServer(reply) as server:
        program = DivideAndConquer(lm(server, "small"), lm(server, "large"))
        student = Nested(program) if request.param == "nested" else program
        trainset = [dspy.Example(question=f"Q{i}?", answer="3").with_inputs("question") for i in range(EXAMPLES)]
        meta = lm(server, "global")
        with dspy.context(lm=meta):
            yield Setting(server, program, student, meta, trainset, DecompositionMetric(right))


def words(texts: list[str]) -> np.ndarray:
    """A vectorizer for KNN: counts of letters."""
    return np.array([[text.count(c) for c in "Q0123456789"] for text in texts], dtype=np.float32)


def labelled_few_shot(s: Setting) -> dspy.Module:
    return dspy.LabeledFewShot(k=2).compile(s.student, trainset=s.trainset)


def bootstrap(s: Setting) -> dspy.Module:
    return dspy.BootstrapFewShot(metric=s.metric, max_bootstrapped_demos=2).compile(s.student, trainset=s.trainset)


def random_search(s: Setting) -> dspy.Module:
    search = dspy.BootstrapFewShotWithRandomSearch(
        metric=s.metric, max_bootstrapped_demos=2, num_candidate_programs=2, num_threads=2
    )
    return search.compile(s.student, trainset=s.trainset)


def knn(s: Setting) -> dspy.Module:
    tune = dspy.KNNFewShot(k=2, trainset=s.trainset, vectorizer=dspy.Embedder(words), metric=s.metric)
    return tune.compile(s.student)


def copro(s: Setting) -> dspy.Module:
    tune = dspy.COPRO(metric=s.metric, prompt_model=s.meta, breadth=2, depth=1)
    return tune.compile(s.student, trainset=s.trainset, eval_kwargs={"num_threads": 2, "display_progress": False})


def mipro(s: Setting) -> dspy.Module:
    tune = dspy.MIPROv2(metric=s.metric, prompt_model=s.meta, auto=None, num_candidates=2, num_threads=2)
    return tune.compile(
        s.student,
        trainset=s.trainset[:4],
        valset=s.trainset[4:],
        num_trials=2,
        minibatch=False,
        max_bootstrapped_demos=1,
        max_labeled_demos=0,
    )


def gepa(s: Setting) -> dspy.Module:
    tune = dspy.GEPA(metric=s.metric, reflection_lm=s.meta, max_metric_calls=24, num_threads=1, use_merge=False)
    return tune.compile(s.student, trainset=s.trainset[:4], valset=s.trainset[4:])


def infer_rules(s: Setting) -> dspy.Module:
    tune = dspy.InferRules(metric=s.metric, num_candidates=1, num_rules=2, num_threads=2, max_bootstrapped_demos=1)
    return tune.compile(s.student, trainset=s.trainset)


def simba(s: Setting) -> dspy.Module:
    tune = dspy.SIMBA(metric=s.metric, bsize=4, num_candidates=2, max_steps=1, max_demos=1, num_threads=1)
    return tune.compile(OneRole(s.student, s.decompose), trainset=s.trainset).program


def best_of_n(s: Setting) -> dspy.Module:
    return dspy.BestOfN(OneRole(s.student, s.decompose), N=2, reward_fn=lambda a, p: p.answer == "9", threshold=1.0)


def refine(s: Setting) -> dspy.Module:
    return dspy.Refine(OneRole(s.student, s.decompose), N=2, reward_fn=nine, threshold=1.0)


def nine(args: dict, pred: dspy.Prediction) -> float:
    return float(pred.answer == "9")


def ensemble(s: Setting) -> dspy.Module:
    return dspy.Ensemble(reduce_fn=dspy.majority).compile([s.student, s.student.deepcopy()])


def better_together(s: Setting) -> dspy.Module:
    tune = dspy.BetterTogether(metric=s.metric, p=dspy.BootstrapFewShot(metric=s.metric, max_bootstrapped_demos=1))
    return tune.compile(s.student, trainset=s.trainset, valset_ratio=0.25, strategy="p", seed=0)


WORK: list[Callable[[Setting], dspy.Module]] = [
    labelled_few_shot, bootstrap, random_search, knn, copro, mipro, gepa, simba, infer_rules, best_of_n, refine,
    ensemble, better_together,
]  # fmt: skip


@pytest.mark.parametrize("optimize", WORK, ids=lambda f: f.__name__)
def test_both_lms_survive_and_serve_their_own_role(setting: Setting, optimize: Any, root: Path) -> None:
    compiled = optimize(setting)
    spent = setting.calls()
    compiled(question="Q0?")
    assert setting.by_lm() - {("meta", "global")} == {("decompose", "small"), ("solve", "large")}
    lms = {name.rpartition(".")[2]: p.lm.model for name, p in compiled.named_predictors()}
    if optimize in (best_of_n, refine):
        lms = {name.rpartition(".")[2]: p.lm.model for name, p in setting.student.named_predictors()}
    if optimize is not ensemble:  # its programs stand in a list
        assert lms == {"decompose": "openai/small", "solve": "openai/large"}
    row = next(
        line for line in (root / "docs" / "optimizers.md").read_text().splitlines() if f"`{optimize.__name__}`" in line
    )
    counted = " / ".join(str(spent.get(k, 0)) for k in ("decompose", "solve", "meta"))
    if setting.student is setting.program:
        assert f"| {counted} |" in row, f"docs/optimizers.md should say {counted} for {optimize.__name__}"


@pytest.mark.parametrize("optimize", WORK, ids=lambda f: f.__name__)
def test_the_given_program_keeps_its_prompts(setting: Setting, optimize: Any) -> None:
    def prompts(program: dspy.Module) -> list:
        return [(p.signature.instructions, p.demos) for p in (program.decompose, program.solve)]

    other = DivideAndConquer()
    before = prompts(setting.program), prompts(other)
    optimize(setting)
    assert (prompts(setting.program), prompts(other)) == before


def test_a_demonstration_that_was_bootstrapped_shows_a_split(setting: Setting) -> None:
    compiled = bootstrap(setting)
    demos = dict(compiled.named_predictors())[setting.decompose].demos
    shown = [demo for demo in demos if "subquestions" in demo]
    assert len(shown) == 2
    compiled(question="Q0?")
    asked = [body for body in setting.server.requests if kind(body) == "decompose"][-1]
    assert {"role": "assistant", "content": "1. What is one?\n2. What is two?"} in asked["messages"]


def test_gepa_changes_the_instruction_by_what_the_solver_made_of_the_subquestions(setting: Setting) -> None:
    gepa(setting)
    reflections = [body for body in setting.server.requests if kind(body) == "meta"]
    assert reflections
    assert any("is wrong; it should be '3'" in user_text(body) for body in reflections)


@pytest.mark.parametrize("refuses", ["SIMBA", "BestOfN", "Refine"])
def test_where_dspy_refuses_two_lms_it_says_so_rather_than_moving_one(setting: Setting, refuses: str) -> None:
    with pytest.raises(ValueError, match="Multiple LMs"):
        if refuses == "SIMBA":
            dspy.SIMBA(metric=setting.metric, bsize=4, num_candidates=2, max_steps=1).compile(
                setting.student, trainset=setting.trainset
            )
        else:
            getattr(dspy, refuses)(setting.student, N=2, reward_fn=nine, threshold=1.0)(question="Q0?")


def test_one_role_shows_one_predictor_and_runs_the_whole_program(setting: Setting) -> None:
    view = OneRole(setting.student, setting.decompose)
    with dspy.context(trace=[]):
        assert view(question="Q0?").answer == "3"
        assert [entry[0].role for entry in dspy.settings.trace] == ["decomposer"]
    assert view.get_lm().model == "openai/small"
    with pytest.raises(ValueError, match="no predictor 'plan'"):
        OneRole(setting.student, "plan")


TRAIN = TrainSettings(epochs=1, batch_size=4, rank=4)


def test_bootstrap_finetune_trains_the_decomposer_alone(setting: Setting, tiny_base: Base, tmp_path: Path) -> None:
    teacher = setting.student.deepcopy()
    local = embedded_lm(str(tiny_base.path), max_tokens=16, train_kwargs={**TRAIN.model_dump()})
    local.provider.folder = tmp_path
    dict(setting.student.named_predictors())[setting.decompose].lm = local
    tune = dspy.BootstrapFinetune(
        metric=setting.metric, adapter=CompactAdapter(), train_kwargs=TRAIN.model_dump(), num_threads=2
    )
    view = OneRole(setting.student, setting.decompose)
    trained = tune.compile(view, trainset=setting.trainset, teacher=OneRole(teacher, setting.decompose))
    rows = [json.loads(line) for line in next(tmp_path.glob("*.jsonl")).read_text().splitlines()]
    assert len(rows) == EXAMPLES - 2  # two examples end wrong
    assert all(row["completion"][0]["content"] == "1. What is one?\n2. What is two?" for row in rows)
    new = trained.predictors()[0].lm
    assert new.model.startswith("embedded/tuned-")
    assert setting.program.solve.lm.model == "openai/large"
    assert setting.by_lm() == {("decompose", "small"), ("solve", "large")}
    assert new("Q0?")


def test_distil_decomposer_is_better_togethers_weight_step(setting: Setting, tiny_base: Base, tmp_path: Path) -> None:
    distil = DistillDecomposer(
        setting.metric,
        tmp_path / "run",
        predictor=setting.decompose,
        base=str(tiny_base.path),
        train=TRAIN,
        max_tokens=16,
    )
    prompts = dspy.BootstrapFewShot(metric=setting.metric, max_bootstrapped_demos=1)
    tune = dspy.BetterTogether(metric=setting.metric, p=prompts, w=distil)
    compiled = tune.compile(setting.student, trainset=setting.trainset, valset_ratio=0, strategy="p -> w", seed=0)
    assert not compiled.flag_compilation_error_occurred
    lms = {name.rpartition(".")[2]: p.lm.model for name, p in compiled.named_predictors()}
    assert lms["solve"] == "openai/large"
    assert lms["decompose"].startswith("embedded/")
    assert setting.program.decompose.lm.model == "openai/small"


@pytest.mark.model
def test_bootstrap_finetune_makes_the_embedded_model_decompose(base: Base, tmp_path: Path) -> None:
    """DSPy's own teleprompter, our provider, the real base: untrained it writes no list, trained it does."""
    fruits = ("plums", "pears", "nuts", "figs", "eggs", "beans", "cards", "coins")

    def teach(body: dict) -> str:
        text = user_text(body)
        if kind(body) == "decompose":
            fruit = next(fruit for fruit in fruits if fruit in text)
            return f"1. How many {fruit} are in the bags?\n2. How many {fruit} are left?"
        return "1. 12\n2. 10\nAnswer: 10"

    def ask(fruit: str) -> str:
        return f"Ada has 3 bags of 4 {fruit} and eats 2. How many {fruit} are left?"

    with OpenAIServer(teach) as server:
        local = embedded_lm(max_tokens=48)
        local.provider.folder = tmp_path
        student = DivideAndConquer(local, lm(server, "large"))
        teacher = DivideAndConquer(lm(server, "small"), lm(server, "large"))
        examples = [dspy.Example(question=ask(fruit), answer="10").with_inputs("question") for fruit in fruits[:-1]]
        settings = {"epochs": 4, "batch_size": 4, "rank": 16, "learning_rate": 2e-3}
        tune = dspy.BootstrapFinetune(
            metric=DecompositionMetric(right), adapter=CompactAdapter(), train_kwargs=settings, num_threads=2
        )
        before = student.decompose.lm(messages=student.decompose.prompt(question=ask(fruits[-1])))
        trained = tune.compile(
            OneRole(student, "decompose"), trainset=examples, teacher=OneRole(teacher, "decompose")
        ).program
        said = trained(question=ask(fruits[-1]))
        assert said.status == "decomposed"
        assert list(said.subquestions) == ["How many coins are in the bags?", "How many coins are left?"]
        assert "How many coins are in the bags?" not in str(before)
        assert trained.solve.lm.model == "openai/large"
