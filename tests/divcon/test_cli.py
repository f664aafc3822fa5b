"""The command line as a user meets it: in a process of its own, with what goes wrong in real life."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.openai_server import OpenAIServer, user_text
from support.processes import heed_ctrl_c

DIVCON = Path(sys.executable).with_name("divcon")


def divcon(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(DIVCON), *map(str, arguments)],
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, **environment},
    )


def pipeline(
    folder: Path, teacher: str, solver: str = "{model: openai/solver, api_base: 'http://127.0.0.1:9/v1'}"
) -> Path:
    file = folder / "p.yaml"
    file.write_text(
        "task: {name: word-problems, train: 20, test: 5}\n"
        f"roles:\n  teacher: {teacher}\n  solver: {solver}\n"
        "collect: {concurrency: 1}\nscreen: {rule: none}\n"
    )
    return file


def failed(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("error:") == 1
    for word in words:
        assert word in done.stderr, done.stderr


def decomposition(body: dict) -> str:
    return f"1. What is said in {sum(map(ord, user_text(body)))}?\n2. What follows?"


def test_help_lists_a_command_a_station(tmp_path: Path) -> None:
    done = divcon("--help", cwd=tmp_path)
    assert done.returncode == 0
    for name in (
        "compile",
        "collect",
        "screen",
        "export",
        "train",
        "evaluate",
        "run",
        "ask",
        "serve",
        "doctor",
        "precheck",
        "grade",
    ):
        assert name in done.stdout
    assert divcon("--version", cwd=tmp_path).stdout.startswith("divcon 0.")


def test_a_wrong_key_is_one_error_that_names_role_and_variable(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: 401) as server:
        file = pipeline(tmp_path, f"{{model: openai/t, api_base: '{server.url}', api_key_env: MY_KEY}}")
        failed(divcon("collect", file, cwd=tmp_path, MY_KEY="wrong"), "teacher (openai/t)", server.url, "MY_KEY")
        assert len(server.requests) == 1


def test_no_key_at_all_is_one_error(tmp_path: Path) -> None:
    file = pipeline(tmp_path, "{model: openai/gpt-5-mini}")
    failed(divcon("collect", file, cwd=tmp_path), "teacher (openai/gpt-5-mini)", "OPENAI_API_KEY")


def test_an_unreachable_server_is_one_error(tmp_path: Path) -> None:
    file = pipeline(tmp_path, "{model: hosted_vllm/t, api_base: 'http://127.0.0.1:9/v1', retries: 0}")
    failed(divcon("collect", file, cwd=tmp_path), "can't be reached", "roles.teacher.api_base")


@pytest.mark.parametrize("train", ["nowhere.jsonl", "empty.jsonl"])
def test_missing_and_empty_data_stop_before_anything_is_asked(tmp_path: Path, train: str) -> None:
    (tmp_path / "empty.jsonl").write_text("")
    with OpenAIServer(decomposition) as server:
        file = pipeline(tmp_path, f"{{model: openai/t, api_base: '{server.url}'}}")
        done = divcon("run", file, "--set", "task.name=jsonl", "--set", f"task.path={train}", cwd=tmp_path)
        failed(done, train if train == "nowhere.jsonl" else "0 questions")
        assert server.requests == []


def test_a_run_folder_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    file = pipeline(tmp_path, "{model: scripted/references}")
    failed(divcon("collect", file, "--run", tmp_path / "file" / "run", cwd=tmp_path), "can't be written", "--run")


def test_stations_out_of_order_say_what_to_run_first(tmp_path: Path) -> None:
    file = pipeline(tmp_path, "{model: scripted/references}")
    failed(divcon("export", file, cwd=tmp_path), "Run 'divcon collect' first")
    failed(divcon("train", file, cwd=tmp_path), "Run 'divcon export' first")


def test_collect_and_export_work_from_the_shell_and_again_give_the_same_bytes(tmp_path: Path) -> None:
    with OpenAIServer(decomposition) as server:
        file = pipeline(tmp_path, f"{{model: openai/t, api_base: '{server.url}'}}")
        for station in ("collect", "export"):
            done = divcon(station, file, cwd=tmp_path, OPENAI_API_KEY="k")
            assert done.returncode == 0, done.stderr
        rows = (tmp_path / "runs" / "p" / "exports" / "sd-t.jsonl").read_bytes()
        assert len(rows.splitlines()) == 20
        assert divcon("export", file, cwd=tmp_path, OPENAI_API_KEY="k").returncode == 0
        assert (tmp_path / "runs" / "p" / "exports" / "sd-t.jsonl").read_bytes() == rows
        assert len(server.requests) == 20


def test_unreadable_replies_are_counted_and_the_first_is_quoted_where_people_look(tmp_path: Path) -> None:
    unread = "There is more than one way to look at this.\nIt may be this, that, or something else, who can tell."

    def reply(body: dict) -> str:
        planned = "Split the question" in body["messages"][0]["content"]
        unreadable.append(planned)
        if planned:
            return "I would rather not." if unreadable.count(True) in (2, 3) else decomposition(body)
        return unread

    unreadable: list[bool] = []
    with OpenAIServer(reply) as server:
        file = pipeline(tmp_path, *[f"{{model: openai/m, api_base: '{server.url}', retries: 0}}"] * 2)
        file.write_text(file.read_text() + "evaluate: {arms: [cot], resamples: 100}\n")
        for command in ("collect", "screen", "evaluate"):
            done = divcon(command, file, cwd=tmp_path, OPENAI_API_KEY="k")
            assert done.returncode == 0, done.stderr
            if command == "screen":
                assert "kept 18 of 20; lost: 2 unreadable; the first unreadable reply ends: 'I would rather not.'" in (
                    done.stdout
                )
    assert "the answer of 5 replies can't be read, and they count as wrong; the first ends: " in done.stdout
    assert "who can tell." in done.stdout
    report = (tmp_path / "runs" / "p" / "report.html").read_text(encoding="utf-8")
    assert "answer of 5 replies can't be read" in report.replace("&#39;", "'") and "who can tell.</q>" in report


def test_killed_after_seven_of_twenty_the_next_run_asks_thirteen(tmp_path: Path) -> None:
    """SIGKILL between the seventh reply and the eighth request."""
    process: subprocess.Popen | None = None

    def reply(body: dict) -> str:
        if len(server.requests) == 8 and process is not None and process.poll() is None:
            server.requests.pop()  # the process dies before this one is answered
            process.send_signal(signal.SIGKILL)
            time.sleep(0.2)
        return decomposition(body)

    with OpenAIServer(reply, delay=0.05) as server:
        file = pipeline(tmp_path, f"{{model: openai/t, api_base: '{server.url}', retries: 0}}")
        process = subprocess.Popen(
            [str(DIVCON), "collect", str(file)],
            cwd=tmp_path,
            env={**os.environ, "OPENAI_API_KEY": "k"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        assert process.wait(60) == -signal.SIGKILL
        assert len(server.requests) == 7
        done = divcon("collect", file, cwd=tmp_path, OPENAI_API_KEY="k")
        assert done.returncode == 0, done.stderr
        assert len(server.requests) == 20
        assert len({user_text(body) for body in server.requests}) == 20


def collecting(file: Path, folder: Path) -> subprocess.Popen[str]:
    """A collection that listens to Ctrl-C."""
    return subprocess.Popen(
        [str(DIVCON), "collect", str(file)],
        cwd=folder,
        env={**os.environ, "OPENAI_API_KEY": "k"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_ctrl_c,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_ctrl_c_and_sigterm_are_answered_at_once_and_lose_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with OpenAIServer(decomposition, delay=1.5) as server:
        file = pipeline(tmp_path, f"{{model: openai/t, api_base: '{server.url}'}}")
        file.write_text(file.read_text().replace("concurrency: 1", "concurrency: 3"))
        process = collecting(file, tmp_path)
        while len(server.requests) < 4:
            time.sleep(0.02)
        process.send_signal(number)
        pressed = time.monotonic()
        assert process.stderr is not None
        while not (said := process.stderr.readline()).strip():
            pass
        assert said.startswith("Stopping after this step")
        assert time.monotonic() - pressed < 1
        _, said = process.communicate(timeout=30)
        assert process.returncode == 128 + number
        assert "run the same command to go on" in said
        asked = len(server.requests)
        assert asked < 20
        server.delay = 0.0
        assert divcon("collect", file, cwd=tmp_path, OPENAI_API_KEY="k").returncode == 0
        assert len(server.requests) == 20  # what was under way was kept


def test_a_second_ctrl_c_stops_at_once(tmp_path: Path) -> None:
    with OpenAIServer(decomposition, delay=0.2) as server:
        file = pipeline(tmp_path, f"{{model: openai/t, api_base: '{server.url}'}}")
        process = collecting(file, tmp_path)
        while len(server.requests) < 5:
            time.sleep(0.05)
        server.delay = 60.0
        asked = len(server.requests)
        while len(server.requests) == asked:
            time.sleep(0.05)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
        pressed = time.monotonic()
        _, said = process.communicate(timeout=30)
        assert time.monotonic() - pressed < 5
        assert process.returncode == 130
        assert "Stopping after this step" in said and "run the same command to go on" in said
        server.delay = 0.0
        assert divcon("collect", file, cwd=tmp_path, OPENAI_API_KEY="k").returncode == 0
        assert len(server.requests) <= 21  # at most the one in flight is asked again


def test_a_teacher_whose_replies_cannot_be_read_is_stopped_after_ten(tmp_path: Path) -> None:
    with OpenAIServer(lambda body: "I would rather not split this.") as server:
        file = pipeline(tmp_path, f"{{model: openai/t, api_base: '{server.url}'}}")
        for _ in range(2):  # again, nothing is asked
            done = divcon("collect", file, cwd=tmp_path, OPENAI_API_KEY="k")
            failed(done, "first 10 replies", "10 unreadable", "'I would rather not split this.'", "roles.teacher.model")
            assert len(server.requests) == 10
        server.reply = decomposition
        done = divcon("collect", file, "--set", "roles.teacher.model=openai/u", cwd=tmp_path, OPENAI_API_KEY="k")
        assert done.returncode == 0
        assert len(server.requests) == 30


def test_a_saved_run_folder_holds_no_key(tmp_path: Path) -> None:
    with OpenAIServer(decomposition) as server:
        file = pipeline(tmp_path, f"{{model: openai/t, api_base: '{server.url}', api_key_env: MY_KEY}}")
        assert divcon("collect", file, cwd=tmp_path, MY_KEY="sk-very-secret").returncode == 0
        assert server.keys[0] == "Bearer sk-very-secret"
    for found in (tmp_path / "runs").rglob("*"):
        assert found.is_dir() or b"sk-very-secret" not in found.read_bytes()


def test_ask_without_a_run_folder_and_with_an_empty_question(tmp_path: Path) -> None:
    failed(divcon("ask", "--run", tmp_path / "none", "Q?", cwd=tmp_path), "is no run folder")


@pytest.mark.model
def test_ask_answers_one_question_for_people_and_for_machines(tmp_path: Path) -> None:
    file = pipeline(tmp_path, "{model: scripted/references}", "{model: embedded/solver, max_tokens: 32}")
    assert divcon("collect", file, cwd=tmp_path).returncode == 0
    question = (
        "Ada has 3 bags, and each holds 4 plums. Then 2 of them go to a friend. How many plums does Ada have now?"
    )
    done = divcon("ask", "--run", "runs/p", question, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["question"] == question
    assert answer["student"] == "untuned"
    assert {"subquestions", "sub_answers", "answer", "usage", "status", "seconds"} <= set(answer)
    done = divcon("ask", "--run", "runs/p", question, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Subquestions" in done.stdout
    assert "price unknown" in done.stdout
    failed(divcon("ask", "--run", "runs/p", "  ", cwd=tmp_path), "question is empty")
    failed(divcon("ask", "--run", "runs/p", "x" * 20_000, cwd=tmp_path), "20,000 characters", "--context")
    failed(divcon("ask", "--run", "runs/p", "Q?", "--student", "sd-r", cwd=tmp_path), "SD-R isn't trained")


def test_grade_shows_verdict_value_and_rule(tmp_path: Path) -> None:
    done = divcon("grade", "gsm8k", "--gold", "12600", "--reply", "The total comes to $12,600.", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "right: read '12600', rule only_line, score 1\n")
    done = divcon("grade", "drop", "--gold", "Ada; Grace", "--reply", "Ada", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout) == {"right": False, "extracted": "Ada", "rule": "only_line", "score": 0.5}
    share = divcon("grade", "jsonl", "--gold", "0.05", "--reply", "5 %", "--percent", cwd=tmp_path)
    assert share.returncode == 0
    lenient = divcon("grade", "gsm8k", "--gold", "7", "--reply", "3 or 7", "--grader", "paper", cwd=tmp_path)
    assert lenient.returncode == 0
    pairs = [
        {"gold": "(B)", "reply": "blue", "question": "Which?\n(A) red\n(B) blue"},
        {"gold": ["Tor", "Thor"], "reply": "thor"},
        {"gold": "no", "reply": "No."},
        {"gold": 0, "reply": "1"},
    ]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    done = divcon("grade", "jsonl", "--file", "pairs.jsonl", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == "3 of 4 right"


def test_grade_says_what_it_lacks(tmp_path: Path) -> None:
    failed(divcon("grade", "gsm8k", "--gold", "7", cwd=tmp_path), "nothing to grade", "--reply")
    failed(divcon("grade", "gsm8k", "--gold", "x", "--reply", "7", cwd=tmp_path), "holds no number")
    failed(divcon("grade", "gms8k", "--gold", "7", "--reply", "7", cwd=tmp_path), "no task 'gms8k'", "gsm8k")
    failed(divcon("grade", "gsm8k", "--gold", " ", "--reply", "7", cwd=tmp_path), "nothing to grade")
    (tmp_path / "pairs.jsonl").write_text('{"gold": "7", "reply": 7}\n\n{"gold": "x", "reply": "7"}')
    failed(divcon("grade", "gsm8k", "--file", "pairs.jsonl", cwd=tmp_path), "Line 3 of pairs.jsonl", "holds no number")
    (tmp_path / "pairs.jsonl").write_text('{"gold": "7", "reply": "7"}\n{"gold": "7"}')
    failed(divcon("grade", "gsm8k", "--file", "pairs.jsonl", cwd=tmp_path), "Line 2 of pairs.jsonl")
    failed(
        divcon("grade", "gsm8k", "--gold", "7", "--reply", "7", "--grader", "kind", cwd=tmp_path), "no grader 'kind'"
    )


@pytest.mark.parametrize("kind", ["pipeline", "experiment"])
def test_schema_prints_the_one_that_ships(root: Path, tmp_path: Path, kind: str) -> None:
    done = divcon("schema", kind, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (root / "divcon" / "config" / f"{kind}.schema.json").read_text(encoding="utf-8")
