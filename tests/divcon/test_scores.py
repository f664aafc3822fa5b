"""No score over survivors: in no output of a run or an experiment is there a figure where too many calls failed."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.openai_server import OpenAIServer, Reply, user_text

from divcon.schemas import Results

DIVCON = Path(sys.executable).with_name("divcon")
RUN = """\
task: {{name: word-problems, train: 4, test: 12}}
roles:
  teacher: {{model: openai/teacher, api_base: '{url}', retries: 0, price: {{input: 1, output: 2}}}}
  solver: {{model: openai/solver, api_base: '{url}', retries: 0, price: {{input: 1, output: 2}}}}
evaluate: {{arms: [direct, cot, teacher], resamples: 200, concurrency: 4}}
"""
EXPERIMENT = """\
experiment:
  kind: depth
  tasks: {{a: {{name: word-problems, train: 4, test: 12}}}}
  arms: [direct, cot, references]
roles:
  teacher: {{model: scripted/references}}
  solver: {{model: openai/solver, api_base: '{url}', retries: 0, price: {{input: 1, output: 2}}}}
evaluate: {{resamples: 200, concurrency: 4}}
"""


class Failing:
    """A server's replies, of which the first so many direct answers are empty: calls that failed."""

    def __init__(self, fails: int) -> None:
        self.fails = fails
        self.asked: dict[str, int] = {}

    def __call__(self, body: dict[str, Any]) -> Reply:
        told, text = body["messages"][0]["content"], user_text(body)
        if "Split the question" in told:
            return "1. What is the first amount?\n2. What follows from that?"
        if "Write the answer alone" not in told:
            return "1. x\n2. y\nFinal answer: 7"
        return "" if self.asked.setdefault(text, len(self.asked)) < self.fails else "7"


def divcon(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([str(DIVCON), *arguments], cwd=folder, capture_output=True, text=True)


@pytest.fixture(autouse=True)
def _keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")


def cells_of(row: str) -> list[str]:
    """The cells of a printed row."""
    return re.split(r"\s{2,}", row.strip())


def test_a_run_shows_no_figure_of_an_arm_whose_calls_failed(tmp_path: Path) -> None:
    with OpenAIServer(Failing(10)) as server:
        (tmp_path / "line.yaml").write_text(RUN.format(url=server.url))
        done = divcon(tmp_path, "evaluate", "line.yaml", "--run", "run")
    assert done.returncode == 1
    assert "10 answers failed and are in no accuracy" in done.stderr
    scores, plans = (cells_of(line) for line in done.stdout.splitlines() if line.startswith(" Direct "))
    assert scores[1:3] == ["– (10 of 12 failed)", "–"]
    assert scores[-1] == plans[-1] == plans[-2] == "–"  # seconds and tokens of two questions
    assert "evaluate direct: no score: 10 of 12 failed" in done.stdout
    assert "Direct has no score: 10 of 12 answers failed; the first: UnusableReplyError" in done.stdout
    assert "ettled: " not in done.stdout
    lines = done.stdout.partition("agreement of the subquestions")[2].splitlines()
    [row] = [cells_of(line) for line in lines if line.startswith(" Two-stage, teacher")]
    assert row[1:4] == ["references", "12", "100 %"]

    results = json.loads((tmp_path / "run" / "results.json").read_text())
    Results.model_validate(results)
    direct, *others = results["arms"]
    assert (direct["right"] + direct["wrong"], direct["failed"]) == (2, 10)
    figures = ("accuracy", "ci95", "whole_rate", "salvaged_rate", "fell_back_rate", "bill")
    assert {name: direct[name] for name in figures} == dict.fromkeys(figures)
    assert all(arm["accuracy"] is not None and arm["withheld"] is None for arm in others)
    assert [{row["a"], row["b"]} for row in results["differences"]] == [{"cot", "teacher"}]
    costs = results["costs"]
    assert costs["evidence"] is None
    assert (costs["choice"], costs["pareto_front"]) == (None, [])
    assert costs["unscored"] == ["direct"]

    with (tmp_path / "run" / "results.csv").open() as stream:
        line = next(csv.DictReader(stream))
    assert {line[name] for name in ("accuracy", "ci95_low", "ci95_high", "fell_back_rate")} == {""}
    assert (line["failed"], line["withheld"]) == ("10", direct["withheld"])

    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "– (10 of 12 failed)" in html and "solver alone, no steps (direct) has no score" in html
    assert "ettled: " not in html and "Accuracy and cost" not in html
    cells = [" ".join(re.sub("<[^>]*>", "|", row).replace("|", " ").split()) for row in html.split("<tr>")]
    assert sum("references 12 " in cell for cell in cells) == 1


def test_the_teachers_plans_arent_compared_with_themselves(tmp_path: Path) -> None:
    with OpenAIServer(Failing(0)) as server:
        (tmp_path / "line.yaml").write_text(RUN.format(url=server.url))
        arms = "evaluate.arms=[references, teacher, teacher/dag]"
        done = divcon(tmp_path, "evaluate", "line.yaml", "--run", "run", "--set", arms)
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads((tmp_path / "run" / "results.json").read_text())["arms"]}
    assert rows["references"]["agreement_with_teacher"]["n"] == 12
    assert all(rows[name].get("agreement_with_teacher") is None for name in ("teacher", "teacher/dag"))
    assert all(rows[name]["agreement"]["n"] == 12 for name in ("teacher", "teacher/dag"))


def test_below_the_limit_every_figure_carries_the_number_of_failed_answers(tmp_path: Path) -> None:
    with OpenAIServer(Failing(1)) as server:
        (tmp_path / "line.yaml").write_text(RUN.format(url=server.url))
        done = divcon(tmp_path, "evaluate", "line.yaml", "--run", "run", "--set", "evaluate.max_failed=0.1")
    assert done.returncode == 1
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    direct = results["arms"][0]
    share = f"{100 * direct['right'] / 11:.1f} % (1 failed)"
    assert (direct["accuracy"], direct["failed"]) == (direct["right"] / 11, 1)
    assert [(row["n"], row["left_out"]) for row in results["differences"]] == [(11, 1), (11, 1), (12, 0)]
    assert share in done.stdout and "of 11 right, 1 failed" in done.stdout
    html = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert (
        f"<bdi>{share}</bdi>" in html
        and "solver alone, no steps (direct), 1 failed" in html
        and "11 (1 left out)" in html
    )
    with (tmp_path / "run" / "results.csv").open() as stream:
        line = next(csv.DictReader(stream))
    assert (line["failed"], line["withheld"]) == ("1", "")


def test_an_experiment_shows_no_figure_of_a_row_whose_calls_failed_and_counts_each_failure_once(
    tmp_path: Path,
) -> None:
    with OpenAIServer(Failing(10)) as server:
        (tmp_path / "depth.yaml").write_text(EXPERIMENT.format(url=server.url))
        done = divcon(tmp_path, "experiment", "depth.yaml", "--run", "x")
    assert done.returncode == 1
    assert "10 answers failed and are in no accuracy" in done.stderr
    assert "– (10 of 12 failed)" in done.stdout and "ettled: " not in done.stdout
    results = json.loads((tmp_path / "x" / "depth.json").read_text())
    rows = [row for row in results["rows"] if row["name"] == "direct"]
    assert len(rows) > 1
    for row in rows:
        assert (row["accuracy"] is None) == (row["failed"] > 0)
        assert row["right"] + row["wrong"] + row["failed"] == row["questions_tested"]
    compared = [row for row in results["comparisons"] if "steps" not in row]
    assert not [row for row in compared if "direct" in (row["a"], row["b"])]
    assert results["costs"]["a"]["choice"] is None
    with (tmp_path / "x" / "depth.csv").open() as stream:
        whole = next(row for row in csv.DictReader(stream) if row["name"] == "direct" and not row["steps"])
    assert (whole["accuracy"], whole["failed"]) == ("", "10")
    html = (tmp_path / "x" / "depth.html").read_text(encoding="utf-8")
    assert "– (10 of 12 failed)" in html and "ettled: " not in html
