"""The command line: its commands in the order of use."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

# These are set before dspy and transformers are imported. They stop LiteLLM from downloading a price list, Hugging Face
# from sending telemetry, and tokenizers from warning about the forks of a data loader.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars of libraries beside divcon's own

import typer
from rich.table import Column, Table

from divcon._arguments import AsJSON, GivenRun, Interpreter, Overrides, PipelineFile, RunFolder, Student
from divcon._ask import ask
from divcon._init import init
from divcon._inspect import inspect
from divcon._opening import leaving
from divcon._precheck import precheck
from divcon._push import push
from divcon._report import report
from divcon._run import STATIONS, experiment, run_all, status
from divcon._store import app as store_app
from divcon._terminal import Terminal, all_shown, console_of, echo, echo_json, err, guarded, line, log_into, out
from divcon._tools import base, grade, schema

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def _version(wanted: bool) -> None:
    if wanted:
        import divcon

        typer.echo(f"divcon {divcon.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Distil the planning half of a two-stage DSPy program into a small local model.

    Begin with: divcon init questions.csv, then divcon precheck pipeline.yaml
    """


_LEVELS = {"ok": "green", "warning": "yellow", "failure": "red"}


def doctor(file: PipelineFile, run: RunFolder = None, overrides: Overrides = None, as_json: AsJSON = False) -> None:
    """Check everything that a pipeline or experiment file needs, a line per check. No call is paid for.

    Example: divcon doctor pipeline.yaml
    """
    found = []

    def work() -> None:
        from divcon._doctor import diagnose
        from divcon.config import declared_pipelines

        folder = run or Path("runs") / file.stem
        for finding in (
            one for pipeline in declared_pipelines(file, overrides or []) for one in diagnose(pipeline, folder)
        ):
            if finding in found:
                continue  # the cells of an experiment share most of what they need
            found.append(finding)
            if as_json:
                continue
            _print_finding(finding)

    guarded(lambda: None, work)
    if as_json:
        echo_json([asdict(finding) for finding in found])
    if any(finding.level == "failure" for finding in found):
        raise typer.Exit(1)


def _print_finding(finding: Any) -> None:
    """Print what the doctor has found: on a terminal in two columns, elsewhere as one line."""
    level, text = (finding.level, _LEVELS[finding.level]), f"{finding.what}: {finding.text}"
    remedy = finding.remedy if finding.level != "ok" else ""
    if not out.is_terminal:
        out.print(line(level, f" {text}", f"  {remedy}" if remedy else ""), soft_wrap=True)
        return
    table = Table.grid(Column(width=8), Column(overflow="fold"))
    table.add_row(line(level), text)
    if remedy:
        table.add_row("", remedy)
    out.print(table)


def serve(
    run: GivenRun,
    student: Annotated[
        str | None,
        typer.Option(help="As in ask; by default all students that one server can serve, or else the best."),
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="lora, merged or auto; by default the run's setting.")] = None,
    python: Interpreter = None,
    url: Annotated[str | None, typer.Option(metavar="URL", help="Load into this running server; start none.")] = None,
    port: Annotated[int | None, typer.Option(help="The port on loopback; a free one by default.")] = None,
    deadline: Annotated[float | None, typer.Option(metavar="SECONDS", help="How long loading may take.")] = None,
    as_json: AsJSON = False,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[-- VLLM ARGUMENTS]", help="For vLLM.")] = None,
) -> None:
    """Serve the students of a run folder with vLLM on loopback until Ctrl-C. Their adapters are probed first.

    Example: divcon serve --run runs/pipeline --port 8000
    """

    def work() -> None:
        from divcon._serve import read_arguments, serve_students
        from divcon.config import load_saved_pipeline
        from divcon.pipeline import Run

        options = {"python": python, "api_base": url, "port": port, "deadline": deadline}
        changed: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if arguments:
            changed["arguments"] = read_arguments(arguments)
        with leaving(Run(load_saved_pipeline(run), run, Terminal(console_of(as_json)))) as made:
            log_into(run)
            serve_students(made, student, adapter, changed, echo, echo_json if as_json else None)

    guarded(lambda: None, work)


def mcp(
    run: GivenRun,
    student: Student = None,
) -> None:
    """Offer the program of a run folder to agents, as an MCP tool on standard input and output.

    Example: divcon mcp --run runs/pipeline
    """
    made: list[Any] = []

    def work() -> Any:
        from divcon._mcp import serve_mcp
        from divcon.config import load_saved_pipeline
        from divcon.pipeline import Run

        made.append(Run(load_saved_pipeline(run), run, Terminal(err)))
        log_into(run)
        with leaving(made[0]):
            serve_mcp(made[0].answering_program(student)[0])

    guarded(lambda: made[0].pipeline, work)


# The panels of the help, and their commands in the order of use.
_PANELS: dict[str, dict[str, Any]] = {
    "Start": {"init": init, "doctor": doctor, "precheck": precheck},
    "Run": {"run": run_all, **STATIONS, "experiment": experiment},
    "Look": {"status": status, "report": report, "inspect": inspect, "ask": ask},
    "Serve": {"serve": serve, "mcp": mcp, "push": push},
    "Tools": {"grade": grade, "base": base, "schema": schema},
}

for _panel, _commands in _PANELS.items():
    for _name, _command in _commands.items():
        app.command(_name, rich_help_panel=_panel)(_command)
app.add_typer(store_app, name="store", rich_help_panel="Tools")


def main() -> None:
    """The entry point of `divcon`."""
    with all_shown():
        app()


if __name__ == "__main__":
    main()
