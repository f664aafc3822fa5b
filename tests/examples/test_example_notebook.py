"""The notebook of examples/ is run in a real kernel, with its models behind a server on loopback."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from support.openai_server import OpenAIServer, user_text

NAME = "planner_and_solver.ipynb"


def reply(body: dict[str, Any]) -> str:
    if "Split the question" in body["messages"][0]["content"]:
        return "1. How many plums are in the bags?\n2. How many are left?"
    bags = int(user_text(body).split("Ada has ")[-1].split()[0])
    return f"1. {bags} * 4 = {4 * bags}\n2. {4 * bags} - 2 = {4 * bags - 2}\nAnswer: {4 * bags - 2}"


def test_it_is_kept_without_outputs(root: Path) -> None:
    notebook = nbformat.read(root / "examples" / NAME, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
    assert (root / "examples" / NAME).stat().st_size < 10_000


def test_it_runs_and_shows_programs_predictions_and_comparisons(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read(root / "examples" / NAME, as_version=4)
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    with OpenAIServer(reply) as server:
        monkeypatch.setenv("API_BASE", server.url)
        NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
        assert server.models().count("gpt-4.1-nano") == 5  # one question, and four of the comparison
    shown = [
        "".join(str(out.get("data", {}).get("text/html") or out.get("data", {}).get("text/plain") or out.get("text")))
        for cell in notebook.cells
        for out in cell.get("outputs", [])
    ]
    program, prediction, missing, compared = shown
    assert "decomposer: openai/gpt-4.1-nano" in program
    assert "<table" in prediction
    assert "How many are left?" in prediction
    assert "The solver has no endpoint." in missing
    assert "Paired comparison" in compared
