"""The whole line in one piece: a real server as teacher and solver, a tiny real student."""

import csv
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import dspy
import pytest
from support.openai_server import OpenAIServer, user_text

from divcon import Run, load_pipeline
from divcon.distill import Base, ManifestError, RunStore, bind_adapter, read_manifest
from divcon.pipeline import MissingStation
from divcon.programs import LEARNT, DivideAndConquer, ForeignEndpoint, Wording, bind
from divcon.schemas import Results
from divcon.signatures import Decompose

pytestmark = pytest.mark.model

DIVCON = Path(sys.executable).with_name("divcon")


def answer(body: dict) -> str:
    """A teacher that splits well two times in three, and a solver that is right where the split was good."""
    text = user_text(body)
    question = text.split("Question:")[1].split("Hints:")[0].strip()
    digest = int(hashlib.sha256(question.encode()).hexdigest(), 16)
    if "Split the question" in body["messages"][0]["content"]:
        good = digest % 3 > 0
        return f"1. What is the {'first' if good else 'wrong'} amount in {digest % 997}?\n2. What follows from that?"
    gold = GOLD[question] if "wrong amount" not in text else "0"
    return f"1. x\n2. y\nAnswer: {gold}" if "reason step by step" in body["messages"][0]["content"] else gold


def told(body: dict) -> str:
    """The instruction of a call."""
    return str(body["messages"][0]["content"])


GOLD: dict[str, str] = {}


def pipeline(folder: Path, server: OpenAIServer, tiny: Base) -> Path:
    file = folder / "line.yaml"
    file.write_text(
        f"""\
task: {{name: word-problems, train: 40, test: 12}}
roles:
  teacher: {{model: openai/teacher, api_base: '{server.url}', retries: 0, price: {{input: 1, output: 2}}}}
  decomposer: {{base: {tiny.path}, max_tokens: 24}}
  solver: {{model: openai/solver, api_base: '{server.url}', retries: 0}}
collect: {{concurrency: 2}}
screen: {{rule: [none, oracle], samples: 2, concurrency: 4}}
train: {{epochs: 2, batch_size: 8, save_every: 2}}
evaluate: {{resamples: 200, concurrency: 8}}
"""
    )
    for item in Run(load_pipeline(file), folder / "unused").task.train + Run(load_pipeline(file), folder).task.test:
        GOLD[item.question] = item.answer
    return file


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")


def exports(run: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted((run / "exports").iterdir())}


def test_the_whole_line_measures_what_happened_and_again_redoes_nothing(
    tmp_path: Path, tiny_base: Base, keyed: None
) -> None:
    with OpenAIServer(answer) as server:
        file = pipeline(tmp_path, server, tiny_base)
        results = Run(load_pipeline(file), tmp_path / "run").run()
        arms = {arm["name"]: arm for arm in results["arms"]}
        assert list(arms) == ["direct", "cot", "teacher", "untuned", "sd-t", "sd-r"]
        assert arms["direct"]["accuracy"] == arms["cot"]["accuracy"] == 1.0
        assert all(arm["failed"] == 0 and arm["right"] + arm["wrong"] == 12 for arm in arms.values())
        assert set(arms["direct"]) >= {"name", "right", "wrong", "failed", "accuracy", "ci95", "whole_rate", "usage"}
        # ten tokens in a call, by the server's own count
        assert arms["teacher"]["usage"]["solver"]["input_tokens"] == 120
        assert arms["teacher"]["usage"]["decomposer"]["calls"] == 12
        assert len(results["differences"]) == 15
        screening = results["screening"]
        assert screening["collected"] == 40
        assert screening["kept"] + screening["lost"]["unsolved"] == 40
        assert screening["by_student"]["sd-t"]["kept"] == 40
        assert results["training"]["sd-r"]["rows"] == screening["kept"]
        assert results["paid"]["teacher"]["cost"] == pytest.approx(results["paid"]["teacher"]["calls"] * 20 / 1e6)
        assert results["paid"]["solver"]["cost"] is None
        assert json.loads((tmp_path / "run" / "results.json").read_text()) == results
        Results.model_validate_json((tmp_path / "run" / "results.json").read_text())
        with (tmp_path / "run" / "results.csv").open() as stream:
            lines = list(csv.DictReader(stream))
        assert [float(line["accuracy"]) for line in lines] == [arm["accuracy"] for arm in results["arms"]]
        assert (tmp_path / "run" / "report.html").is_file()
        card = (tmp_path / "run" / "adapters" / "sd-r" / "README.md").read_text(encoding="utf-8")
        assert f"(this adapter) | {100 * arms['sd-r']['accuracy']:.1f} % (" in card
        assert "{question}" in card
        asked, made = len(server.requests), exports(tmp_path / "run")
        adapter = (tmp_path / "run" / "adapters" / "sd-r" / "adapter_model.safetensors").stat().st_mtime_ns
        again = Run(load_pipeline(file), tmp_path / "run").run()
        assert len(server.requests) == asked
        assert exports(tmp_path / "run") == made
        assert (tmp_path / "run" / "adapters" / "sd-r" / "adapter_model.safetensors").stat().st_mtime_ns == adapter
        assert {k: v for k, v in again.items() if k != "seconds"} == {
            k: v for k, v in results.items() if k != "seconds"
        }
        shutil.rmtree(tmp_path / "run" / "exports")
        looking = Run(load_pipeline(file), tmp_path / "run")
        missing = [one.station for one in looking.status() if one.state != "done"]
        assert missing == ["export sd-t", "export sd-r"], "a run would only write the rows again"
        looking.close()


def test_swapping_the_solver_is_one_line_and_asks_the_teacher_nothing_for_training(
    tmp_path: Path, tiny_base: Base, keyed: None
) -> None:
    with OpenAIServer(answer) as server:
        file = pipeline(tmp_path, server, tiny_base)
        Run(load_pipeline(file), tmp_path / "run").run()
        before = Counter(server.models())
        swapped = load_pipeline(file, ["roles.solver.model=openai/other"])
        Run(swapped, tmp_path / "run").run()
        after = Counter(server.models())
        assert after["teacher"] == before["teacher"]
        assert after["solver"] == before["solver"]
        assert after["other"] > 0


def test_a_saved_program_is_bound_again_from_its_run_and_to_no_other_student(
    tmp_path: Path, tiny_base: Base, keyed: None
) -> None:
    with OpenAIServer(answer) as server:
        run = Run(load_pipeline(pipeline(tmp_path, server, tiny_base)), tmp_path / "run")
        run.run()
        program, name = run.answering_program()
        assert name == "sd-r"
        question = run.task.test[0].question
        said = program(question=question)
        program.save(tmp_path / "program.json")
        loaded = DivideAndConquer()
        loaded.load(tmp_path / "program.json")
        with pytest.raises(ForeignEndpoint, match="trained as sd-r-"):
            bind(loaded, **run.lms("sd-t"))
        bind(loaded, **run.lms())
        again = loaded(question=question)
        assert (again.answer, again.subquestions, again.status) == (said.answer, said.subquestions, said.status)


def test_a_student_is_refused_where_the_instruction_is_not_the_one_it_was_trained_on(
    tmp_path: Path, tiny_base: Base, keyed: None
) -> None:
    with OpenAIServer(answer) as server:
        file = pipeline(tmp_path, server, tiny_base)
        Run(load_pipeline(file), tmp_path / "run").run()
        changed = Run(load_pipeline(file, ["program.max_subquestions=5"]), tmp_path / "run")
        with pytest.raises(ManifestError, match="another instruction"):
            changed.answering_program()
        with pytest.raises(MissingStation, match="exported from other data or settings"):
            changed.evaluate()


@pytest.mark.parametrize("optimizer", ["none", "bootstrap"])
def test_an_own_instruction_is_told_to_the_teacher_and_learnt_by_the_student(
    tmp_path: Path, tiny_base: Base, keyed: None, optimizer: str
) -> None:
    def reply(body: dict) -> str:
        return answer({**body, "messages": [{"role": "system", "content": ours}, *body["messages"][1:]]})

    ours = Decompose.instructions
    given = ["screen.rule=none", f"compile={{optimizer: {optimizer}, examples: 4}}"]
    own = [*given, "program.instruction=Cut it into {max_subquestions}."]
    with OpenAIServer(lambda body: reply(body) if told(body) == "Cut it into 3." else answer(body)) as server:
        file = pipeline(tmp_path, server, tiny_base)
        Run(load_pipeline(file, given), tmp_path / "run").run()
        first, before = Counter(server.models()), len(server.requests)
        Run(load_pipeline(file, own), tmp_path / "run").run()
        planned = [told(body) for body in server.requests[before:] if body["model"] == "teacher"]
        assert set(planned) == {"Cut it into 3."} and len(planned) == first["teacher"], "no plan of another instruction"
        asked = Counter(server.models())
        Run(load_pipeline(file, given), tmp_path / "run").run()
        assert Counter(server.models()) == asked, "what was asked for divcon's own is there"
        Run(load_pipeline(file, own), tmp_path / "run").run()
        assert Counter(server.models()) == asked
    student = tmp_path / "run" / "adapters" / "sd-t"
    assert read_manifest(student).messages[0] == {"role": "system", "content": "Cut it into 3."}
    lm = dspy.LM("openai/student", api_base="http://127.0.0.1:9/v1")
    learnt = Wording({"Decompose": "Cut it into 3."}, demonstrate=False)
    bind_adapter(DivideAndConquer(decomposer_wording=learnt).decompose, lm, student)
    with pytest.raises(ManifestError, match="another instruction"):
        bind_adapter(DivideAndConquer(decomposer_wording=LEARNT).decompose, lm, student)


def test_an_own_instruction_leaves_the_answers_of_programs_without_a_plan_as_they_are(
    tmp_path: Path, tiny_base: Base, keyed: None
) -> None:
    with OpenAIServer(answer) as server:
        file = pipeline(tmp_path, server, tiny_base)
        Run(load_pipeline(file, ["evaluate.arms=[direct, cot]"]), tmp_path / "run").run()
        looking = Run(
            load_pipeline(file, ["evaluate.arms=[direct, cot]", "program.instruction=Cut it."]), tmp_path / "run"
        )
        states = {one.station: one.state for one in looking.status()}
        looking.close()
    assert states["evaluate direct"] == states["evaluate cot"] == "done"


def test_a_student_of_another_draw_of_the_data_is_not_evaluated(tmp_path: Path, tiny_base: Base, keyed: None) -> None:
    with OpenAIServer(answer) as server:
        file = pipeline(tmp_path, server, tiny_base)
        Run(load_pipeline(file), tmp_path / "run").run()
        drawn = Run(load_pipeline(file, ["task.train_seed=7"]), tmp_path / "run")
        drawn.check()
        with pytest.raises(MissingStation, match="The rows of the student SD-T are missing, or were exported"):
            drawn.evaluate()


def test_an_overlap_that_is_let_through_stands_in_the_manifest(tmp_path: Path, tiny_base: Base, keyed: None) -> None:
    asked = [f"How many plums are in the {word} bag of the two?" for word in ("red", "blue", "green", "white")]
    for name, questions in (("learn", asked[:3]), ("held", [asked[0], asked[3]])):
        rows = (
            {"id": f"{name}-{n}", "question": question, "answer": "7", "subquestions": [f"Is it {n}?", "And then?"]}
            for n, question in enumerate(questions)
        )
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "p.yaml").write_text(
        f"""\
task:
  {{name: jsonl, path: {tmp_path}/learn.jsonl, test_path: {tmp_path}/held.jsonl, train: 3, test: 2,
   allow: [{{id: learn-0, reason: 'a classic <7>'}}]}}
roles:
  teacher: {{model: scripted/references}}
  decomposer: {{base: {tiny_base.path}, max_tokens: 8}}
  solver: {{model: openai/solver, api_base: "http://127.0.0.1:9/v1"}}
screen: {{rule: none}}
train: {{epochs: 1, batch_size: 2}}
evaluate: {{arms: [untuned], resamples: 100}}
"""
    )
    run = Run(load_pipeline(tmp_path / "p.yaml"), tmp_path / "run")
    run.check()
    run.collect()
    run.export(run.screen())
    adapter = run.train()["sd-t"]
    [allowed] = read_manifest(adapter).allowed_overlap
    assert (allowed["train"], allowed["reason"]) == ("learn-0", "a classic <7>")
    assert allowed["test"].endswith("held-0")
    run.close()


def test_a_run_leaves_its_folder_although_its_workers_cant_be_released(tmp_path: Path) -> None:
    class Broken:
        def release(self, store: RunStore) -> None:
            raise OSError("the cluster is gone")

        def close(self) -> None:
            closed.append(True)

    closed: list[bool] = []
    (tmp_path / "p.yaml").write_text(
        "task: {name: word-problems, train: 4, test: 4}\n"
        "roles: {teacher: {model: scripted/references}, decomposer: {base: embedded}, solver: {model: embedded/solver}}"
    )
    run = Run(load_pipeline(tmp_path / "p.yaml"), tmp_path / "run")
    run.hold()
    run.context.__dict__["executor"] = Broken()
    with pytest.raises(OSError, match="the cluster is gone"):
        run.close()
    assert closed == [True]
    other = Run(load_pipeline(tmp_path / "p.yaml"), tmp_path / "run")
    other.hold()  # raises where another process or run has the folder
    other.close()


@pytest.mark.parametrize("optimizer", ["bootstrap", "LabeledFewShot"])
def test_compiled_demos_go_to_the_teacher_and_not_into_training_rows(
    tmp_path: Path, tiny_base: Base, keyed: None, optimizer: str
) -> None:
    with OpenAIServer(answer) as server:
        file = pipeline(tmp_path, server, tiny_base)
        arguments = "{max_bootstrapped_demos: 2, max_labeled_demos: 0}" if optimizer == "bootstrap" else "{k: 2}"
        pipeline_ = load_pipeline(file, [f"compile.optimizer={optimizer}", f"compile.arguments={arguments}"])
        run = Run(pipeline_, tmp_path / "run")
        run.check()
        run.compile()
        run.collect()
        teacher_calls = [body for body in server.requests if body["model"] == "teacher"]
        assert len(teacher_calls[-1]["messages"]) == 2 + 2 * 2
        row = json.loads(next(iter(run.export().values())).file.read_text().splitlines()[0])
        assert [message["role"] for message in row["prompt"]] == ["system", "user"]
        assert run.programs.asking_solver().solve.demos == []


def test_killed_three_times_at_random_the_exports_are_the_same_and_nothing_stored_is_asked_twice(
    tmp_path: Path, tiny_base: Base, keyed: None
) -> None:
    with OpenAIServer(answer, delay=0.02) as server:
        file = pipeline(tmp_path, server, tiny_base)
        Run(load_pipeline(file), tmp_path / "whole").run()
        whole = exports(tmp_path / "whole")
        server.requests.clear()
        rng = random.Random(time.time_ns())
        killed_at = []
        for _ in range(3):
            process = subprocess.Popen(
                [str(DIVCON), "run", str(file), "--run", str(tmp_path / "killed")],
                cwd=tmp_path,
                env=os.environ,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            target = len(server.requests) + rng.randint(5, 40)
            while len(server.requests) < target and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
            process.wait(30)
            killed_at.append(len(server.requests))
        done = subprocess.run(
            [str(DIVCON), "run", str(file), "--run", str(tmp_path / "killed")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert exports(tmp_path / "killed") == whole, killed_at
        asked = Counter(json.dumps(body, sort_keys=True) for body in server.requests if body["model"] == "teacher")
        # A call in flight when the process dies was never answered, and has to be asked again: two at a time here.
        assert sum(count - 1 for count in asked.values()) <= 3 * 2, killed_at


def test_an_interrupted_evaluation_reports_failures_and_exits_with_1(
    tmp_path: Path, tiny_base: Base, keyed: None
) -> None:
    limited = {"on": False}

    def reply(body: dict):
        whole = "Write the answer alone" in body["messages"][0]["content"]
        return 429 if limited["on"] and whole and user_text(body)[-3] in "aeiou" else answer(body)

    with OpenAIServer(reply) as server:
        file = pipeline(tmp_path, server, tiny_base)
        limited["on"] = True
        done = subprocess.run(
            [str(DIVCON), "run", str(file), "--run", "run"], cwd=tmp_path, capture_output=True, text=True
        )
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        direct = results["arms"][0]
        assert direct["failed"] > 0
        assert direct["right"] + direct["wrong"] + direct["failed"] == 12
        assert done.returncode == 1
        assert re.search(r"\d+ answers failed and are in no accuracy", done.stderr)
        assert (direct["accuracy"], direct["ci95"], direct["bill"]) == (None, None, None)
        assert not [row for row in results["differences"] if "direct" in (row["a"], row["b"])]
        assert (results["costs"]["choice"], results["costs"]["unscored"]) == (None, ["direct"])
        assert "direct" not in results["costs"]["points"]
        said = " ".join(done.stdout.split())
        assert f"Direct has no score: {direct['failed']} of 12 answers failed" in said
        outcomes = f"{direct['right']}/{direct['wrong']}/{direct['failed']}"
        assert f" Direct – ({direct['failed']} of 12 failed) – – {outcomes} – – " in said
        assert all(f" {arm['label'].split()[0]}" in said for arm in results["arms"]), "no column takes the names' room"
        assert re.search(r"≥ 0\.\d+ .* Two-stage, teacher: \d+ calls have no price", said)
        assert "No program is advised" in said and "ettled: " not in said
        with (tmp_path / "run" / "results.csv").open() as stream:
            line = next(csv.DictReader(stream))
        assert (line["accuracy"], line["ci95_low"], line["failed"]) == ("", "", str(direct["failed"]))
        html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
        assert "ettled: " not in html and f"– ({direct['failed']} of 12 failed)" in html
        Results.model_validate(results)
        lenient = load_pipeline(file, ["evaluate.max_failed=0.99"])
        assert lenient.evaluate.max_failed == 0.99
