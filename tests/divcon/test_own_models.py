"""Teacher and solver on bases of one's own: shared where they are equal, by turns where memory is short."""

import itertools
import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support.openai_server import OpenAIServer

from divcon import Run, load_pipeline
from divcon._doctor import diagnose
from divcon._models import Models
from divcon._watch import Silent
from divcon.config import ConfigError, Pipeline
from divcon.distill import Base, EmbeddedModel, RunStore
from divcon.distill.serving.server import Installation, ServedModel
from divcon.pipeline._estimate import total_of
from divcon.signatures import DivconError

pytestmark = pytest.mark.model


def file_of(folder: Path, teacher: Any, student: Any, solver: Any, roles: str = "", more: str = "") -> Path:
    def own(given: Any) -> str:
        return f"{{base: '{given}', max_tokens: 6}}" if isinstance(given, Path) else given

    file = folder / "own.yaml"
    file.write_text(
        f"""\
task: {{name: word-problems, train: 4, test: 3}}
roles:
  teacher: {own(teacher)}
  decomposer: {own(student)}
  solver: {own(solver)}
  {roles}
screen: {{rule: none}}
evaluate: {{arms: [direct, teacher, untuned], resamples: 100}}
{more}
"""
    )
    return file


class Counting(Silent):
    """Keeps what each line of progress counts."""

    def __init__(self) -> None:
        self.units: list[str] = []

    def progress(self, name: str, done: int, total: int, note: str = "") -> None:
        self.units.append(note.split()[0].rstrip(","))


@pytest.fixture
def other(tiny_base: Base, tmp_path: Path) -> Path:
    """A second base."""
    return Path(shutil.copytree(tiny_base.path, tmp_path / "other-base"))


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders of the bases that are loaded, in order."""
    seen: list[str] = []
    load = EmbeddedModel._load

    def noted(model: EmbeddedModel, adapter: str) -> Any:
        seen.append(model.base.path.name)
        return load(model, adapter)

    monkeypatch.setattr(EmbeddedModel, "_load", noted)
    return seen


def models_of(file: Path, folder: Path, *overrides: str) -> Models:
    return Models(load_pipeline(file, overrides), RunStore(folder), list, folder / "vllm.log", lambda text: None)


def test_a_pipeline_of_open_models_is_measured_and_costs_nothing_unless_a_price_is_given(
    tmp_path: Path, other: Path, tiny_base: Base, loads: list[str]
) -> None:
    # A folder of its own: another test of this process may have loaded the tiny base.
    one = Path(shutil.copytree(tiny_base.path, tmp_path / "one-base"))
    teacher = f"{{base: {one}, serve: embedded, max_tokens: 6, adapter: chat}}"
    file = file_of(tmp_path, teacher, one, other)
    run = Run(load_pipeline(file), tmp_path / "run")
    run.check()
    whole = total_of(run.estimate())
    assert (whole.usd, whole.most_usd) == (0.0, 0.0)
    assert not loads, "an estimate loads nothing"
    priced = Run(load_pipeline(file, ["roles.teacher.price={input: 1, output: 2}"]), tmp_path / "run")
    assert (total_of(priced.estimate()).usd or 0) > 0
    priced.close()
    results = run.evaluate()
    assert results["teacher"] == {"model": "one-base", "kind": "model"}
    assert results["solver"] == "other-base"
    assert all(arm["failed"] == 0 and arm["right"] + arm["wrong"] == 3 for arm in results["arms"])
    assert results["arms"][1]["usage"]["decomposer"]["calls"] == 3
    assert (run.models.teacher.kwargs["temperature"], run.models.solver.kwargs["max_tokens"]) == (0.0, 6)
    assert sorted(loads) == ["one-base", "other-base"], "teacher and student share a model"
    run.close()


def test_three_roles_on_one_base_load_it_once(tmp_path: Path, tiny_base: Base, loads: list[str]) -> None:
    folder = Path(shutil.copytree(tiny_base.path, tmp_path / "one-for-all"))
    run = Run(load_pipeline(file_of(tmp_path, folder, folder, folder)), tmp_path / "run")
    run.evaluate()
    assert loads == ["one-for-all"]
    models, roles = run.models, run.pipeline.roles
    assert models.served("teacher", roles.teacher) is models.served("solver", roles.solver) is models.student_model
    run.close()


def test_bases_that_take_turns_are_loaded_once_each_and_the_first_is_freed(
    tmp_path: Path, other: Path, tiny_base: Base, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Path(shutil.copytree(tiny_base.path, tmp_path / "one"))
    run = Run(load_pipeline(file_of(tmp_path, one, one, other, "servers: turns")), tmp_path / "run")
    first = run.models.served("teacher", run.pipeline.roles.teacher)
    kept: list[Any] = []
    unload = EmbeddedModel.unload

    def noted(model: EmbeddedModel, adapter: str = "") -> None:
        kept.extend(weakref.ref(part.get_input_embeddings().weight) for part in model._models.values())
        unload(model, adapter)
        loads.append(f"{model.base.path.name} freed")

    monkeypatch.setattr(EmbeddedModel, "unload", noted)
    results = run.evaluate()
    assert loads == ["one", "one freed", "other-base"]
    assert [ref() for ref in kept] == [None]
    assert not first._models
    assert results["arms"][1]["usage"]["decomposer"]["calls"] == 3
    run.close()
    assert loads[-1] == "other-base freed"


def test_bases_that_share_the_processor_compute_one_after_the_other_and_both_stay_loaded(
    tmp_path: Path, other: Path, tiny_base: Base, loads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Path(shutil.copytree(tiny_base.path, tmp_path / "one"))
    asked: list[str] = []
    answer = EmbeddedModel._answer

    def noted(model: EmbeddedModel, batch: list[Any]) -> list[Any]:
        asked.append(model.base.path.name)
        return answer(model, batch)

    monkeypatch.setattr(EmbeddedModel, "_answer", noted)
    reporter = Counting()
    run = Run(load_pipeline(file_of(tmp_path, one, one, other)), tmp_path / "run", reporter)
    records = run.answers(run.arms())
    run.close()
    assert [unit for unit, _ in itertools.groupby(reporter.units)] == ["plans", "answers"]
    assert [name for name, _ in itertools.groupby(asked)] == ["one", "other-base"], "all plans, then all answers"
    assert loads == ["one", "other-base"]
    assert {name: ["planned" in record for record in found.values()] for name, found in records.items()} == {
        "direct": [False] * 3,
        "teacher": [False, True, True],  # a base was loaded for the first
        "untuned": [True] * 3,
    }


def test_self_ask_asks_both_bases_in_turn_where_they_share_the_processor(
    tmp_path: Path, other: Path, tiny_base: Base
) -> None:
    file = file_of(tmp_path, tiny_base.path, tiny_base.path, other)
    run = Run(load_pipeline(file, ["evaluate.arms=[self-ask]"]), tmp_path / "run")
    [records] = run.answers(run.arms()).values()
    run.close()
    assert [(record["outcome"] != "failed", "planned" in record) for record in records.values()] == [(True, False)] * 3


def test_together_and_by_turns_the_answers_and_their_keys_are_the_same(
    tmp_path: Path, other: Path, tiny_base: Base
) -> None:
    found = []
    for servers in ("together", "turns"):
        file = file_of(tmp_path, tiny_base.path, tiny_base.path, other, f"servers: {servers}")
        run = Run(load_pipeline(file), tmp_path / servers)
        arms = run.arms()
        records = run.answers(arms)
        hidden = {"started", "seconds", "planned", "warm_up", "usage"}
        answers = {
            name: [{k: v for k, v in r.items() if k not in hidden} for r in records[name].values()] for name in records
        }
        found.append((answers, {arm.name: arm.key.digest for arm in arms}, run.keys.collection().digest))
        run.close()
    assert found[0] == found[1]


def test_another_base_is_another_teacher(tmp_path: Path, other: Path, tiny_base: Base) -> None:
    def digest(teacher: Path, precision: str) -> str:
        file = file_of(tmp_path, teacher, tiny_base.path, tiny_base.path, f"precision: {precision}")
        return Run(load_pipeline(file), tmp_path / "run").keys.collection().digest

    first = digest(tiny_base.path, "bfloat16")
    assert digest(other, "bfloat16") == first, "equal weights in another folder write the same"
    assert digest(other, "float32") != first
    weights = load_file(other / "model.safetensors")
    save_file({name: value * 2 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    assert digest(other, "bfloat16") != first


def test_a_model_on_a_running_server_is_asked_there(tmp_path: Path, tiny_base: Base) -> None:
    name = tiny_base.path.name
    with OpenAIServer(lambda body: "1. What is it?\nFinal answer: 7", served=(name,)) as server:
        own = f"{{base: {tiny_base.path}, serve: vllm, max_tokens: 9, server: {{api_base: '{server.url}'}}}}"
        run = Run(load_pipeline(file_of(tmp_path, own, tiny_base.path, own)), tmp_path / "run")
        records = run.answers([run.arm("direct"), run.arm("teacher")])
        assert {record["outcome"] for found in records.values() for record in found.values()} <= {"right", "wrong"}
        assert len(server.requests) == 9
        assert {(body["model"], body["temperature"]) for body in server.requests} == {(name, 0.0)}
        run.close()


def test_a_student_shares_a_server_unless_its_adapters_are_merged(tmp_path: Path, tiny_base: Base) -> None:
    server = "server: {arguments: {max-model-len: 512}}"
    own = f"{{base: {tiny_base.path}, serve: vllm, {server}}}"
    file = file_of(tmp_path, own, own, own)
    for build, shared in (("2.13.0+cpu", False), ("2.13.0", True)):
        models = models_of(file, tmp_path / build)
        roles, student = models.pipeline.roles, models.student_model
        assert isinstance(student, ServedModel)
        student.__dict__["installation"] = Installation(Path("python"), {"vllm": "0.32.0", "torch": build})
        teacher = models.served("teacher", roles.teacher)
        assert (teacher is student) is shared
        assert (models.served("solver", roles.solver) is teacher) is shared or teacher is not student
        assert teacher.log.name == ("vllm.log" if shared else "vllm-teacher.log")
    elsewhere = models_of(file, tmp_path / "elsewhere", "roles.solver.server={arguments: {max-model-len: 256}}")
    elsewhere.student_model.__dict__["installation"] = Installation(Path("python"), {"vllm": "0.32.0"})
    assert elsewhere.served("solver", elsewhere.pipeline.roles.solver) is not elsewhere.student_model


def test_a_base_that_thinks_is_told_not_to(tmp_path: Path, other: Path, tiny_base: Base) -> None:
    template = other / "chat_template.jinja"
    template.write_text(template.read_text() + "{% if enable_thinking is defined %}{% endif %}")
    for serve in ("embedded", "vllm, server: {api_base: 'http://127.0.0.1:9/v1'}"):
        models = models_of(
            file_of(tmp_path, tiny_base.path, tiny_base.path, f"{{base: {other}, serve: {serve}}}"), tmp_path
        )
        backend = models.solver.engine.backend
        told = backend.thinks is False if serve == "embedded" else backend.added
        assert told in (True, {"chat_template_kwargs": {"enable_thinking": False}})
        assert models.teacher.engine.backend.thinks


def test_a_base_without_a_chat_template_is_refused_before_the_run(tmp_path: Path, other: Path, tiny_base: Base) -> None:
    (other / "chat_template.jinja").unlink()
    run = Run(load_pipeline(file_of(tmp_path, tiny_base.path, tiny_base.path, other)), tmp_path / "run")
    with pytest.raises(DivconError, match=r"other-base has no chat template\. Take an instruction-tuned model"):
        run.check()
    run.close()


def test_the_doctor_looks_at_the_bases_of_all_roles(tmp_path: Path, tiny_base: Base) -> None:
    file = file_of(tmp_path, tiny_base.path, tiny_base.path, tmp_path / "nowhere")
    found = {one.what: one for one in diagnose(load_pipeline(file), tmp_path / "run", data=False)}
    assert (found["teacher"].level, "in this process" in found["teacher"].text) == ("ok", True)
    assert (found["solver"].level, "nowhere" in found["solver"].text) == ("failure", True)
    assert "price" not in found


A = "{base: /models/a, serve: vllm}"
B = "{base: /models/b}"


@pytest.mark.parametrize(
    ("teacher", "solver", "more", "said"),
    [
        ("{base: /a, model: openai/x}", B, "", "give one of model"),
        ("{max_tokens: 4}", B, "", "give one of model"),
        ("{base: /a, api_base: 'http://h/v1'}", B, "", "api_base goes with model"),
        ("{base: /a, timeout: 3}", B, "", "timeout goes with model"),
        ("{model: openai/x, serve: vllm}", B, "", "serve goes with base"),
        (
            "{base: /a, server: {port: 8000}}",
            B,
            "",
            "server is for 'serve: vllm', and this model is served in this proc",
        ),
        (
            A,
            "{base: /models/b, serve: vllm, server: {arguments: {dtype: float16}}}",
            "PRECISION",
            "solver.server.arguments",
        ),
        (A, B, "compile: {optimizer: bootstrap}", "the optimizer bootstrap asks teacher and solver in turn"),
        (A, B, "run: {executor: ray}", "turns is for run.executor: threads"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, teacher: str, solver: str, more: str, said: str) -> None:
    roles = "precision: float32" if more == "PRECISION" else "servers: turns"
    with pytest.raises(ConfigError, match=said):
        load_pipeline(file_of(tmp_path, teacher, "{}", solver, roles, more.removeprefix("PRECISION")))


def test_self_ask_takes_no_turns_unless_both_are_one_model(tmp_path: Path) -> None:
    arms = ["evaluate.arms=[self-ask]"]
    with pytest.raises(ConfigError, match="the arm self-ask asks teacher and solver in turn"):
        load_pipeline(file_of(tmp_path, A, "{}", B, "servers: turns"), arms)
    assert load_pipeline(file_of(tmp_path, A, "{}", A, "servers: turns"), arms).roles.servers == "turns"


def test_a_file_with_bases_is_read_again_from_its_folder(tmp_path: Path) -> None:
    pipeline = load_pipeline(file_of(tmp_path, A, "{}", B, "servers: turns"))
    assert Pipeline.model_validate_json(pipeline.model_dump_json()) == pipeline
    assert Pipeline.model_validate(pipeline.model_dump(mode="json", exclude_unset=True)) == pipeline
