"""What a user is told of a server that is slow, overloaded or unreachable, and that it changes nothing stored."""

from pathlib import Path

import dspy
import pytest
from dspy.utils.exceptions import LMError, LMRateLimitError, LMServerError, LMTransportError
from support.openai_server import BrokenOff, OpenAIServer, Raw, Refused, Silence, user_text

from divcon import Run, load_pipeline
from divcon.distill import GivenUpError, LMBackend, Patience, RunStore, SlowServerError, StoredEngine, role_lm
from divcon.pipeline import Incomplete, explain_lm_error
from divcon.programs import RolePredict
from divcon.signatures import Answer


def pipeline(folder: Path, teacher: str) -> Path:
    file = folder / "p.yaml"
    file.write_text(
        "task: {name: word-problems, train: 6, test: 2}\n"
        f"roles:\n  teacher: {teacher}\n  solver: {{model: hosted_vllm/s, api_base: 'http://127.0.0.1:9/v1'}}\n"
        "collect: {concurrency: 3}\n"
    )
    return file


def raised(reply, patience: Patience | None = None) -> LMError:
    """The error of a call as a role raises it."""
    with OpenAIServer(lambda body: reply) as server:
        inner = dspy.LM("openai/m", api_base=server.url, api_key="k", cache=False, num_retries=0)
        engine = StoredEngine(LMBackend(inner, patience), "teacher", "openai/m", None)
        with pytest.raises(LMError) as caught:
            RolePredict(Answer, "teacher", lm=role_lm(engine, temperature=None, max_tokens=None))(question="Q?")
    return caught.value


@pytest.mark.parametrize(
    ("reply", "patience", "kind", "problem", "remedy"),
    [
        (
            Silence(after=2),
            Patience(silence=0.2),
            SlowServerError,
            "is slow: no token for 0.2 s, after 2.",
            "Raise roles.teacher.timeout, or lower the station's concurrency.",
        ),
        (
            Silence(),
            Patience(first_token=0.2),
            SlowServerError,
            "takes requests and answers none: no token within 0.2 s.",
            "Check the server, or raise roles.teacher.first_token.",
        ),
        (
            Refused(429, 700),
            None,
            LMRateLimitError,
            "is overloaded: it answers 429 and says to wait 700 s",
            "Lower the station's concurrency, or run again in 700 s.",
        ),
        (
            503,
            None,
            LMServerError,
            "is overloaded: it answers 503 (",
            "Lower the station's concurrency, or run again later.",
        ),
        (
            BrokenOff(2),
            None,
            LMTransportError,
            "can't be reached: the reply broke off",
            "Start it, or correct roles.teacher.api_base.",
        ),
    ],
)
def test_three_messages_with_three_remedies(
    tmp_path: Path, reply, patience: Patience | None, kind: type[LMError], problem: str, remedy: str
) -> None:
    error = raised(reply, patience)
    assert isinstance(error, kind)
    file = pipeline(tmp_path, "{model: hosted_vllm/t, api_base: 'http://127.0.0.1:9/v1'}")
    said = explain_lm_error(error, load_pipeline(file))
    assert said.problem.startswith(f"The teacher (hosted_vllm/t) at http://127.0.0.1:9/v1 {problem}")
    assert said.problem.count("server") == 0, "it is said once whose it is"
    assert said.remedy == f"{remedy} All replies are kept."


def test_a_station_goes_on_with_a_slow_server_and_says_in_the_end_what_to_do(tmp_path: Path) -> None:
    def reply(body: dict):
        asked.append(user_text(body))
        return Silence(after=1) if len(asked) % 2 else "1. What is said?\n2. What follows?"

    asked: list[str] = []
    with OpenAIServer(reply) as server:
        file = pipeline(tmp_path, f"{{model: hosted_vllm/t, api_base: '{server.url}', timeout: 0.3, retries: 0}}")
        run = Run(load_pipeline(file), tmp_path / "run")
        with pytest.raises(Incomplete, match=r"3 of 6 calls failed.* slow: no token for 0.3 s.*Raise timeout"):
            run.collect()
        assert len(asked) == 6, "all were asked, the slow ones too"
        run.close()


def test_a_station_ends_with_a_server_that_answers_nobody(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: Silence()) as server:
        file = pipeline(tmp_path, f"{{model: hosted_vllm/t, api_base: '{server.url}', first_token: 0.3, retries: 0}}")
        run = Run(load_pipeline(file), tmp_path / "run")
        with pytest.raises(SlowServerError, match="takes requests and answers none"):
            run.collect()
        run.close()


def test_how_long_is_waited_changes_nothing_that_is_stored(tmp_path: Path) -> None:
    at = "model: hosted_vllm/t, api_base: 'http://127.0.0.1:9/v1'"
    found = []
    for waiting in (
        "",
        ", timeout: 3, first_token: 4, longest: 5, retries: 6, give_up: 7, retry_share: 1, reply_bytes: 9",
    ):
        run = Run(load_pipeline(pipeline(tmp_path, f"{{{at}{waiting}}}")), tmp_path / "run")
        keys = (run.keys.collection(), run.keys.screening("none"), run.keys.screening("oracle"))
        found.append((*(key.digest for key in keys), run.models.teacher.engine.identity))
        run.close()
    assert found[0] == found[1]


def test_the_file_says_how_long_each_role_is_waited_for(tmp_path: Path) -> None:
    at = "model: hosted_vllm/t, api_base: 'http://127.0.0.1:9/v1'"
    run = Run(load_pipeline(pipeline(tmp_path, f"{{{at}, timeout: 3, first_token: 4, longest: 5}}")), tmp_path / "run")
    assert run.models.teacher.engine.backend.patience == Patience(silence=3, first_token=4, longest=5)
    assert run.models.solver.engine.backend.patience == Patience(silence=120, first_token=600, longest=3600)
    run.close()


def test_money_so_far_counts_what_earlier_runs_of_the_folder_paid(tmp_path: Path) -> None:
    class Noting:
        def __init__(self) -> None:
            self.said: list[str] = []

        def station(self, name: str, text: str) -> None: ...

        def progress(self, name: str, done: int, total: int, note: str = "") -> None:
            self.said.append(f"{done}/{total} {note}")

        def finished(self, name: str, text: str) -> None: ...

    with OpenAIServer(lambda body: "1. What is said?\n2. What follows?") as server:
        price = "price: {input: 100, output: 1000}"  # a tenth of a cent for ten tokens in, half a cent for five out
        file = pipeline(tmp_path, f"{{model: hosted_vllm/t, api_base: '{server.url}', {price}}}")
        for train, spent in ((2, "$0.0120"), (6, "$0.0360")):
            reporter = Noting()
            run = Run(load_pipeline(file, [f"task.train={train}"]), tmp_path / "run", reporter)
            run.collect()
            run.close()
            assert reporter.said[-1].startswith(f"{train}/{train} answers")
            assert reporter.said[-1].endswith(f"{spent} so far")
    assert RunStore(tmp_path / "run").paid()["teacher"]["cost"] == pytest.approx(0.036)


@pytest.mark.parametrize(
    ("reply", "remedy"),
    [
        (
            Refused(400, message="'temperature' does not support 0.7"),
            "roles.teacher.temperature and collect.temperature",
        ),
        (Refused(400, message="max_tokens is too large: 9"), "Change roles.teacher.max_tokens."),
        (
            Refused(400, message="the maximum context length is 8 tokens"),
            "set roles.teacher.model to one with a larger",
        ),
        (Refused(400, message="unknown argument top_k"), "Set roles.teacher.model to one that takes such requests."),
        (Refused(422, message="temperature: must be <= 1"), "Change roles.teacher.temperature"),
        (Refused(404, message="the model `t` does not exist"), "Correct roles.teacher."),
        (Refused(404, message="Not Found"), "Correct roles.teacher.api_base"),
        (401, "Set the environment variable"),
        (403, "Set the environment variable"),
        (Raw([b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"]), "Correct roles.teacher.api_base"),
    ],
)
def test_a_refusal_names_the_key_to_change_and_nobody_is_told_to_run_again(
    tmp_path: Path, reply: Refused | Raw | int, remedy: str
) -> None:
    with OpenAIServer(lambda body: reply) as server:
        run = Run(
            load_pipeline(pipeline(tmp_path, f"{{model: hosted_vllm/t, api_base: '{server.url}'}}")), tmp_path / "run"
        )
        with pytest.raises(LMError) as caught:
            run.collect()
        said = explain_lm_error(caught.value, run.pipeline)
        run.close()
    assert remedy in said.remedy
    assert "again" not in said.remedy.lower()
    assert "To fix" not in said.problem and "\n" not in said.problem


def test_some_refused_calls_are_not_to_be_run_again_either(tmp_path: Path) -> None:
    def reply(body: dict):
        asked.append(body)
        return "1. What is said?\n2. What follows?" if len(asked) < 4 else Refused(400, message="content policy")

    asked: list[dict] = []
    with OpenAIServer(reply) as server:
        run = Run(
            load_pipeline(pipeline(tmp_path, f"{{model: hosted_vllm/t, api_base: '{server.url}'}}")), tmp_path / "run"
        )
        with pytest.raises(Incomplete, match=r"of 6 calls failed.*content policy") as caught:
            run.collect()
        run.close()
    assert "get the same again until" in caught.value.remedy


def test_a_server_that_is_given_up_is_named_with_how_long_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("divcon.distill._breaker._FIRST_PAUSE", 0.1)
    with OpenAIServer(lambda body: 503) as server:
        file = pipeline(tmp_path, f"{{model: hosted_vllm/t, api_base: '{server.url}', give_up: 1}}")
        run = Run(load_pipeline(file, ["collect.concurrency=6"]), tmp_path / "run")
        with pytest.raises(GivenUpError) as caught:
            run.collect()
        said = explain_lm_error(caught.value, run.pipeline)
        run.close()
    assert f"The teacher (hosted_vllm/t) at {server.url} is overloaded: it answers 503" in said.problem
    assert "given up after 1 s" in said.problem
    assert said.remedy.startswith("Lower the station's concurrency, or run again later.")
