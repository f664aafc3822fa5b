"""Whose turn it is: servers that come, go, die and fail, with a stand-in for vLLM as the process."""

import asyncio
import json
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import dspy
import pytest
from support.openai_server import OpenAIServer

from divcon.distill import Base, Provenance, Training, TrainSettings, train_adapter
from divcon.distill._pace import pace_of
from divcon.distill._proxies import is_loopback
from divcon.distill.serving import AdapterMode
from divcon.distill.serving.embedded._model import EmbeddedModel
from divcon.distill.serving.server import Installation, ProbeError, ServerDied, ServerError
from divcon.distill.serving.server._process import free_port
from divcon.distill.serving.vllm import ServerSettings, VLLMClient, VLLMModel

STAND_IN = Path(__file__).parents[3] / "support" / "vllm_stand_in.py"


def request(text: str) -> dspy.lm15.Request:
    return dspy.lm15.Request(
        model="m", messages=(dspy.lm15.Message.user(text),), config=dspy.lm15.Config(temperature=0.0, max_tokens=4)
    )


@pytest.fixture
def make(tiny_base: Base, tmp_path: Path) -> Callable[..., VLLMModel]:
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STAND_IN}" "$@"\n')
    python.chmod(0o755)
    made: list[VLLMModel] = []

    def begin(what: str, latency: float = 0.02, adapter: AdapterMode = "auto", **settings: object) -> VLLMModel:
        environment = {
            "STAND_IN": what,
            "STAND_IN_STARTS": str(tmp_path / "starts"),
            "STAND_IN_LATENCY": str(latency),
        }
        server = ServerSettings(environment=environment, **settings)
        model = VLLMModel(tiny_base, server, adapter=adapter, log=tmp_path / "log")
        model.__dict__["installation"] = Installation(python, {"vllm": "0.32.0", "torch": "2.13.0+cpu"})
        made.append(model)
        return model

    yield begin
    for model in made:
        model.close()


@pytest.fixture
def starts(tmp_path: Path) -> Callable[[], list[str]]:
    return lambda: (tmp_path / "starts").read_text().splitlines() if (tmp_path / "starts").exists() else []


def test_a_server_starts_with_the_first_call_and_serves_the_others(make: Callable, starts: Callable) -> None:
    model = make("ok")
    backend = model.backend()
    assert starts() == []
    with ThreadPoolExecutor(32) as pool:
        replies = list(pool.map(lambda i: backend.complete(request(f"{i}?"), 0).message.text, range(64)))
    assert replies == ["tests/tiny-llama says so"] * 64
    assert len(starts()) == 1
    assert model._current._turnstile.calls == 0
    model.close()
    assert backend.complete(request("x"), 0).message.text
    assert len(starts()) == 2


def test_a_server_is_not_taken_for_the_one_that_had_its_address_before(make: Callable) -> None:
    port = free_port(None)
    before = pace_of(f"http://127.0.0.1:{port}/v1")
    before.streams = True
    assert make("ok", port=port).backend().complete(request("1?"), 0).message.text == "tests/tiny-llama says so"


@pytest.mark.parametrize("what", ["dies:20", "engine-dies:20"])
def test_a_server_that_dies_is_started_again_and_no_call_is_lost(make: Callable, starts: Callable, what: str) -> None:
    backend = make(what).backend()
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda i: backend.complete(request(f"{i}?"), 0).message.text, range(40)))
    assert len(replies) == 40
    assert len(starts()) == 2


def test_a_server_that_dies_too_often_is_reported(make: Callable, starts: Callable) -> None:
    backend = make("dies:3,always").backend()
    with pytest.raises(ServerDied, match="ended by itself"):
        for i in range(20):
            backend.complete(request(f"{i}?"), 0)
    assert len(starts()) == 2


def test_what_cant_be_served_isnt_tried_by_every_caller(make: Callable, starts: Callable) -> None:
    model = make("exit")
    backend = model.backend()

    def ask(i: int) -> str:
        try:
            return backend.complete(request(f"{i}?"), 0).message.text
        except ServerDied as error:
            return error.problem

    with ThreadPoolExecutor(16) as pool:
        said = set(pool.map(ask, range(16)))
    assert len(said) == 1 and "no weights here" in said.pop()
    assert len(starts()) == 1
    with pytest.raises(ServerDied):
        model.start()  # asked for by name, it is tried again
    assert len(starts()) == 2


def test_closing_while_a_server_starts_leaves_none(make: Callable, starts: Callable) -> None:
    model = make("slow")
    errors: list[Exception] = []

    def start() -> None:
        try:
            model.start()
        except ServerError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    while not starts():
        time.sleep(0.02)
    model.close()
    thread.join(20)
    assert not thread.is_alive()
    assert "while it was" in str(errors[0])
    assert model._current._server is None


def test_a_cancelled_caller_holds_up_nobody(make: Callable, starts: Callable) -> None:
    model = make("ok")
    backend = model.backend()

    async def main() -> None:
        asking = asyncio.create_task(backend.acomplete(request("x"), 0))
        await asyncio.sleep(0.1)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        replies = await asyncio.gather(*(backend.acomplete(request(f"{i}?"), 0) for i in range(20)))
        assert len(replies) == 20

    asyncio.run(main())
    deadline = time.monotonic() + 10
    while model._current._turnstile.calls and time.monotonic() < deadline:
        time.sleep(0.02)
    assert model._current._turnstile.calls == 0
    assert len(starts()) == 1


def test_a_deadline_is_waited_for_once(make: Callable, starts: Callable) -> None:
    backend = make("slow", deadline=1.0).backend()
    for _ in range(3):
        with pytest.raises(ServerError, match="wasn't ready after 1 s"):
            backend.complete(request("x"), 0)
    assert len(starts()) == 1


def test_an_attached_server_has_to_serve_the_base_that_is_asked(make: Callable, tiny_base: Base) -> None:
    address = make("ok").start()
    attached = VLLMModel(tiny_base, ServerSettings(api_base=address))
    assert attached.backend().complete(request("x"), 0).message.text == "tests/tiny-llama says so"
    other = VLLMModel(Base(tiny_base.path, "another/base", "r", "auto"), ServerSettings(api_base=address))
    with pytest.raises(ServerError, match="doesn't serve 'another/base'; it serves tests/tiny-llama"):
        other.backend().complete(request("x"), 0)


def trained(base: Base, folder: Path, asked: str) -> Path:
    row = {"prompt": [{"role": "user", "content": asked}], "completion": [{"role": "assistant", "content": "1. A?"}]}
    (folder / "rows.jsonl").write_text("\n".join([json.dumps(row)] * 8))
    settings = TrainSettings(rank=4, batch_size=4)
    train_adapter(Training(folder / "rows.jsonl", base, folder / "student", settings), Provenance(student="sd-t"))
    return folder / "student"


@pytest.fixture
def student(tiny_base: Base, tmp_path: Path) -> Path:
    return trained(tiny_base, tmp_path, "Split.")


@pytest.mark.parametrize("text", ["What is <|im_end|>\n<|im_start|>system here?", " a<b |>  \n"])
def test_a_server_is_asked_what_the_embedded_engine_reads(tiny_base: Base, text: str) -> None:
    asked = replace(request(text), system=f"Split. {text}")
    with OpenAIServer(lambda body: "7", served=(tiny_base.id,)) as server:
        backend = VLLMModel(tiny_base, ServerSettings(api_base=server.url)).backend()
        backend.complete(asked, 0)
        asyncio.run(backend.acomplete(asked, 0))
    embedded = EmbeddedModel(tiny_base)
    given = [{"role": "system", "content": f"Split. {text}"}, {"role": "user", "content": text}]
    assert len(server.requests) == 2
    for body in server.requests:
        sent = embedded.tokenizer.apply_chat_template(body["messages"], add_generation_prompt=True)["input_ids"]
        assert sent == embedded.encode(given)
        assert ("<|im_end|>" in text) is (body["messages"] != given)


def test_a_probe_with_a_control_token_is_rendered_as_in_training(
    make: Callable, tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "What is <|im_end|> here?"
    model = make("ok", adapter="lora")
    name = model.add(trained(tiny_base, tmp_path, text))
    asked: list[str] = []
    answered = VLLMClient.token_ids

    def noted(client: VLLMClient, model: str, messages: list[dict[str, str]]) -> list[int]:
        asked.append(messages[0]["content"])
        return answered(client, model, messages)

    monkeypatch.setattr(VLLMClient, "token_ids", noted)
    assert model.backend(name).complete(request("x"), 0).message.text == f"{name} says so"
    assert asked[0] != text and "<|im_end|>" not in asked[0]


def test_a_server_without_adapters_is_started_anew_with_one_and_probed(
    make: Callable, starts: Callable, student: Path
) -> None:
    model = make("ok", adapter="lora")
    assert model.start()
    name = model.add(student)
    assert model.backend(name).complete(request("x"), 0).message.text == f"{name} says so"
    found = model.probed[name]
    assert (found.adapter_logprob, found.base_logprob, found.base_served) == (-5.0, -25.0, True)
    assert model.backend().complete(request("x"), 0).message.text == "tests/tiny-llama says so"
    assert len(starts()) == 2  # the second serves both
    assert model.deciding(name)[1:3] == ["vllm", "lora"]


def test_a_running_server_that_mixes_base_and_adapter_is_refused(
    make: Callable, tiny_base: Base, student: Path
) -> None:
    for what in ("ok", "mixes"):
        attached = VLLMModel(tiny_base, ServerSettings(api_base=make(what).start()))
        backend = attached.backend(attached.add(student))
        if what == "ok":
            assert backend.complete(request("x"), 0).message.text
            continue
        with pytest.raises(ProbeError, match="computes requests to 'tests/tiny-llama' with an adapter") as caught:
            backend.complete(request("x"), 0)
        assert "--max-loras" in caught.value.remedy


def test_a_running_server_that_streams_nothing_is_named(make: Callable, tiny_base: Base, student: Path) -> None:
    attached = VLLMModel(tiny_base, ServerSettings(api_base=make("mute").start()))
    with pytest.raises(ServerError, match="doesn't stream what it writes"):
        attached.start(attached.add(student))


def test_who_needs_another_server_gets_it_while_others_keep_asking(
    make: Callable, starts: Callable, student: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DIVCON_CACHE", str(tmp_path / "cache"))
    # The stand-in tokenizes for adapters that it loads, and this one is merged.
    monkeypatch.setattr("divcon.distill.serving.server._current.read_probe", lambda folder: None)
    model = make("ok", adapter="merged")
    name, over = model.add(student), threading.Event()
    backend = model.backend()

    def keep_asking(number: int) -> None:
        while not over.is_set():
            backend.complete(request(f"{number}?"), 0)

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(keep_asking, number) for number in range(8)]
        try:
            while not starts():
                time.sleep(0.02)
            assert model.backend(name).complete(request("x"), 0).message.text == f"{name} says so"
        finally:
            over.set()
        for one in asking:
            one.result(60)
    assert starts()[:2] == ["tests/tiny-llama", name]


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:8000/v1", True),
        ("https://example.org/v1", False),
        ("https://10.127.0.1/v1", False),
    ],
)
def test_loopback(address: str, here: bool) -> None:
    assert is_loopback(address) is here


def test_what_decides_replies_is_part_of_their_key() -> None:
    plain = ServerSettings(arguments={"max-model-len": 1024}).deciding()
    assert ServerSettings(arguments={"gpu-memory-utilization": 0.5}).deciding() == plain
    assert ServerSettings(arguments={"quantization": "fp8"}).deciding() != plain
    assert ServerSettings(api_base="http://127.0.0.1:1/v1").deciding() != plain
