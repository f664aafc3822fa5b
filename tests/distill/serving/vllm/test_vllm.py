"""A real vLLM, real adapters and real requests; `make test-vllm` runs them."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import dspy
import httpx
import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.openai_server import OpenAIServer
from support.processes import heed_ctrl_c

from divcon import Run
from divcon.distill import content_hash, file_hashes, read_manifest
from divcon.distill._probe import read_probe
from divcon.distill._vllm_provider import VLLMProvider, vllm_lm
from divcon.distill.serving.embedded import solver_adapter
from divcon.distill.serving.server import (
    ProbeError,
    ServerClient,
    ServerDied,
    ServerError,
    ServerUnreachable,
    probe,
    require_apart,
)
from divcon.distill.serving.vllm import ServerSettings, VLLMModel
from divcon.programs import LEARNT, DivideAndConquer
from divcon.signatures import Subquestions, list_pattern

pytestmark = pytest.mark.vllm
DIVCON = Path(sys.executable).with_name("divcon")


def prompts(planner: Run, student: Path, number: int) -> list[list[dict[str, str]]]:
    decompose = planner.programs.planned_by_student(student).decompose
    return [decompose.prompt(question=item.question, context=item.context) for item in planner.task.test[:number]]


def server_processes() -> list[psutil.Process]:
    """Whatever is left of any vLLM of this user."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if "vllm.entrypoints" in words or words.startswith("VLLM::"):
            found.append(process)
    return found


def request(messages: list[dict[str, str]] | str, **config: object) -> dspy.lm15.Request:
    """A chat as an engine is asked; the model's name is the engine's matter."""
    system, user = (None, messages) if isinstance(messages, str) else [message["content"] for message in messages]
    asked = {"temperature": 0.0, "max_tokens": 96, **config}
    return dspy.lm15.Request(
        model="m", system=system, messages=(dspy.lm15.Message.user(user),), config=dspy.lm15.Config(**asked)
    )


def wait_for(condition: Callable[[], bool], patience: float) -> bool:
    deadline = time.monotonic() + patience
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


# ---- a merged student


def test_a_student_agrees_with_the_embedded_engine(planner: Run, student: Path, merged: VLLMModel) -> None:
    """After a quarter of the demo's training it is less sure of its words; the demo's own student is held to 90.

    Both compute in bfloat16, in different orders; see benchmarks/perf/served.py and the test of its record.
    """
    ours = planner.models.student(student)
    name = merged.add(student)
    asked = prompts(planner, student, 100)
    reply = planner.models.student_model.backend(planner.models.student_model.add(student))
    requests = [request(messages) for messages in asked]
    assert ours.model.endswith(name)  # one name for one content, wherever it is served
    with ThreadPoolExecutor(64) as pool:
        embedded = list(pool.map(lambda one: reply.complete(one, 0).message.text, requests))
        served = list(pool.map(lambda one: merged.backend(name).complete(one, 0).message.text, requests))
    assert sum(a == b for a, b in zip(embedded, served, strict=True)) >= 80


def test_a_merged_student_was_probed(student: Path, merged: VLLMModel) -> None:
    found = merged.probed[merged.add(student)]
    row = read_probe(student)
    assert row is not None
    assert found.base_logprob == row.base_logprob
    assert abs(found.adapter_logprob - row.adapter_logprob) < 2.0


@pytest.mark.parametrize("engine", ["auto", "litellm"])
def test_both_clients_of_dspy_reach_it(planner: Run, student: Path, merged: VLLMModel, engine: str) -> None:
    name = merged.add(student)
    with merged.serving(name) as server:
        lm = dspy.LM(
            f"hosted_vllm/{name}",
            engine=engine,
            api_base=server.api_base,
            api_key="none",
            cache=False,
            temperature=0.0,
            max_tokens=96,
        )
        program = planner.programs.planned_by_student(student)
        program.decompose.lm = lm
        item = planner.task.test[0]
        split = program.decompose(question=item.question, context=item.context)
        awaited = asyncio.run(program.decompose.acall(question=item.question, context=item.context))
    assert len(split.subquestions) >= 2
    assert list(awaited.subquestions) == list(split.subquestions)
    used = lm.history[-1]["usage"]
    assert used["prompt_tokens"] == len(read_ids(merged, name, prompts(planner, student, 1)[0]))


def read_ids(model: VLLMModel, name: str, messages: list[dict[str, str]]) -> list[int]:
    with model.serving(name) as server:
        return server.client.token_ids(name, messages)


def test_a_reply_can_be_held_to_a_list(planner: Run, student: Path, merged: VLLMModel) -> None:
    name = merged.add(student)
    pattern = list_pattern(3)
    asked = request("Tell me about Paris.", temperature=1.0, max_tokens=250)
    for engine in ("auto", "litellm"):
        reply = merged.backend(name, pattern=pattern, engine=engine).complete(asked, 0).message.text
        assert re.fullmatch(pattern, reply), reply
        Subquestions.read(reply)


def test_samples_differ_and_the_same_request_at_temperature_0_does_not(student: Path, merged: VLLMModel) -> None:
    name = merged.add(student)
    asked = request("Name a town.", temperature=1.0, max_tokens=20)
    assert len({merged.backend(name).complete(asked, i).message.text for i in range(4)}) > 1


def test_a_server_that_loads_nothing_says_what_is_missing(planner: Run, merged: VLLMModel, student: Path) -> None:
    with merged.serving(merged.add(student)) as server:
        attached = VLLMModel(planner.models.base, ServerSettings(api_base=server.api_base))
        # A merged copy under its name is as good as an adapter.
        assert attached.start(attached.add(student)) == server.api_base
        other = attached.add(retrained(student, "other"))
        with pytest.raises(ServerError, match="doesn't load adapters at run time") as caught:
            attached.start(other)
        assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" in caught.value.remedy
        assert server.running


def retrained(student: Path, name: str, rank: int | None = None) -> Path:
    """A copy of an adapter with other content: halved, or brought to a higher rank with zeros."""
    folder = student.with_name(f"{student.name}-{name}")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(student, folder)
    weights = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text())
    for key, value in weights.items():
        if rank is not None:
            shape = (rank, value.shape[1]) if "lora_A" in key else (value.shape[0], rank)
            grown = torch.zeros(shape, dtype=value.dtype)
            grown[: value.shape[0], : value.shape[1]] = value
            weights[key] = grown
        else:
            weights[key] = value / 2
    config.update({"r": rank or config["r"], "lora_alpha": config["lora_alpha"] * (rank or config["r"]) / config["r"]})
    save_file(weights, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    manifest = json.loads((folder / "manifest.json").read_text())
    hashes = {"content_hash": content_hash(folder), "files": file_hashes(folder)}
    (folder / "manifest.json").write_text(json.dumps({**manifest, **hashes}))
    return folder


def test_a_server_that_dies_in_the_middle_is_started_again_once(planner: Run, student: Path, merged: VLLMModel) -> None:
    """The last test on `merged`: its one restart is spent here."""
    name = merged.add(student)
    said: list[str] = []
    merged.told = said.append
    asked = [request(messages) for messages in prompts(planner, student, 40)]
    with ThreadPoolExecutor(16) as pool:
        running = [pool.submit(merged.backend(name).complete, one, 0) for one in asked]
        assert wait_for(lambda: sum(future.done() for future in running) >= 8, 120)
        for process in server_processes():
            process.kill()
        replies = [future.result(timeout=240).message.text for future in running]
    assert all(replies)
    assert sum("serves" in line for line in said) == 1
    for process in server_processes():
        process.kill()
    with pytest.raises(ServerDied, match=r"killed|ended by itself"):
        for _ in range(3):
            merged.backend(name).complete(asked[0], 1)


# ---- unmerged adapters


def test_base_and_adapters_share_a_server_and_load_while_it_runs(unmerged: VLLMModel, student: Path) -> None:
    name = unmerged.add(student)
    with unmerged.serving() as server:
        process = server._process
    hot = unmerged.add(solver_adapter())
    address = unmerged.start(hot)
    with unmerged.serving(hot) as server:
        assert server._process is process  # it wasn't started again
        assert set(server.client.names()) == {unmerged.base.id, name, hot}
        assert list(server.client.bases()) == [unmerged.base.id]
    assert address == unmerged.start(name)
    assert unmerged.probed[name].adapter_logprob > unmerged.probed[name].base_logprob + 5


def test_every_failure_of_the_probe_has_its_own_message(unmerged: VLLMModel, student: Path) -> None:
    name, row = unmerged.add(student), read_probe(student)
    assert row is not None
    with unmerged.serving(name) as server:
        client = server.client
        assert probe(client, name, row, server.name).base_served
        with pytest.raises(ProbeError, match=f"doesn't serve 'sd-x'; it serves .*{name}"):
            probe(client, "sd-x", row, server.name)
        other = row.model_copy(update={"prompt_ids": [*row.prompt_ids[:5], 0, *row.prompt_ids[6:]]})
        with pytest.raises(ProbeError, match=r"other tokens .* from token 5 on"):
            probe(client, name, other, server.name)
        with pytest.raises(ProbeError, match="changes nothing for the better"):
            probe(client, server.name, row, server.name)


def test_adapters_are_probed_and_kept_apart_while_their_server_answers_others(
    unmerged: VLLMModel, student: Path
) -> None:
    """vLLM's CPU build dies of a request for `prompt_logprobs` that meets another one, where an adapter is loaded."""
    name, row = unmerged.add(student), read_probe(student)
    assert row is not None
    with unmerged.serving(name) as server, ThreadPoolExecutor(2) as pool:
        asked = [request(f"Tell a long story of town {i}.", max_tokens=60) for i in range(2)]
        replies = [pool.submit(unmerged.backend(name).complete, one, 0) for one in asked]
        found = probe(server.client, name, row, server.name)
        require_apart(server.client, name, row, server.name, found)
        assert all(reply.result().message.text for reply in replies)
        assert server.running and server.healthy() and server.died_before == 0
        alone = probe(server.client, name, row, server.name)
    assert asdict(alone) == pytest.approx(asdict(found), abs=0.5)


def test_a_rank_that_a_running_server_doesnt_take_is_named(planner: Run, unmerged: VLLMModel, student: Path) -> None:
    with unmerged.serving() as server:
        attached = VLLMModel(planner.models.base, ServerSettings(api_base=server.api_base))
        large = attached.add(retrained(student, "large", rank=64))
        with pytest.raises(ServerError, match=r"refuses the adapter .*rank") as caught:
            attached.start(large)
        assert "max-lora-rank" in caught.value.remedy


def test_adapters_that_a_running_server_has_lost_are_loaded_again(
    planner: Run, unmerged: VLLMModel, student: Path
) -> None:
    with unmerged.serving() as server:
        attached = VLLMModel(planner.models.base, ServerSettings(api_base=server.api_base))
        name = attached.add(retrained(student, "lost"))
        backend = attached.backend(name)
        asked = [request(f"Name {i} towns.", max_tokens=4) for i in range(6)]
        assert backend.complete(asked[0], 0).message.text
        gone = httpx.post(f"{server.client.root}/v1/unload_lora_adapter", json={"lora_name": name}, timeout=30)
        assert gone.status_code == 200 and name not in server.client.names()
        with ThreadPoolExecutor(6) as pool:
            replies = list(pool.map(lambda one: backend.complete(one, 0).message.text, asked))
        assert all(replies) and name in server.client.names()


def test_names_that_arent_there_and_addresses_that_arent_one(unmerged: VLLMModel) -> None:
    with unmerged.serving() as server:
        lm = dspy.LM("hosted_vllm/nobody", api_base=server.api_base, api_key="none", cache=False, num_retries=0)
        with pytest.raises(dspy.LMError, match="nobody"):
            lm("Who?")
        with pytest.raises(ServerError, match="404"):
            ServerClient(server.api_base + "/v2").names()
    with pytest.raises(ServerUnreachable, match="can't be reached"):
        ServerClient("http://127.0.0.1:9/v1").names()


def test_calls_on_one_passage_share_their_prefix(unmerged: VLLMModel) -> None:
    passage = " ".join(f"In {1900 + i} the club won {i} of its games at home and {i + 3} abroad." for i in range(30))
    decompose = DivideAndConquer(decomposer_wording=LEARNT).decompose
    with unmerged.serving() as server:

        def cached() -> tuple[float, float]:
            text = httpx.get(server.client.root + "/metrics").text
            found = [re.search(rf"^vllm:prefix_cache_{n}_total\S* (\S+)$", text, re.M) for n in ("hits", "queries")]
            return tuple(float(match[1]) for match in found if match)  # type: ignore[return-value]

        hits, queries = cached()
        for question in ("How many games did it win in 1903?", "How many did it win abroad in 1910?"):
            messages = decompose.prompt(question=question, context=passage)
            unmerged.backend().complete(request(messages, max_tokens=4), 0)
        more_hits, more_queries = cached()
    assert (more_hits - hits) / (more_queries - queries) > 0.4  # the second of two prompts, nearly whole


def test_a_server_that_mixes_base_and_adapters_is_refused(planner: Run, unmerged: VLLMModel, student: Path) -> None:
    """The last test of this server: vLLM doesn't empty a slot again whose adapter is unloaded."""
    with unmerged.serving() as server:
        attached = VLLMModel(planner.models.base, ServerSettings(api_base=server.api_base))
        last = attached.add(retrained(student, "last"))
        while len(names := server.client.names()) <= server.launch.slots:
            server.client.load_adapter(f"more-{len(names)}", student)
        with pytest.raises(ProbeError, match=r"computes requests to '.*SmolLM2.*' with an adapter") as caught:
            attached.start(last)
        assert "--max-loras" in caught.value.remedy


# ---- servers that don't come up


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"arguments": {"no-such-option": 1}}, ServerDied, "doesn't take one of its arguments"),
        ({"arguments": {"max-model-len": 10_000_000}}, ServerDied, "10000000"),
        ({"environment": {"VLLM_CPU_KVCACHE_SPACE": "100000"}}, ServerDied, "ran out of memory"),
        ({"deadline": 4.0}, ServerError, "wasn't ready after 4 s"),
    ],
)
def test_a_server_that_doesnt_come_up_says_why(
    planner: Run, vllm_python: Path, tmp_path: Path, given: dict, error: type[ServerError], says: str
) -> None:
    before = {process.pid for process in server_processes()}
    model = VLLMModel(planner.models.base, ServerSettings(python=vllm_python, **given), log=tmp_path / "log")
    with pytest.raises(error, match=says) as caught:
        model.start()
    assert caught.value.remedy
    assert "log ends with" in caught.value.problem
    assert {process.pid for process in server_processes()} <= before


# ---- DSPy's own way in


def test_finetune_launch_call_kill(planner: Run, vllm_python: Path, tmp_path: Path) -> None:
    server = ServerSettings(python=vllm_python, arguments={"max-model-len": 512})
    lm = vllm_lm(settings=server, launch=False, max_tokens=16, num_retries=0)
    assert isinstance(lm.provider, VLLMProvider)
    lm.provider.folder = tmp_path
    lm.kill()  # nothing runs
    chat = [
        {"role": "system", "content": "Name the colour."},
        {"role": "user", "content": "grass"},
        {"role": "assistant", "content": "It is green as can be."},
    ]
    job = lm.finetune(
        [{"messages": chat}] * 8, "chat", {"rank": 4, "epochs": 6, "batch_size": 8, "learning_rate": 5e-3}
    )
    tuned = job.result(timeout=300)
    assert re.fullmatch(r"hosted_vllm/tuned-[0-9a-f]{12}", tuned.model)
    tuned.launch()
    tuned.launch()  # it runs already
    try:
        assert (
            tuned(replace(request(chat[:2], max_tokens=16), model=tuned.model)).message.text == "It is green as can be."
        )
        again = vllm_lm(settings=server, launch=False).copy(model=tuned.model)
        again.provider.folder = tmp_path
        again.launch()  # found by its name, and on the same server
        assert again.kwargs["api_base"] == tuned.kwargs["api_base"]
    finally:
        tuned.kill()
    assert "api_base" not in tuned.kwargs
    with pytest.raises(dspy.LMError):
        again("grass")


# ---- divcon serve


@pytest.fixture
def serve(planner: Run, vllm_python: Path, tmp_path: Path) -> Callable[[], subprocess.Popen]:
    def begin(*words: str) -> subprocess.Popen:
        return subprocess.Popen(
            [str(DIVCON), "serve", "--run", str(planner.folder), *words, "--", "--max-model-len", "1024"],
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=heed_ctrl_c,
        )

    return begin


def test_divcon_serve_serves_until_it_is_killed(planner: Run, student: Path, serve: Callable) -> None:
    before = {process.pid for process in server_processes()}
    process = serve()
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            break
    said = "".join(lines)
    name = f"sd-t-{read_manifest(student).content_hash[:12]}"
    address = re.search(r"^address  (\S+)$", said, re.M)
    assert address and f"model    {name}" in said, said + (process.stderr.read() if process.poll() is not None else "")
    assert address[1].startswith("http://127.0.0.1:")
    code = re.search(r"^python   (.*)$", said, re.M)
    assert code
    lm = eval(code[1], {"dspy": dspy})
    assert lm("What is 2 plus 2?")
    # The server listens on loopback and nowhere else.
    port = int(address[1].rsplit(":", 1)[1].split("/")[0])
    listening = [c.laddr for p in server_processes() for c in p.net_connections("tcp") if c.status == "LISTEN"]
    assert ("127.0.0.1", port) in [(a.ip, a.port) for a in listening]
    assert all(a.ip.startswith("127.") or a.ip == "::1" for a in listening), listening
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert wait_for(lambda: {p.pid for p in server_processes()} <= before, 20)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_divcon_serve_ends_with_its_server(serve: Callable, ending: signal.Signals) -> None:
    before = {process.pid for process in server_processes()}
    process = serve()
    engine = lambda: any("EngineCore" in " ".join(p.cmdline()) for p in server_processes() if p.pid not in before)  # noqa: E731
    assert wait_for(engine, 60), process.stderr.read() if process.poll() is not None else ""
    process.send_signal(ending)
    assert process.wait(30) != 0
    assert wait_for(lambda: {p.pid for p in server_processes()} <= before, 20)


# ---- the page about it


def test_the_pages_code_runs(root: Path, vllm_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = re.findall(r"```python vllm\n(.*?)```", (root / "docs" / "vllm.md").read_text(encoding="utf-8"), re.S)
    real = dspy.LM.__init__
    with OpenAIServer(lambda body: "1. 12\n2. 10\nAnswer: 10") as server:

        def to_loopback(self: dspy.LM, model: str, *args: object, **more: object) -> None:
            """Only the public model's address and key change."""
            if model.startswith("openai/"):
                more.update(api_base=server.url, api_key="k")
            real(self, model, *args, **more)

        monkeypatch.setattr(dspy.LM, "__init__", to_loopback)
        exec(compile(block, "docs/vllm.md", "exec"), {})
        assert server.requests
