"""`results.json` is what its schema says."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError
from support.openai_server import OpenAIServer, user_text

from divcon import Run, load_pipeline
from divcon.schemas import SCHEMAS, Results

FILE = """\
task: {{name: word-problems, train: 4, test: 4}}
roles:
  teacher: {{model: openai/teacher, api_base: '{url}', price: {{input: 1, output: 2}}}}
  solver: {{model: openai/solver, api_base: '{url}', price: {{input: 1, output: 2}}}}
evaluate: {{arms: [direct, cot, teacher, references], resamples: 100}}
"""


def answer(body: dict[str, Any]) -> str:
    if "Split the question" in body["messages"][0]["content"]:
        return "1. What is the first amount?\n2. What follows from that?"
    return f"1. x\n2. y\nAnswer: {len(user_text(body)) % 3}"


def errors(results: Any) -> list[Any]:
    return list(Draft202012Validator(SCHEMAS["results"]()).iter_errors(results))


def test_a_run_writes_what_the_schema_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with OpenAIServer(answer) as server:
        file = tmp_path / "line.yaml"
        file.write_text(FILE.format(url=server.url))
        run = Run(load_pipeline(file), tmp_path / "run")
        run.check()
        run.evaluate()
        run.close()
    written = json.loads((tmp_path / "run" / "results.json").read_text())
    assert errors(written) == []
    assert [line.name for line in Results.model_validate(written).arms] == ["direct", "cot", "teacher", "references"]
    written["arms"][0]["luck"] = 0.5
    assert [error.message for error in errors(written)] == [
        "Additional properties are not allowed ('luck' was unexpected)"
    ]
    with pytest.raises(ValidationError, match="luck"):
        Results.model_validate(written)


@pytest.mark.parametrize("name", ["demo", "gsm8k", "gsm8k-refused"])
def test_recorded_runs_of_before_the_version_lack_it_and_what_came_with_it_and_nothing_else(
    root: Path, name: str
) -> None:
    recorded = json.loads((root / "benchmarks" / "results" / f"{name}.json").read_text())
    lacking = {error.message for error in errors(recorded)}
    new = ("schema_version", "splits", "choosable", "student", "withheld", "cut_off", "cut_off_calls", "left_out")
    new += ("unscored",)
    # The teacher's `kind` has taken the place of `scripted`.
    replaced = f"{recorded['teacher']} is not valid under any of the given schemas"
    assert lacking == {replaced, *(f"'{key}' is a required property" for key in new)}
