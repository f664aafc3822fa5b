"""What can be known to fail is known before anything is paid for, and all of it is said at once."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import dspy
import pytest
from support.openai_server import OpenAIServer
from support.raw_server import serving

from divcon import Run, load_pipeline
from divcon._doctor import diagnose
from divcon.benchmarks.tasks import Task, TaskError, load_task
from divcon.config import load_experiment
from divcon.distill import LMBackend, OverlapError
from divcon.distill._proxies import reach_loopback_directly, unusable_proxy
from divcon.distill.serving import Finding
from divcon.distill.serving.server import ServerClient, WrongAddress
from divcon.experiments import ExperimentRun
from divcon.pipeline import Unfit
from divcon.signatures import DivconError

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _PROXIES:
        for variable in (name, name.lower()):
            monkeypatch.setenv(variable, "")  # so that what a test sets is taken back
            monkeypatch.delenv(variable)


def written(
    folder: Path, teacher: str, solver: str = "{model: embedded/solver}", more: str = "", task: str = ""
) -> Path:
    file = folder / "p.yaml"
    file.write_text(
        f"task: {task or '{name: word-problems, train: 4, test: 2}'}\n"
        f"roles:\n  teacher: {teacher}\n  solver: {solver}\nscreen: {{rule: none}}\n{more}"
    )
    return file


def found(file: Path, folder: Path, *overrides: str) -> dict[str, list[Finding]]:
    by_name: dict[str, list[Finding]] = {}
    for finding in diagnose(load_pipeline(file, overrides), folder):
        by_name.setdefault(finding.what, []).append(finding)
    return by_name


@contextmanager
def only_under_v1() -> Iterator[str]:
    """A server that answers under /v1, and 404 elsewhere; yields its address without."""

    class Handler(BaseHTTPRequestHandler):
        def _send(self, served: object) -> None:
            right = self.path.startswith("/v1/")
            body = json.dumps(served if right else {"error": {"message": "Not Found"}}).encode()
            self.send_response(200 if right else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            self._send({"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "t"}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._send({})

        def log_message(self, *words: object) -> None: ...

    with serving(Handler) as address:
        yield address


@contextmanager
def counting_proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that answers 502 itself; yields its address, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def _refuse(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_response(502)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_CONNECT = _refuse

        def log_message(self, *words: object) -> None: ...

    with serving(Handler) as address:
        yield address, asked


# -- addresses and proxies -------------------------------------------------------------------------------------------


def test_an_address_without_v1_is_told_by_the_doctor_and_by_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with only_under_v1() as address:
        teacher = f"{{model: openai/m, api_base: '{address}', api_key_env: KEY, retries: 0}}"
        monkeypatch.setenv("KEY", "k")
        file = written(tmp_path, teacher)
        [finding] = found(file, tmp_path / "run")["teacher"]
        assert (finding.level, finding.remedy) == ("failure", f"Did you mean {address}/v1?")
        run = Run(load_pipeline(file), tmp_path / "run")
        with pytest.raises(Unfit, match=rf"answers 404.*Did you mean {address}/v1\?"):
            run.run()
        with pytest.raises(WrongAddress, match=rf"{address} answers 404.*Did you mean {address}/v1\?"):
            run.collect()
        run.close()
    with pytest.raises(DivconError, match="can't be reached"):
        ServerClient(address).names()


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("engine", ["auto", "litellm"])
def test_loopback_is_reached_directly_by_the_doctor_and_by_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, engine: str
) -> None:
    with counting_proxy() as (proxy, asked), OpenAIServer(lambda body: "Answer: 4", served=("m",)) as server:
        monkeypatch.setenv(variable, proxy)
        file = written(tmp_path, "{model: scripted/references}", f"{{model: openai/m, api_base: '{server.url}'}}")
        [finding] = found(file, tmp_path / "run")["solver"]
        assert finding.level == "ok", finding
        lm = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, engine=engine, num_retries=0)
        LMBackend(lm)
        assert lm("Say 4.")[0]
        assert len(server.requests) == 1
        assert asked == []


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "socks5h://127.0.0.1:9"])
def test_a_socks_proxy_is_no_matter_for_loopback_and_a_failure_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with OpenAIServer(lambda body: "Answer: 4", served=("m",)) as server:
        near = f"{{model: openai/m, api_base: '{server.url}'}}"
        by_name = found(written(tmp_path, "{model: openai/gpt-5-mini}", near), tmp_path / "run")
        [teacher], [solver] = by_name["teacher"], by_name["solver"]
        assert (solver.level, teacher.level) == ("ok", "failure")
        assert "ALL_PROXY" in teacher.text
        lm = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, num_retries=0)
        LMBackend(lm)
        assert lm("Say 4.")[0]
    far = "{model: openai/m, api_base: 'http://192.0.2.1/v1'}"
    [teacher] = found(written(tmp_path, far), tmp_path / "run")["teacher"]
    assert (teacher.level, "ALL_PROXY" in teacher.text) == ("failure", True)


def test_another_host_is_asked_through_the_proxy_by_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with counting_proxy() as (proxy, asked):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        far = "{model: openai/m, api_base: 'http://192.0.2.1/v1'}"
        found(written(tmp_path, far), tmp_path / "run")
        assert asked and set(asked) == {"GET http://192.0.2.1/v1/models"}
        asked.clear()
        lm = dspy.LM("openai/m", api_base="http://192.0.2.1/v1", api_key="k", cache=False, num_retries=0)
        LMBackend(lm)
        with pytest.raises(dspy.utils.exceptions.LMError):
            lm("Say 4.")
        assert asked and set(asked) == {"POST http://192.0.2.1/v1/chat/completions"}


def test_exempt_hosts_are_kept_and_added_to(monkeypatch: pytest.MonkeyPatch) -> None:
    reach_loopback_directly("http://127.0.0.2/v1")
    assert "NO_PROXY" not in os.environ  # without proxies nothing is exempt
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", "example.org")
    reach_loopback_directly("http://127.0.0.2/v1")
    reach_loopback_directly("http://elsewhere/v1")
    assert os.environ["NO_PROXY"] == "example.org,localhost,127.0.0.1,::1,127.0.0.2"
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy:1")
    assert unusable_proxy("http://elsewhere/v1") == "ALL_PROXY"
    assert unusable_proxy("https://elsewhere/v1") is None
    assert unusable_proxy("http://example.org/v1") is None
    assert unusable_proxy("http://[") == "ALL_PROXY"


# -- the base --------------------------------------------------------------------------------------------------------


def hub_cache(folder: Path, *files: str, index: dict[str, str] | None = None) -> Path:
    """A hub's cache with a snapshot of some/base, as huggingface_hub lays it out."""
    snapshot = folder / "models--some--base" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("0123")
    for name in files:
        (snapshot / name).write_text("{}")
    if index is not None:
        (snapshot / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


@pytest.mark.parametrize(
    ("files", "index", "says"),
    [
        (("config.json",), None, "no safetensors"),
        (("config.json", "a.safetensors"), {"x": "a.safetensors", "y": "b.safetensors"}, "lacks b.safetensors"),
        ((), None, "isn't in the hub's cache"),
    ],
)
def test_a_snapshot_without_its_weights_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...], index: dict[str, str] | None, says: str
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache(tmp_path / "hub", *files, index=index)))
    file = written(tmp_path, "{model: scripted/references}")
    [base] = found(file, tmp_path / "run", "roles.decomposer.base=some/base")["base"]
    assert (base.level, says in base.text) == ("failure", True), base


@pytest.mark.parametrize("name", ["./no/where", "/no/where", "no/where/at-all", "~/no-where", "..", "file.gguf"])
def test_a_base_that_is_no_folder_and_no_hub_name_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    (tmp_path / "file.gguf").write_text("")
    file = written(tmp_path, "{model: scripted/references}")
    [base] = found(file, tmp_path / "run", f"roles.decomposer.base={name}")["base"]
    assert base.level == "failure", base
    assert base.remedy


# -- everything at once ----------------------------------------------------------------------------------------------


def test_everything_that_would_stop_a_run_is_said_at_once_and_nothing_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY", "k")
    (tmp_path / "q.jsonl").write_text('{"question": "Q?"}\n{\n')
    with OpenAIServer(lambda body: "1. What?", served=("other",)) as server:
        file = written(
            tmp_path,
            f"{{model: hosted_vllm/t, api_base: '{server.url}'}}",
            "{model: openai/s, api_base: 'http://127.0.0.1:9/v1', api_key_env: KEY}",
            "compile: {optimizer: BootstrapFewShott}\ntracking: {mlflow: 'gopher:x'}\n",
            f"{{name: jsonl, path: {tmp_path / 'q.jsonl'}, train: 1, test: 1}}",
        )
        run = Run(load_pipeline(file, ["roles.decomposer.base=no/where"]), tmp_path / "run")
        with pytest.raises(Unfit) as caught:
            run.run()
        run.close()
        assert not server.requests
    lines = caught.value.problem.splitlines()
    assert lines[0] == f"{len(lines) - 1} things would stop the run:"
    for words in (
        "has no field 'answer'; its fields are 'question'. Line 2 of",
        "doesn't serve 't'",
        "127.0.0.1:9/v1 can't be reached",
        "BootstrapFewShott",
        "no/where",
        "MLflow writes to no 'gopher:'",
    ):
        assert sum(words in line for line in lines) == 1, (words, lines)
    assert not (tmp_path / "run" / "pipeline.json").exists()


def test_a_single_failure_is_raised_as_it_is(tmp_path: Path) -> None:
    task = f"{{name: jsonl, path: {tmp_path / 'no.jsonl'}, train: 1, test: 1}}"
    run = Run(load_pipeline(written(tmp_path, "{model: embedded/base}", task=task)), tmp_path / "run")
    with pytest.raises(TaskError, match=r"no\.jsonl can't be read"):
        run.run()
    run.close()


@pytest.mark.parametrize(
    ("task", "more", "says"),
    [
        ("{name: jsonl, path: no.jsonl, train: 1, test: 1}", "", "can't be read"),
        ("{name: jsonl, path: q.jsonl, train: 1, test: 1}", "evaluate: {arms: [references]}", "reference subquestions"),
        ("{name: jsonl, path: q.jsonl, train: 5, test: 5}", "", "has 2 questions"),
    ],
)
def test_the_doctor_looks_at_the_data(tmp_path: Path, task: str, more: str, says: str) -> None:
    (tmp_path / "q.jsonl").write_text('{"question": "Q?", "answer": 1}\n{"question": "R?", "answer": 2}\n')
    [data] = found(written(tmp_path, "{model: embedded/base}", more=more, task=task), tmp_path / "run")["data"]
    assert (data.level, says in data.text) == ("failure", True), data


@pytest.mark.parametrize(
    ("uri", "level"),
    [
        ("file:mlruns", "ok"),
        ("mlruns", "ok"),
        ("file:q.jsonl", "failure"),
        ("gopher://x", "failure"),
        ("http://127.0.0.1:9", "failure"),
        ("databricks", "ok"),
    ],
)
def test_the_doctor_looks_at_tracking(tmp_path: Path, uri: str, level: str) -> None:
    (tmp_path / "q.jsonl").write_text("")
    file = written(tmp_path, "{model: embedded/base}", more=f"tracking: {{mlflow: '{uri}'}}\n")
    [tracking] = found(file, tmp_path / "run")["tracking"]
    assert tracking.level == level, tracking


@pytest.mark.parametrize("broken", ["_packages", "_device", "_disk", "_data", "_tracking", "_base", "_endpoint"])
def test_a_check_that_breaks_is_a_failure_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def breaks(*given: object) -> None:
        raise RuntimeError("it broke")

    file = written(tmp_path, "{model: embedded/base}", more="tracking: {mlflow: 'file:x'}\n")
    whole = found(file, tmp_path / "run")
    monkeypatch.setattr(f"divcon._doctor.{broken}", breaks)
    by_name = found(file, tmp_path / "run")
    assert set(by_name) == set(whole)
    failures = [one for findings in by_name.values() for one in findings if one.level == "failure"]
    assert failures
    assert all("RuntimeError: it broke" in one.text for one in failures)


# -- contamination ---------------------------------------------------------------------------------------------------

LEARNT = (
    "Every morning the baker carries six trays of warm bread to the small shop. How many trays are there in a week?"
)
TESTED = LEARNT.replace("small", "corner")


def rows(file: Path, *questions: str) -> Path:
    lines = ({"id": f"{file.stem}-{n}", "question": q, "answer": "x"} for n, q in enumerate(questions))
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def near_task(tmp_path: Path, **more: object) -> Task:
    asked = [f"Is it {word} in the garden?" for word in ("warm", "cold")]
    learn, test = rows(tmp_path / "learn.jsonl", LEARNT, asked[0]), rows(tmp_path / "held.jsonl", TESTED, asked[1])
    return Task.model_validate({"name": "jsonl", "path": learn, "test_path": test, "train": 2, "test": 2, **more})


def test_near_duplicates_are_refused_dropped_or_let_through_as_overlaps_are(tmp_path: Path) -> None:
    near = {"near_duplicate": 0.6}
    with pytest.raises(OverlapError, match=r"learn-0 ~ test-held-0 \(near, 0\.\d\d\)"):
        load_task(near_task(tmp_path, **near))
    dropped = load_task(near_task(tmp_path, overlap="drop", **near))
    assert ([item.id for item in dropped.train], dropped.dropped_overlap) == (["learn-1"], 1)
    assert len(load_task(near_task(tmp_path, overlap="same", **near)).train) == 2
    assert len(load_task(near_task(tmp_path, near_duplicate=0.9)).train) == 2
    for named in ({"id": "learn-0"}, {"id": "test-held-0"}, {"pair": ["learn-0", "test-held-0"]}):
        for overlap in ("refuse", "drop"):
            allow = [{**named, "reason": "written apart"}]
            loaded = load_task(near_task(tmp_path, overlap=overlap, allow=allow, **near))
            assert len(loaded.train) == 2
            assert [(one.train, one.reason) for one in loaded.allowed] == [("learn-0", "written apart")]
    with pytest.raises(OverlapError):
        allow = [{"pair": ["learn-0", "test-held-1"], "reason": "another"}]
        load_task(near_task(tmp_path, allow=allow, **near))


@pytest.mark.parametrize("allow", ["{id: a}", "{id: a, reason: ''}", "{id: a, pair: [a, b], reason: x}", "{reason: x}"])
def test_what_is_let_through_is_named_with_a_reason(tmp_path: Path, allow: str) -> None:
    task = f"{{name: jsonl, path: x, train: 1, test: 1, allow: [{allow}]}}"
    with pytest.raises(DivconError, match=r"task\.allow"):
        load_pipeline(written(tmp_path, "{model: embedded/base}", task=task))


def test_a_transfer_is_refused_where_a_task_learns_what_nearly_is_anothers_test(tmp_path: Path) -> None:
    plain = [f"Is it {word} in the garden?" for word in ("warm", "cold", "wet", "dry")]
    files = {
        "one": (rows(tmp_path / "l1.jsonl", LEARNT, plain[0]), rows(tmp_path / "t1.jsonl", plain[1])),
        "two": (rows(tmp_path / "l2.jsonl", plain[2]), rows(tmp_path / "t2.jsonl", TESTED, plain[3])),
    }
    more = {"one": "train: 2, test: 1", "two": "train: 1, test: 2"}

    def experiment(allow: str) -> ExperimentRun:
        tasks = "".join(
            f"    {name}: {{name: jsonl, path: {learn}, test_path: {test}, {more[name]}, near_duplicate: 0.6{allow}}}\n"
            for name, (learn, test) in files.items()
        )
        file = tmp_path / "e.yaml"
        file.write_text(
            f"experiment:\n  kind: transfer\n  arms: [cot, untuned]\n  tasks:\n{tasks}"
            "roles: {teacher: {model: embedded/base}, solver: {model: embedded/solver}}\n"
        )
        return ExperimentRun(load_experiment(file), tmp_path / "run")

    refused = experiment("")
    with pytest.raises(OverlapError, match=r"one:l1-0 ~ two:test-t2-0 \(near"):
        refused.check()
    refused.close()
    for named in ("id: l1-0", "id: test-t2-0"):
        allowed = experiment(f", allow: [{{{named}, reason: x}}]")
        allowed.check()
        allowed.close()
