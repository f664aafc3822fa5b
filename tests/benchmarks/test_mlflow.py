from pathlib import Path

import pytest

from divcon.benchmarks import TrackingError, log_to_mlflow

RESULTS = {
    "teacher": {"model": "openai/t"}, "solver": "openai/s", "student_base": "b",
    "rows": [
        {"task": "a", "name": "sd-r/dag", "accuracy": 0.5, "ci95": [0.4, 0.6], "failed": 1, "cut_off": 0,
         "bill": {"cost": 0.25}},
        {"task": "b", "name": "cot", "accuracy": None, "ci95": None, "failed": 9, "cut_off": 0, "bill": None},
    ],
}  # fmt: skip


def test_figures_settings_and_files_are_logged(tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow isn't installed; it is an extra")
    report = tmp_path / "main.html"
    report.write_text("x")
    uri = f"sqlite:///{tmp_path / 'm.db'}" if _has_sql() else (tmp_path / "m").as_uri()
    run = log_to_mlflow(uri, "divcon", "here/main", RESULTS, [report])
    client = mlflow.MlflowClient(tracking_uri=uri)
    found = client.get_run(run)
    assert found.data.metrics["a.sd-r-dag.accuracy"] == 0.5
    assert found.data.metrics["a.sd-r-dag.cost"] == 0.25
    assert found.data.metrics["a.sd-r-dag.cost_per_1000"] == 250
    assert {key: value for key, value in found.data.metrics.items() if key.startswith("b.")} == {
        "b.cot.failed": 9,
        "b.cot.cut_off": 0,
    }
    assert found.data.params["solver"] == "openai/s"
    assert [file.path for file in client.list_artifacts(run)] == ["main.html"]
    assert found.info.status == "FINISHED"


def _has_sql() -> bool:
    try:
        import sqlalchemy  # noqa: F401
    except ImportError:
        return False
    return True


def test_a_server_that_isnt_there_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow", reason="MLflow isn't installed; it is an extra")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(TrackingError, match="can't be used"):
        log_to_mlflow("http://127.0.0.1:9", "divcon", "x", RESULTS, [])
