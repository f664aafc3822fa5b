"""The commands that work on a run: one for each station, `run`, `experiment` and `status`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from divcon._arguments import AsJSON, ExperimentFile, Overrides, PipelineFile, RunFolder, Wait
from divcon._opening import leaving, looking, opened
from divcon._tables import print_estimate, print_results, print_rows, print_teacher
from divcon._terminal import Terminal, console_of, echo_json, guarded, line, log_into, out

_STATES = {"done": "green", "partly": "yellow", "again": "yellow", "to do": "default"}


def _do(
    name: str,
    does: Callable[[Any], Any],
    file: Path,
    run: Path | None,
    overrides: list[str] | None,
    wait: bool,
    as_json: bool,
) -> None:
    """Do a station, or all of them, and print the results where there are any."""
    made: list[Any] = []
    prints_results = name in ("run", "evaluate")

    def shown(results: dict[str, Any]) -> None:
        if as_json:
            echo_json(results)
        else:
            print_results(results, made[0].folder)

    def work() -> Any:
        made.append(opened(file, run, overrides, console_of(as_json)))
        with leaving(made[0]):
            made[0].hold(wait)
            log_into(made[0].folder)
            if name != "run":
                made[0].check()
            results = does(made[0])
            if as_json and not prints_results:
                return [_status_of(one) for one in made[0].status() if one.station.partition(" ")[0] == name]
            return results

    def shown_work() -> Any:
        from divcon.pipeline import Incomplete

        try:
            return work()
        except Incomplete as error:
            if error.results is not None:
                shown(error.results)
            raise

    results = guarded(lambda: made[0].pipeline, shown_work)
    if prints_results:
        shown(results)
    elif as_json:
        echo_json(results)


def _station(name: str, text: str, does: Callable[[Any], Any]) -> Callable[..., None]:
    def command(
        file: PipelineFile,
        run: RunFolder = None,
        overrides: Overrides = None,
        wait: Wait = False,
        as_json: AsJSON = False,
    ) -> None:
        _do(name, does, file, run, overrides, wait, as_json)

    command.__doc__ = f"{text}\n\nExample: divcon {name} pipeline.yaml"
    return command


STATIONS: dict[str, Callable[..., None]] = {
    name: _station(name, text, does)
    for name, text, does in (
        (
            "compile",
            "Optimize the teacher's decomposition prompt with a DSPy teleprompter.",
            lambda run: run.compile(),
        ),
        ("collect", "Ask the teacher for decompositions of the training questions.", lambda run: run.collect()),
        ("screen", "Keep the decompositions worth learning from, and count what is lost.", lambda run: run.screen()),
        ("export", "Write the training rows of every student.", lambda run: run.export()),
        ("train", "Train a LoRA adapter on every student's rows.", lambda run: run.train()),
        ("evaluate", "Measure every arm on the held-out questions.", lambda run: run.evaluate()),
    )
}


def run_all(
    file: PipelineFile,
    run: RunFolder = None,
    overrides: Overrides = None,
    wait: Wait = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Tell what the missing stations will take, and ask nothing.")
    ] = False,
    as_json: AsJSON = False,
) -> None:
    """Run all stations in order; do only what is missing. After Ctrl-C, the same command goes on.

    Example: divcon run pipeline.yaml --dry-run
    """
    if not dry:
        _do("run", lambda made: made.run(), file, run, overrides, wait, as_json)
        return

    def work() -> Any:
        with looking(file, run, overrides) as made:
            return made.estimate(), made.context.teacher

    stations, teacher = guarded(lambda: None, work)
    if as_json:
        from divcon.pipeline import total_of

        total = asdict(total_of(stations)) if stations else None
        echo_json({"stations": [asdict(one) for one in stations], "total": total, "teacher": teacher.model_dump()})
        return
    print_estimate(stations)
    print_teacher(teacher.model_dump())


def status(file: PipelineFile, run: RunFolder = None, overrides: Overrides = None, as_json: AsJSON = False) -> None:
    """Show which stations are done, and what has changed where a station would run again. No model is called.

    Example: divcon status pipeline.yaml
    """

    def work() -> Any:
        with looking(file, run, overrides) as made:
            return made.status()

    found = guarded(lambda: None, work)
    if as_json:
        echo_json([_status_of(one) for one in found])
        return
    for one in found:
        state = (f"{one.state:7}", _STATES[one.state])
        out.print(line(state, f" {one.station:20} {one.note}"), soft_wrap=True)


def _status_of(one: Any) -> dict[str, Any]:
    return {**asdict(one), "note": one.note}


def experiment(
    file: ExperimentFile,
    run: RunFolder = None,
    overrides: Overrides = None,
    wait: Wait = False,
    as_json: AsJSON = False,
) -> None:
    """Run one of the experiments: main, transfer, solvers, dynamic, multitask, depth, curve, cap.

    Example: divcon experiment transfer
    """
    from divcon.experiments import experiment_file

    file = guarded(lambda: None, lambda: experiment_file(file))
    folder = run or Path("runs") / file.stem
    made: list[Any] = []

    def shown(results: dict[str, Any]) -> None:
        if as_json:
            echo_json(results)
        else:
            print_rows(results, folder)

    def work() -> Any:
        from divcon.config import load_experiment
        from divcon.experiments import ExperimentRun
        from divcon.pipeline import Incomplete

        reporter = Terminal(console_of(as_json))
        made.append(ExperimentRun(load_experiment(file, overrides or []), folder, reporter))
        with leaving(made[0]):
            made[0].hold(wait)
            log_into(folder)
            try:
                return made[0].run()
            except Incomplete as error:
                if error.results is not None:
                    shown(error.results)
                raise

    shown(guarded(lambda: made[0].experiment, work))
