"""Log the figures of a run or an experiment to an MLflow server or folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from divcon.benchmarks._tables import FACTORS
from divcon.signatures import DivconError, learn_addresses, masked


class TrackingError(DivconError):
    """MLflow isn't installed, or its server can't be reached."""


def log_to_mlflow(uri: str, experiment: str, name: str, results: Mapping[str, Any], artifacts: Sequence[Path]) -> str:
    """Log the figures, settings and files of a run or an experiment.

    A metric's name consists of the values that the experiment varies and the arm, such as
    `word-problems.sd-r.accuracy`. Where too many answers failed, their number is logged and no figure.

    Args:
        uri: MLflow's tracking address: a server's, or `file:` and a folder.
        experiment: The MLflow experiment to log into; made if it isn't there.
        name: The name of the MLflow run.
        results: The content of the JSON file of results.
        artifacts: Files to log with the run.

    Returns:
        The id of the MLflow run.

    Raises:
        TrackingError: MLflow isn't installed, or the server can't be used.
    """
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError as error:
        raise TrackingError("Logging to MLflow needs its package.", "pip install 'divcon[mlflow]'") from error
    learn_addresses(uri)
    metrics: dict[str, float] = {}
    for line in results.get("rows") or results["arms"]:
        where = [str(line[factor]) for factor in FACTORS if factor in line]
        key = ".".join([*where, line["name"].replace("/", "-")])
        metrics |= {f"{key}.failed": line["failed"], f"{key}.cut_off": line["cut_off"]}
        if line["accuracy"] is None:
            continue
        metrics[f"{key}.accuracy"] = line["accuracy"]
        metrics |= {f"{key}.ci95_low": line["ci95"][0], f"{key}.ci95_high": line["ci95"][1]}
        if "f1" in line:
            metrics[f"{key}.f1"] = line["f1"]
        if line["bill"] and line["bill"]["cost"] is not None:
            metrics |= {f"{key}.cost": line["bill"]["cost"], f"{key}.cost_per_1000": 1000 * line["bill"]["cost"]}
    given = {
        "teacher": results["teacher"]["model"] if results["teacher"] else "none",
        "solver": results["solver"] or "none",
        "student_base": results["student_base"] or "none",
    }
    try:
        client = mlflow.MlflowClient(tracking_uri=uri)
        found = client.get_experiment_by_name(experiment)
        identity = found.experiment_id if found else client.create_experiment(experiment)
        run = client.create_run(identity, run_name=masked(name)).info.run_id
        for key, value in given.items():
            client.log_param(run, key, masked(value))
        for key, number in metrics.items():
            client.log_metric(run, masked(key), float(number))
        for file in artifacts:
            client.log_artifact(run, str(file))
        client.set_terminated(run)
    except (MlflowException, OSError) as error:
        raise TrackingError(
            f"MLflow at {uri} can't be used: {error}.", "Correct tracking.mlflow; the results are in the folder."
        ) from error
    return str(run)
