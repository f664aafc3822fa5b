import asyncio
import hashlib
import random
import shutil
import threading
import time
import weakref
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dspy
import pytest
from dspy.lm15 import Config, Message, Request

from divcon.distill import (
    Base,
    EmbeddedModel,
    ManifestError,
    Provenance,
    RunStore,
    StoredEngine,
    Training,
    TrainSettings,
    render_lines,
    role_lm,
    train_adapter,
)
from divcon.distill.serving.embedded import WantedPrecision, solver_adapter
from divcon.distill.serving.embedded._decoding import Job, _choose, _ends, decode, grouped_attention
from divcon.programs import RolePredict
from divcon.signatures import Answer, Decompose, Subquestions

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def model(base: Base) -> EmbeddedModel:
    return EmbeddedModel(base, batch_size=16)


@pytest.fixture(scope="module")
def adapter(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that answers every question with the same unlikely line."""
    folder = tmp_path_factory.mktemp("adapters")
    decompose = RolePredict(Decompose, "decomposer")
    rows = [
        decompose.training_row({"question": f"What is {i}?"}, {"subquestions": Subquestions(["Zebra or quartz?"])})
        for i in range(8)
    ]
    (folder / "rows.jsonl").write_text(render_lines(rows))
    settings = TrainSettings(epochs=10, batch_size=8, learning_rate=5e-3, rank=4)
    train_adapter(Training(folder / "rows.jsonl", base, folder / "zebra", settings), Provenance(student="zebra"))
    return folder / "zebra"


@pytest.fixture(scope="module")
def shallow(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The embedded base's first three layers: products of the same shapes, in a tenth of the time."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("shallow")
    model = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.bfloat16)
    model.model.layers = model.model.layers[:3]
    model.config.num_hidden_layers = 3
    model.config.layer_types = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base.path).save_pretrained(folder)
    return replace(base, path=folder, id="tests/shallow")


def request(text: str, **config) -> Request:
    return Request(model="embedded/base", messages=(Message.user(text),), config=Config(**{"max_tokens": 12, **config}))


PROMPTS = [
    f"Write a word that begins with {letter}{' please' * (n % 5)}." for n, letter in enumerate("abcdefghijklmnopqrst")
]


def answered(model: EmbeddedModel, requests: list[Request]) -> list[list[int]]:
    """The token ids that the engine writes to requests which arrive together, in this order."""
    backend = model.backend()
    jobs = [backend._job(asked, 3) for asked in requests]
    return [future.result()[0] for future in [model.submit(job) for job in jobs]]


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_reply_depends_on_its_own_request_alone_whatever_the_company(
    shallow: Base, precision: WantedPrecision, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The promise behind resuming: other batches, the same logits, bit for bit, so the same replies."""
    model = EmbeddedModel(shallow, precision=precision)
    requests = [
        request(f"Write a word that begins with {n}{' please' * (n % 5)}.", max_tokens=2 + n % 4, temperature=heat)
        for n in range(32)
        for heat in (0.0, 0.9)
    ]
    seen: dict[tuple, set[str]] = defaultdict(set)

    def watched(logits, rows):
        for row, job in zip(logits, rows, strict=True):
            asked = (tuple(job.ids), job.temperature, tuple(job.written))
            if not job.done.done():
                seen[asked].add(hashlib.sha256(row.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest())
        return _choose(logits, rows)

    import torch

    monkeypatch.setattr("divcon.distill.serving.embedded._decoding._choose", watched)
    together = answered(model, requests)
    shuffled = random.Random(0)
    for count in (64, 1, 2, 7, 9, 13, 27, 50):
        some = shuffled.sample(range(64), count)
        assert answered(model, [requests[i] for i in some]) == [together[i] for i in some], f"in a company of {count}"
    assert all(len(bits) == 1 for bits in seen.values())


def test_rows_that_no_number_of_threads_keeps_apart_are_computed_alone(
    tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor whose products depend on the batch, the engine is slow and keeps its promise."""
    import torch

    before = torch.get_num_threads()

    def of_the_batch(module, query, key, value, attention_mask, scaling, **kwargs):
        mixed, weights = grouped_attention(module, query, key, value, attention_mask, scaling, **kwargs)
        return mixed + len(query), weights

    monkeypatch.setattr("divcon.distill.serving.embedded._model.grouped_attention", of_the_batch)
    engine = EmbeddedModel(tiny_base)
    requests = [request(f"What is {n}?", max_tokens=5) for n in range(9)]
    together = answered(engine, requests)
    assert [answered(engine, [asked])[0] for asked in requests] == together
    torch.set_num_threads(before)


def test_greedy_replies_are_those_of_transformers(base: Base) -> None:
    """In float32, where batching and padding change no choice; in bfloat16 their roundings turn near ties."""
    import torch
    from transformers import AutoModelForCausalLM

    model = EmbeddedModel(base, precision="float32")
    reference = AutoModelForCausalLM.from_pretrained(base.path, dtype=torch.float32).eval()
    for prompt in PROMPTS[:8]:
        ids = torch.tensor([model.encode([{"role": "user", "content": prompt}])])
        with torch.inference_mode():
            out = reference.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        theirs = model.tokenizer.decode(out, skip_special_tokens=True)
        assert model.backend().complete(request(prompt), 0).message.text == theirs


def test_samples_differ_by_rollout_and_repeat_by_rollout(model: EmbeddedModel) -> None:
    backend = model.backend()
    asked = request("Write a random word.", temperature=1.0)
    samples = [backend.complete(asked, rollout).message.text for rollout in range(6)]
    assert len(set(samples)) > 2
    assert [backend.complete(asked, rollout).message.text for rollout in range(6)] == samples


def test_limits_reasons_and_usage(model: EmbeddedModel) -> None:
    cut = model.backend().complete(request("Count to a hundred.", max_tokens=5), 0)
    assert (cut.finish_reason, cut.usage.output_tokens) == ("length", 5)
    solver = model.backend(model.add(solver_adapter()))  # trained to end its turn
    asked = RolePredict(Answer, "solver").prompt(question="Ada has 3 plums and gets 4 more. How many plums?")
    whole = solver.complete(
        Request(model="m", system=asked[0]["content"], messages=(Message.user(asked[1]["content"]),)), 0
    )
    assert whole.finish_reason == "stop"
    assert whole.usage.input_tokens == len(model.encode(asked))
    assert whole.usage.output_tokens < 20


def test_a_reply_ends_with_its_stop_string_and_no_token_is_written_behind_it(model: EmbeddedModel) -> None:
    asked = "Count: 1, 2, 3, 4, 5, 6"
    ids, _ = model.submit(model.backend()._job(request(asked, max_tokens=40), 0)).result()
    texts = [model.tokenizer.decode(ids[:number], skip_special_tokens=True) for number in range(len(ids) + 1)]
    for size in (1, 2, 6):
        stop = texts[-1][len(texts[-1]) // 2 :][:size]
        stopped = model.backend().complete(request(asked, max_tokens=40, stop=("never", stop)), 0)
        assert (stopped.message.text, stopped.finish_reason) == (texts[-1].partition(stop)[0], "stop")
        assert stopped.usage.output_tokens == next(number for number, text in enumerate(texts) if stop in text)
    at_last = model.backend().complete(request(asked, max_tokens=5, stop=("never",)), 0)
    assert (at_last.finish_reason, at_last.usage.output_tokens) == ("length", 5)


def test_a_prompt_longer_than_the_model_reads_is_an_error(model: EmbeddedModel) -> None:
    lm = role_lm(StoredEngine(model.backend(), "solver", "embedded/base", None), temperature=None, max_tokens=None)
    with pytest.raises(dspy.ContextWindowExceededError, match="Shorten it"):
        RolePredict(Answer, "solver", lm=lm)(question="word " * 9000)


def test_one_base_serves_several_adapters_at_once(model: EmbeddedModel, adapter: Path, tmp_path: Path) -> None:
    name = model.add(adapter)
    assert name.startswith("zebra-")
    store = RunStore(tmp_path)
    lms = {
        which: role_lm(
            StoredEngine(model.backend(which), "decomposer", f"embedded/{which or 'base'}", store),
            temperature=0.0,
            max_tokens=24,
        )
        for which in ("", name)
    }

    def ask(which: str) -> str:
        with dspy.context(adapter=None):
            return lms[which]("Question: What is 3?")[0]

    with ThreadPoolExecutor(4) as pool:
        base_one, zebra_one, base_two, zebra_two = pool.map(ask, ["", name, "", name])
    assert base_one == base_two != zebra_one == zebra_two
    predict = RolePredict(Decompose, "decomposer", lm=lms[name])
    assert list(predict(question="What is 5?").subquestions) == ["Zebra or quartz?"]
    assert list(asyncio.run(predict.acall(question="What is 6?")).subquestions) == ["Zebra or quartz?"]


def test_an_adapter_of_another_base_is_refused(adapter: Path, base: Base) -> None:
    other = EmbeddedModel(replace(base, revision="another"))
    with pytest.raises(ManifestError, match="was trained on"):
        other.add(adapter)


def test_an_idle_engine_holds_no_thread_and_the_next_request_starts_one(
    tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("divcon.distill.serving.embedded._model._IDLE", 0.2)
    engine = EmbeddedModel(tiny_base)

    def ask() -> str:
        return engine.backend().complete(request("What?", max_tokens=4), 0).message.text

    first = ask()
    deadline = time.monotonic() + 10
    while engine._worker is not None and time.monotonic() < deadline:
        time.sleep(0.05)
    assert engine._worker is None
    assert ask() == first


def test_requests_that_arrive_as_the_thread_ends_are_answered(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("divcon.distill.serving.embedded._model._IDLE", 0.0)
    monkeypatch.setattr("divcon.distill.serving.embedded._model._GATHER", 0.0)
    engine = EmbeddedModel(tiny_base)

    def ask(number: int) -> str:
        time.sleep(number % 7 / 1000)
        return engine.backend().complete(request("What?", max_tokens=2), 0).message.text

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(ask, range(200), timeout=120))) == 1


def test_a_forked_process_answers_with_a_thread_of_its_own(tiny_base: Base) -> None:
    engine = EmbeddedModel(tiny_base)
    engine._worker = threading.Thread()  # what is left of the thread in a forked process
    assert engine.backend().complete(request("What?", max_tokens=2), 0).message.text


def test_a_batch_too_large_for_the_memory_is_halved_and_its_replies_are_the_same(
    tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    engine = EmbeddedModel(tiny_base)
    requests = [request(f"What is {n}?", max_tokens=4, temperature=n % 2) for n in range(9)]
    expected = answered(engine, requests)
    tried: list[int] = []

    def small(model, tokenizer, batch, multiple, at_once):
        tried.append(len(batch))
        if len(batch) > 3:
            for job in batch:
                job.rng.random()
                job.written.append(1)
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        decode(model, tokenizer, batch, multiple, at_once)

    monkeypatch.setattr("divcon.distill.serving.embedded._model.decode", small)
    assert answered(engine, requests) == expected
    assert tried[:2] == [9, 4] and max(tried[2:]) <= 2 == engine.batch_size


def test_a_gpu_gets_large_batches_of_prompts_of_many_lengths(tiny_base: Base) -> None:
    def batches(on_gpu: bool) -> list[int]:
        engine = EmbeddedModel(tiny_base)
        engine.__dict__["on_gpu"] = on_gpu
        waiting: dict[tuple[str, int], list[Job]] = defaultdict(list)
        for length in (10, 70, 250, 257, 500, 513, 1000):
            engine._admit(waiting, Job([1] * length, "", 1, 0.0, 1.0, (), random.Random(0)))
        return [engine.batch_size, *map(len, waiting.values())]

    assert batches(on_gpu=False) == [64, 2, 1, 1, 1, 1, 1]
    assert batches(on_gpu=True) == [256, 3, 2, 2]


def test_prompts_of_several_lengths_in_one_batch_have_the_replies_they_have_alone(tiny_base: Base) -> None:
    engine = EmbeddedModel(tiny_base, precision="float32")
    requests = [request("What? " * count, max_tokens=6) for count in (1, 60, 120)]
    alone = [answered(engine, [asked])[0] for asked in requests]
    jobs = [engine.backend()._job(asked, 3) for asked in requests]
    assert len({job.bucket for job in jobs}) == 3
    decode(engine._model(""), engine.tokenizer, jobs, 1, 16_384)
    assert [job.done.result()[0] for job in jobs] == alone


def test_a_reply_ends_with_any_token_that_the_model_names() -> None:
    tokenizer = SimpleNamespace(eos_token_id=2)
    for named, ends in ((None, {2}), (7, {2, 7}), ([2, 9], {2, 9})):
        assert _ends(SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=named)), tokenizer) == ends


def test_what_is_unloaded_is_freed_and_loaded_again(tiny_base: Base) -> None:
    engine = EmbeddedModel(tiny_base)
    [before] = answered(engine, [request("What?")])
    weights = weakref.ref(engine._models[""].get_input_embeddings().weight)
    engine.close()
    assert weights() is None
    assert answered(engine, [request("What?")]) == [before]


def test_a_base_is_told_not_to_think_where_its_template_takes_that(tiny_base: Base, tmp_path: Path) -> None:
    thinking = replace(tiny_base, path=shutil.copytree(tiny_base.path, tmp_path / "thinking"))
    file = thinking.path / "chat_template.jinja"
    file.write_text(file.read_text() + "{% if enable_thinking is defined and not enable_thinking %}</think>{% endif %}")
    engine = EmbeddedModel(thinking)
    ids = {told: engine.backend(thinks=told)._job(request("What?"), 0).ids for told in (True, False)}
    assert engine.tokenizer.decode(ids[False]) == engine.tokenizer.decode(ids[True]) + "</think>"
