import json
import pickle
import time
from concurrent.futures import CancelledError
from pathlib import Path

import dspy
import pytest
from dspy.clients.utils_finetune import TrainDataFormat, TrainingStatus

from divcon.distill import Base, EmbeddedProvider, ManifestError, PromptDrift, TrainingError, embedded_lm
from divcon.distill.serving.embedded import local_base
from divcon.distill.serving.embedded._model import shared_model
from divcon.programs import DivideAndConquer

ROWS = [
    {
        "messages": [
            {"role": "system", "content": "Split."},
            {"role": "user", "content": f"Question: {i}?"},
            {"role": "assistant", "content": f"1. What is {i}?\n2. Why {i}?"},
        ]
    }
    for i in range(12)
]
SHORT = {"epochs": 1, "batch_size": 4, "rank": 2}


@pytest.fixture
def lm(tiny_base: Base, tmp_path: Path) -> dspy.LM:
    made = embedded_lm(str(tiny_base.path), max_tokens=8)
    made.provider.folder = tmp_path / "tuned"
    return made


def test_finetune_trains_an_adapter_and_gives_back_an_lm_that_answers_with_it(lm: dspy.LM) -> None:
    job = lm.finetune(ROWS, TrainDataFormat.CHAT, SHORT)
    tuned = job.result(timeout=120)
    assert job.status() is TrainingStatus.succeeded
    assert job.steps == (3, 3)
    assert tuned.model.startswith("embedded/tuned-")
    assert lm.model == "embedded/base"
    assert tuned("What?") != [""] or lm("What?")
    # Trained again on the same rows it is the same adapter, and takes no step.
    started = time.perf_counter()
    again = lm.finetune(ROWS, TrainDataFormat.CHAT, SHORT)
    assert again.result(timeout=120).model == tuned.model
    assert again.steps == (0, 0)
    assert time.perf_counter() - started < 30


def test_a_job_that_is_cancelled_ends_cancelled_and_goes_on_from_there(lm: dspy.LM) -> None:
    long = {**SHORT, "epochs": 200, "save_every": 50}
    job = lm.finetune(ROWS, TrainDataFormat.CHAT, long)
    while job.steps[0] < 2:
        assert job.status() in (TrainingStatus.pending, TrainingStatus.running)
        time.sleep(0.01)
    assert job.cancel() is True
    with pytest.raises(CancelledError, match="stopped after step"):
        job.result(timeout=60)
    assert job.status() is TrainingStatus.cancelled and job.cancelled() and job.cancel() is False
    job.thread.join(10)
    assert not job.thread.is_alive()
    checkpoints = list(lm.provider.folder.glob("*.checkpoints/checkpoint-*"))
    assert len(checkpoints) == 1


@pytest.mark.parametrize(
    ("rows", "form", "kwargs", "says"),
    [
        (ROWS, TrainDataFormat.COMPLETION, SHORT, "learns from chats"),
        (ROWS, TrainDataFormat.CHAT, {"lr": 1}, "train_kwargs: lr"),
        ([{"prompt": "a", "completion": "b"}], TrainDataFormat.CHAT, SHORT, "Training row 1 is no chat"),
        ([{"messages": ["a", "b"]}], TrainDataFormat.CHAT, SHORT, "Training row 1 is no chat"),
        (["a"], TrainDataFormat.CHAT, SHORT, "Training row 1 is no chat"),
        ([], TrainDataFormat.CHAT, SHORT, "holds no training row"),
    ],
)
def test_errors_come_out_as_exceptions(lm: dspy.LM, rows: list, form: TrainDataFormat, kwargs: dict, says: str) -> None:
    job = lm.finetune(rows, form, kwargs)
    with pytest.raises(TrainingError, match=says):
        job.result(timeout=60)
    assert job.status() is TrainingStatus.failed


def test_launch_and_kill_can_be_repeated(lm: dspy.LM) -> None:
    model = shared_model(local_base(lm.engine.base))
    lm.kill()
    lm.kill()
    assert model._models == {}
    lm.launch()
    loaded = model._models[""]
    lm.launch()
    assert model._models[""] is loaded
    lm.kill()
    assert model._models == {}
    assert lm("What?"), "the next request loads again"


def test_an_unknown_adapter_is_named(lm: dspy.LM) -> None:
    with pytest.raises(ManifestError, match="no adapter 'sd-r-000000000000'"):
        lm.copy(model="embedded/sd-r-000000000000").launch()


def test_the_lm_can_be_copied_pickled_and_saved(lm: dspy.LM) -> None:
    said = lm("What is it?")
    for other in (
        lm.copy(),
        pickle.loads(pickle.dumps(lm)),
        type(lm).load_state(lm.dump_state(), allow_custom_lm_class=True),
    ):
        assert other("What is it?") == said
    assert str(lm.engine.base) in json.dumps(lm.dump_state())


def test_samples_of_one_prompt_differ_and_repeat(lm: dspy.LM) -> None:
    def sample(rollout: int) -> list:
        return lm("What is it?", rollout_id=rollout, temperature=1.5)

    first = [sample(i)[0] for i in range(4)]
    assert len(set(first)) > 1
    assert [sample(i)[0] for i in range(4)] == first
    assert len(set(lm("What is it?", n=4, temperature=1.5))) > 1


def test_asking_an_adapter_another_prompt_than_it_learnt_is_said(lm: dspy.LM) -> None:
    tuned = lm.finetune(ROWS, TrainDataFormat.CHAT, SHORT).result(timeout=120)
    program = DivideAndConquer(tuned, lm)
    with pytest.warns(PromptDrift, match=r"adapter=CompactAdapter\(\)"), pytest.raises(Exception):  # noqa: B017
        program(question="What?")


def test_the_provider_is_found_by_prefix() -> None:
    assert EmbeddedProvider.is_provider_model("embedded/base")
    assert not EmbeddedProvider.is_provider_model("openai/gpt-5")


def test_trainings_and_answers_at_once_leave_each_other_alone(lm: dspy.LM, tmp_path: Path) -> None:
    """transformers loads models through the state of the whole process."""
    other = [{"messages": [*row["messages"][:-1], {"role": "assistant", "content": "Never."}]} for row in ROWS]
    lm.kill()
    jobs = [lm.finetune(rows, TrainDataFormat.CHAT, SHORT) for rows in (ROWS, other, ROWS)]
    said = [lm(f"What is {i}?")[0] for i in range(8)]
    tuned = [job.result(timeout=120) for job in jobs]
    assert len({one.model for one in tuned}) == 2
    assert [lm(f"What is {i}?")[0] for i in range(8)] == said
    assert jobs[0].exception() is None


def test_a_failed_job_has_an_exception(lm: dspy.LM) -> None:
    job = lm.finetune([], TrainDataFormat.CHAT, SHORT)
    assert isinstance(job.exception(timeout=60), TrainingError)


def test_an_adapter_whose_folder_was_trained_anew_is_refused(lm: dspy.LM) -> None:
    tuned = lm.finetune(ROWS, TrainDataFormat.CHAT, SHORT).result(timeout=120)
    engine = shared_model(local_base(lm.engine.base))
    name = tuned.model.removeprefix("embedded/")
    engine.unload(name)
    other = [{"messages": [*row["messages"][:-1], {"role": "assistant", "content": "Never."}]} for row in ROWS]
    again = lm.finetune(other, TrainDataFormat.CHAT, SHORT).result(timeout=120)
    engine._folders[name] = engine._folders[again.model.removeprefix("embedded/")]
    with pytest.raises(ManifestError, match="no longer the one"):
        tuned.launch()


def test_samples_of_a_local_teacher_differ_behind_a_store_too(lm: dspy.LM, tmp_path: Path) -> None:
    from divcon.distill import RunStore
    from divcon.distill._rebinding import stored_lm

    behind = stored_lm(lm, "teacher", RunStore(tmp_path / "run"))
    direct = [lm("What is it?", rollout_id=i, temperature=1.5)[0] for i in range(4)]
    stored = [behind("What is it?", rollout_id=i, temperature=1.5)[0] for i in range(4)]
    assert len(set(direct)) > 1
    assert len(set(stored)) > 1
