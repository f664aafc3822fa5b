"""The README can't rot: its code runs, its commands exist, its table is the recorded one."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import dspy
import pytest
from support.openai_server import OpenAIServer

from divcon.benchmarks._graders import KINDS
from divcon.benchmarks.tasks import PUBLIC, TASKS, Task

DIVCON = Path(sys.executable).with_name("divcon")


def blocks(root: Path, language: str) -> list[str]:
    pages = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def reply(body: dict) -> str:
    system = body["messages"][0]["content"]
    if "Split the question" in system:
        return "1. How many plums are in the bags?\n2. How many are left?"
    return "1. 3 * 4 = 12\n2. 12 - 2 = 10\nAnswer: 10"


@pytest.mark.parametrize("page", ["README.md", pytest.param("docs/dspy.md", marks=pytest.mark.model)])
def test_python_blocks_run(root: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = re.findall(r"```python\n(.*?)```", (root / page).read_text(encoding="utf-8"), re.DOTALL)
    assert found
    with OpenAIServer(reply) as server:
        real = dspy.LM.__init__

        def to_loopback(self, model, *args, **kwargs):
            """Only the address and the key change: the pages name public models."""
            if model.startswith("embedded/") or not isinstance(kwargs.get("engine", "auto"), str):
                real(self, model, *args, **kwargs)
                return
            kwargs.update(api_base=server.url, api_key="k")
            real(self, "openai/" + model.split("/")[-1], *args, **kwargs)

        monkeypatch.setattr(dspy.LM, "__init__", to_loopback)
        names: dict = {}
        for block in found:
            exec(compile(block, page, "exec"), names)
    assert server.requests


def test_python_blocks_of_the_page_on_prompts_run(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = root / "docs" / "prompts.md"
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(block, str(page), "exec"), names)
    told = capsys.readouterr().out
    assert "Split the question" in told
    assert "\n3 0\n" in told, "demonstrations for an untrained model, and for a student"
    assert "text='10 plums', rule='answer_is'" in told


def test_the_figures_of_the_page_on_prompts_are_the_recorded_ones(root: Path) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / "perf-real.json").read_text())
    page = (root / "docs" / "prompts.md").read_text(encoding="utf-8")
    for found, title in ((recorded, "now"), (recorded["before"], "before")):
        for name in ("gsm8k", "svamp"):
            for arm in found[name]["arms"]:
                low, high = arm["ci95"]
                tokens = sum(spent["output_tokens"] for spent in arm["tokens_a_question"].values())
                cells = [
                    title,
                    name,
                    arm["label"],
                    f"{100 * arm['accuracy']:.1f} %",
                    f"{100 * low:.0f} to {100 * high:.0f}",
                    str(arm["unreadable"]),
                    f"{100 * arm['plans_used']:.0f} %" if arm["name"] in ("own", "recorded", "people") else "–",
                    f"{tokens:.0f}",
                ]
                assert f"| {' | '.join(cells)} |" in page, cells
    for found in recorded["published"]["answers"].values():
        assert abs(found["final_line"] - found["program"]) <= 0.005
    for student, found in recorded["published"]["lists"].items():
        used, agreed = (
            [f"{100 * found[how]['used']:.0f} %", f"{found[how]['rouge_l']:.2f}", f"{found[how]['count_error']:.2f}"]
            for how in ("refused", "salvaged")
        )
        assert f"| {student} | {' | '.join(used)} | {' | '.join(agreed)} |" in page, student
    chat = json.loads((root / "benchmarks" / "results" / "perf-real-chat.json").read_text())
    arms = {arm["name"]: arm for arm in chat["gsm8k"]["arms"]}
    shown = [f"{100 * arms[name]['accuracy']:.1f} %" for name in ("cot", "own", "plain")]
    assert "chain of thought {}, two-stage with its own plans {}, asked plainly {}.".format(*shown) in page
    assert "the model writes 93\ntokens behind a plan and 179 without one" in page
    assert (arms["cot"]["unreadable"], arms["own"]["unreadable"], chat["questions"]) == (0, 0, 60)
    assert [round(arms[name]["tokens_a_question"]["solver"]["output_tokens"]) for name in ("own", "cot")] == [93, 179]
    # What was to be reached.
    for name in ("gsm8k", "svamp"):
        arms = {arm["name"]: arm for arm in recorded[name]["arms"]}
        asked = [arm for arm in arms.values() if arm["name"] != "plain"]
        assert all(arm["unreadable"] <= 0.03 * recorded["questions"] for arm in asked)
        assert arms["own"]["plans_used"] >= 0.85
        assert arms["direct"]["tokens_a_question"]["solver"]["output_tokens"] <= 20
        whole = recorded[name]["whole"]
        assert whole["questions"] == whole["same_as_chain_of_thought"]


def test_what_the_readme_says_of_an_untrained_model_was_recorded(root: Path) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / "perf-real.json").read_text())
    said = " ".join((root / "README.md").read_text(encoding="utf-8").split())
    used, direct, minus = [], [], []
    for name in ("gsm8k", "svamp"):
        arms = {arm["name"]: arm for arm in recorded[name]["arms"]}
        used.append(f"{100 * arms['own']['plans_used']:.0f}")
        direct.append(f"{arms['direct']['tokens_a_question']['solver']['output_tokens']:.0f}")
        [found] = [row for row in recorded[name]["differences"] if (row["a"], row["b"]) == ("own", "cot")]
        low, high = found["ci95"]
        minus.append((100 * found["difference"], 100 * low, 100 * high))
        asked = [arm["unreadable"] for key, arm in arms.items() if key != "plain"]
        assert max(asked) <= 1
    assert f"could be used in {used[0]} and {used[1]} % of the questions" in said
    assert f"the direct answer took {direct[0]} and {direct[1]} tokens" in said
    (one, low, high), (other, below, above) = minus
    assert f"was {one:+.1f} points ({low:+.1f} to {high:+.1f}) and {other:+.1f} ({below:+.1f} to {above:+.1f})" in said


def commands(root: Path) -> list[list[str]]:
    lines = [line for block in blocks(root, "bash") for line in block.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip() and not line.startswith("#")]


def test_divcon_commands_are_ones_the_program_takes(root: Path, tmp_path: Path) -> None:
    used = [command[1:] for command in commands(root) if command[0] == "divcon"]
    assert used
    helped = {}
    for name in {command[0] for command in used}:  # a process takes seconds, and a command stands on several pages
        shown = subprocess.run([str(DIVCON), name, "--help"], capture_output=True, text=True)
        assert shown.returncode == 0, name
        helped[name] = shown.stdout
    for command in used:
        name = command[0]
        for option in (word for word in command if word.startswith("--")):
            assert option in helped[name], (name, option)
        for word in command:
            if word.startswith("examples/"):
                assert (root / word).is_file()


def test_make_targets_exist(root: Path) -> None:
    targets = [command[1] for command in commands(root) if command[0] == "make"]
    assert {"demo", "test"} <= set(targets)
    makefile = (root / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_yaml_blocks_are_valid_pipelines(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from divcon import load_pipeline
    from divcon.config import load_experiment

    monkeypatch.setenv("OPENAI_API_KEY", "k")
    for number, block in enumerate(blocks(root, "yaml")):
        file = tmp_path / f"{number}.yaml"
        file.write_text(block)
        if "experiment:" in block:
            load_experiment(file)
        elif "task:" in block:
            load_pipeline(file)


def test_the_table_is_the_recorded_run(root: Path) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / "demo.json").read_text())
    readme = (root / "README.md").read_text(encoding="utf-8")
    for arm in recorded["arms"]:
        line = next(line for line in readme.splitlines() if line.startswith(f"| {arm['label']} |"))
        low, high = arm["ci95"]
        assert f"{100 * arm['accuracy']:.1f} %" in line
        assert f"{100 * low:.0f} to {100 * high:.0f}" in line
        assert f"{arm['right']} / {arm['wrong']} / {arm['failed']}" in line
        if arm["name"] not in ("direct", "cot"):
            rates = (f"{100 * arm[name]:.0f} %" for name in ("whole_rate", "salvaged_rate", "fell_back_rate"))
            assert f"| {' | '.join(rates)} |" in line
    said = " ".join(readme.split())
    for other, words in (("untuned", "the untuned student by"), ("sd-t", "SD-T by"), ("cot", "chain of thought by")):
        [found] = [row for row in recorded["differences"] if {row["a"], row["b"]} == {"sd-r", other}]
        # The row is the first minus the second.
        low, high = sorted((100 * found["ci95"][0], 100 * found["ci95"][1]))
        shown = (
            (100 * found["difference"], low, high)
            if found["a"] == "sd-r"
            else (-100 * found["difference"], -high, -low)
        )
        assert "{} {:+.1f} points ({:+.1f} to {:+.1f})".format(words, *shown) in said


def test_the_gsm8k_table_is_the_recorded_run(root: Path) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / "gsm8k.json").read_text())
    readme = (root / "README.md").read_text(encoding="utf-8").partition("## On real questions")[2]
    labels = {
        "untuned": "Two-stage, untuned student",
        "sd-t": "Two-stage, SD-T",
        "direct": "Direct",
        "cot": "Chain of thought",
        "teacher": "Two-stage, people's subquestions",
    }
    for arm in recorded["arms"]:
        line = next(line for line in readme.splitlines() if line.startswith(f"| {labels[arm['name']]} |"))
        assert f"| {100 * arm['accuracy']:.1f} % | {100 * arm['ci95'][0]:.0f} to {100 * arm['ci95'][1]:.0f} |" in line
        if arm["name"] in ("untuned", "sd-t"):
            assert agreement_of(arm) in line
    refused = json.loads((root / "benchmarks" / "results" / "gsm8k-refused.json").read_text())
    [arm] = [arm for arm in refused["arms"] if arm["name"] == "sd-t"]
    assert not refused["program"]["salvage"]
    line = next(
        line for line in readme.splitlines() if line.startswith("| Two-stage, SD-T, `program.salvage: false` |")
    )
    assert f"{agreement_of(arm)} {100 * arm['accuracy']:.1f} % |" in line


def agreement_of(arm: dict) -> str:
    agreed, rates = arm["agreement"], [f"{100 * arm[f'{name}_rate']:.0f} %" for name in ("salvaged", "fell_back")]
    return f"| {agreed['count_error']:.2f} | {agreed['rouge_l']:.2f} | {' | '.join(rates)} |"


RECORDED = ("main", "depth", "transfer", "dynamic", "curve", "solvers", "multitask", "cap")


@pytest.mark.parametrize("kind", RECORDED)
def test_the_tables_of_the_experiments_are_the_recorded_ones(root: Path, kind: str) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / f"{kind}.json").read_text())
    assert recorded["experiment"] == kind
    page = (root / "docs" / "experiments.md").read_text(encoding="utf-8")
    factors = ("task", "trained_on", "solver", "questions", "cap", "steps")
    for row in recorded["rows"]:
        spent = row["bill"]["by_role"].values()
        tokens = sum(part["input_tokens"] + part["output_tokens"] for part in spent)
        shown = [str(row.get(name, "–")) for name in factors if any(name in other for other in recorded["rows"])]
        low, high = row["ci95"]
        cells = [*shown, row["label"], f"{100 * row['accuracy']:.1f} %", f"{100 * low:.0f} to {100 * high:.0f}"]
        assert f"| {' | '.join(cells)} | {tokens:,.0f} |" in page, row["label"]
        assert row["failed"] == 0
    html = (root / "benchmarks" / "results" / f"{kind}.html").read_text(encoding="utf-8")
    assert recorded["question"] in html


def test_the_claims_are_what_main_found(root: Path) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / "main.json").read_text())
    readme = (root / "README.md").read_text(encoding="utf-8").partition("## Which half")[2]
    found = {(row["a"], row["b"], row["task"]): row for row in recorded["comparisons"]}
    for task in recorded["tasks"]:
        for pair in (("sd-r", "teacher"), ("sd-r", "sd-t"), ("se-a", "teacher")):
            row = found[(*pair, task)]
            low, high = row["ci95"]
            assert f"{100 * abs(row['difference']):.1f}" in readme
            assert f"{100 * low:+.1f} to {100 * high:+.1f}" in readme, (pair, task)
        saved = recorded["costs"][task]["against_teacher"]["sd-r"]["saves"]
        assert re.search(rf"\b{100 * saved:.0f}\b[^.]* % fewer\s+tokens", readme)


def test_the_page_of_tasks_names_them_all_with_their_licences(root: Path) -> None:
    page = (root / "docs" / "tasks.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    shown = {name: row for row in rows for name in re.findall(r"`([^`]+)`", row[0])}
    assert set(TASKS) <= set(shown)
    for name, task in PUBLIC.items():
        assert (shown[name][3], shown[name][4]) == (task.licence, f"`{task.hub[0]}`")
    for kind in KINDS:
        assert f"`{kind}`" in page
    for option in re.findall(r"`task\.(\w+)", page):
        assert option in Task.model_fields


def test_links_inside_the_repository_lead_somewhere(root: Path) -> None:
    for page in (root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), target


def test_the_figures_of_the_vllm_page_are_the_recorded_ones(root: Path) -> None:
    results = root / "benchmarks" / "results"
    client, served, prefix, guided = (
        json.loads((results / f"{name}.json").read_text())
        for name in ("perf-client", "perf-served", "perf-prefix", "guided")
    )
    page = (root / "docs" / "vllm.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (.+?) \| ([^|]+?) \|$", page, re.MULTILINE))
    measured = {
        "the two-stage program on vLLM": f"{served['program_against_raw_http']['share']:.3f}",
        "how busy an evaluation keeps": f"{100 * client['kinds']['evaluation']['busy']:.1f} %",
        "CPU time a call added": f"{client['added_ms_a_call']['evaluation']:.2f} ms",
        "the same without it": f"{client['added_ms_a_call']['program']:.2f} ms",
        "LiteLLM's CPU time": f"{client['litellm_over_native']:.1f}",
        "merged adapter over base": f"{served['over_base']['merged']:.2f}",
        "unmerged adapter over base": f"{served['over_base']['lora']:.2f}",
        "embedded engine over vLLM": f"{served['embedded_against_vllm']['ratio']:.2f}",
        "greedy decompositions": served["embedded_against_vllm"]["equal_greedy_replies"],
    }
    for begins, figure in measured.items():
        assert [value for row, value in rows.items() if row.startswith(begins)] == [figure], begins
    for order, line in prefix["orders"].items():
        share, time = f"{100 * line['cached_share']:.0f} %", f"{prefix['time_over_question_first'][order]:.2f}"
        assert f"| {share} | {time} |" in page, order
    for arm in guided["untuned"].values():
        low, high = arm["ci95"]
        said = f"{100 * arm['accuracy']:.1f} % ({100 * low:.0f} to {100 * high:.0f})"
        assert said in " ".join(page.split())
    # What was to be reached: the demo's student answers as in this process, and the program doesn't hold vLLM up.
    assert int(served["embedded_against_vllm"]["equal_greedy_replies"].split()[0]) >= 90
    assert served["program_against_raw_http"]["share"] >= 0.9
    assert client["kinds"]["evaluation"]["busy"] >= 0.9
    assert client["added_ms_a_call"]["evaluation"] <= 2


def test_what_is_done_on_a_cpu_is_what_was_measured_to_be_fast(root: Path) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / "perf-cpu.json").read_text())
    for work in ("train", "read"):
        assert recorded["precision"][work]["bfloat16_over_float32"] < 1
        assert recorded["precision_without_instructions"][work]["bfloat16_over_float32"] > 1
    steps = {kind: found["train"]["over_one_thread_alone"] for kind, found in recorded["waiting"].items()}
    briefly, spinning, asleep = (
        {where: steps[f"{where}, 2 threads, {how}"] for where in ("alone", "beside a busy core")}
        for how in ("briefly", "spinning", "asleep")
    )
    assert briefly["alone"] < asleep["alone"]
    assert briefly["beside a busy core"] < spinning["beside a busy core"]


def test_the_page_on_scale_says_what_was_measured(root: Path) -> None:
    found = json.loads((root / "benchmarks" / "results" / "perf-driver.json").read_text())
    page = " ".join((root / "docs" / "scale.md").read_text(encoding="utf-8").split())
    rate = found["replies_a_second"]
    assert found["rows"] == 1_000_000
    assert f"a store that holds {found['rows']:,} replies ({found['gigabytes']} GB)" in page
    assert f"takes {rate['threads']:,} more a second" in page
    assert f"from the driver's own threads and {rate['workers']:,} from {found['workers']} Ray workers" in page
    assert f"plain SQLite, one synced row after the other, took {rate['plain_sqlite']:,}" in page
    assert f"what was paid is summed in {found['seconds_to_sum_what_was_paid']} s" in page
