"""`divcon report`: the report of a run folder at any time, of two runs side by side, and live."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from divcon._arguments import AsJSON, path_of
from divcon._terminal import Terminal, echo_json, err, guarded, out
from divcon.signatures import DivconError

_FOLDER = Annotated[
    Path, typer.Argument(metavar="FOLDER", parser=path_of, help="The folder of a run or of an experiment.")
]
_OTHER = Annotated[
    Path | None, typer.Argument(metavar="[FOLDER_B]", parser=path_of, help="Another run folder, to compare it with.")
]
_OUT = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", parser=path_of, help="The file to write; by default FOLDER/report.html, for an "
        "experiment FOLDER/KIND.html, and for two runs FOLDER/report-beside-B.html.",
    ),
]  # fmt: skip
_HELD = ("arms", "differences", "rows", "comparisons", "costs", "paid")  # what --json tells of the results
_EVERY = 5  # seconds between two looks at a run that goes on


def report(
    folder: _FOLDER,
    other: _OTHER = None,
    file: _OUT = None,
    as_json: AsJSON = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Serve a page on 127.0.0.1 that shows the run while it goes on.")
    ] = False,
    port: Annotated[int, typer.Option(help="The port of --watch; a free one by default.")] = 0,
) -> None:
    """Write the report of a run or an experiment, finished or not, or compare two runs. No model is called.

    Example: divcon report runs/demo --watch
    """
    if watch:
        if other is not None or file is not None or as_json:
            raise typer.BadParameter("--watch takes one folder alone.")
        guarded(lambda: None, lambda: _watch(folder, port))
        return
    found, said = guarded(lambda: None, lambda: _report(folder, other, file))
    if as_json:
        echo_json(found)
    else:
        for line in [*said, found["report"]]:
            out.print(line, soft_wrap=True)


def _report(folder: Path, other: Path | None, file: Path | None) -> tuple[dict[str, Any], list[str]]:
    """Write a report. Returns what it holds, and what to tell about it."""
    from divcon.distill import write_whole

    if other is None:
        with _looking(folder) as run:
            found = run.so_far()
            results = found.results()
            target = file or found.report_file
            write_whole(target, found.page(results).render())
            there = f"The run isn't finished: {found.answered:,} of {found.asked:,} answers are there."
            stations = [
                {"station": one.station, "state": one.state, "done": one.done, "total": one.total}
                for one in found.stations
            ]
            held = {
                "report": str(target),
                "finished": found.finished,
                "answered": found.answered,
                "asked": found.asked,
                "stations": stations,
                **{key: results[key] for key in _HELD if key in results},
            }
            return held, [] if found.finished else [there]
    from divcon.benchmarks.report import comparison, comparison_page
    from divcon.config import EXPERIMENT_FILE

    for one_of_two in (folder, other):
        if (one_of_two / EXPERIMENT_FILE).is_file():
            raise DivconError(
                f"{one_of_two} is the folder of an experiment, and two runs are compared.",
                f"Give the folders of two runs. 'divcon report {one_of_two}' writes the report of the experiment.",
            )
    with _looking(folder) as one, _looking(other) as two:
        names = (folder.name, other.name) if folder.name != other.name else (str(folder), str(other))
        a, b = (_answers(run, name) for run, name in zip((one, two), names, strict=True))
        compared = comparison(a, b, one.pipeline.evaluate.resamples)
        page = comparison_page(a, b, compared)
        target = file or folder / f"report-beside-{other.name}.html"
        write_whole(target, page.render())
        card = page.cards[0]
        return {"report": str(target), **compared}, [f"{card['headline']}.", *card["sentences"]]


def _answers(run: Any, name: str) -> Any:
    """The answers of one of two runs that are compared."""
    from divcon.benchmarks import calls_of
    from divcon.benchmarks.report import RunAnswers

    found = run.so_far()
    calls = calls_of(run.store, found.records)
    return RunAnswers(name, found.results(compare=False), found.records, run.task.test, calls)


def _watch(folder: Path, port: int) -> None:
    from divcon._live import HOST, LivePage, live_server

    with _looking(folder) as run:

        def render() -> str:
            found = _opened(folder, run.store).so_far()
            going = None if found.finished else _EVERY
            return str(found.page(found.results(compare=found.finished), calls=found.finished, refresh=going).render())

        page = LivePage(render, _EVERY - 1)
        page.html()  # an error is told before there is a server
        try:
            server = live_server(page, port)
        except OSError as error:
            raise DivconError(f"Port {port} can't be used: {error.strerror}.", "Choose another with --port.") from error
        with server, contextlib.suppress(KeyboardInterrupt):
            out.print(f"The page is at http://{HOST}:{server.server_address[1]}/ until Ctrl-C.", soft_wrap=True)
            server.serve_forever(poll_interval=0.2)


@contextlib.contextmanager
def _looking(folder: Path) -> Iterator[Any]:
    """A run or an experiment that is looked at: no model is called, and another process may work on it.

    Raises:
        DivconError: It is no run folder.
    """
    from divcon.distill import RunStore

    if not (folder / "run.sqlite").is_file():
        raise DivconError(f"{folder} is no run folder: it has no run.sqlite.", "Give the folder of 'divcon run'.")
    with contextlib.closing(RunStore(folder)) as store:
        yield _opened(folder, store)


def _opened(folder: Path, store: Any) -> Any:
    """The run of a folder, or the experiment that was last started in it."""
    from divcon.config import EXPERIMENT_FILE, load_saved_experiment, load_saved_pipeline
    from divcon.experiments import ExperimentRun
    from divcon.pipeline import Run

    if (folder / EXPERIMENT_FILE).is_file() or (folder / "cells").is_dir():
        return ExperimentRun(load_saved_experiment(folder), folder, Terminal(err), store)
    return Run(load_saved_pipeline(folder), folder, Terminal(err), store)
