"""The command line: one command per station, and commands for experiments, questions and serving."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

# These are set before dspy and transformers are imported. They stop LiteLLM from downloading a price list, Hugging Face
# from sending telemetry, and tokenizers from warning about the forks of a data loader.
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TQDM_DISABLE", "1")  # no progress bars of libraries beside divcon's own

import typer

from divcon._arguments import (
    ExperimentFile,
    GGUFFile,
    GivenRun,
    GradedFile,
    Interpreter,
    NewFolder,
    Overrides,
    PipelineFile,
    RunFolder,
    Wait,
)
from divcon._opening import leaving, looking, opened
from divcon._precheck import precheck
from divcon._report import report
from divcon._store import app as store_app
from divcon._tables import print_estimate, print_prediction, print_results, print_rows, print_teacher
from divcon._terminal import Terminal, all_shown, echo, echo_json, err, fail, guarded, line, log_into, out
from divcon.signatures import DivconError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(store_app, name="store")
app.command()(precheck)
app.command()(report)

_STUDENT = "A trained student, such as sd-r, or untuned; by default the best trained."


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
    """Distil the planning half of a two-stage DSPy program into a small local model."""


def _do(
    name: str, does: Callable[[Any], Any], file: Path, run: Path | None, overrides: list[str] | None, wait: bool
) -> None:
    """Do a station, or all of them, and print the results where there are any."""
    made: list[Any] = []

    def work() -> Any:
        made.append(opened(file, run, overrides))
        with leaving(made[0]):
            made[0].hold(wait)
            log_into(made[0].folder)
            if name != "run":
                made[0].check()
            return does(made[0])

    def shown_work() -> Any:
        from divcon.pipeline import Incomplete

        try:
            return work()
        except Incomplete as error:
            if error.results is not None:
                print_results(error.results, made[0].folder)
            raise

    results = guarded(lambda: made[0].pipeline, shown_work)
    if name in ("run", "evaluate"):
        print_results(results, made[0].folder)


def _station(name: str, text: str, does: Callable[[Any], Any]) -> None:
    def command(file: PipelineFile, run: RunFolder = None, overrides: Overrides = None, wait: Wait = False) -> None:
        _do(name, does, file, run, overrides, wait)

    command.__doc__ = text
    app.command(name)(command)


_station("compile", "Optimize the teacher's decomposition prompt with a DSPy teleprompter.", lambda run: run.compile())
_station("collect", "Ask the teacher for decompositions of the training questions.", lambda run: run.collect())
_station("screen", "Keep the decompositions worth learning from, and count what is lost.", lambda run: run.screen())
_station("export", "Write the training rows of every student.", lambda run: run.export())
_station("train", "Train a LoRA adapter on every student's rows.", lambda run: run.train())
_station("evaluate", "Measure every arm on the held-out questions.", lambda run: run.evaluate())


@app.command("run")
def run_all(
    file: PipelineFile,
    run: RunFolder = None,
    overrides: Overrides = None,
    wait: Wait = False,
    dry: Annotated[
        bool, typer.Option("--dry-run", help="Tell what the missing stations will take, and ask nothing.")
    ] = False,
) -> None:
    """Run all stations in order; do only what is missing."""
    if not dry:
        _do("run", lambda made: made.run(), file, run, overrides, wait)
        return

    def work() -> Any:
        with looking(file, run, overrides) as made:
            return made.estimate(), made.context.teacher

    stations, teacher = guarded(lambda: None, work)
    print_estimate(stations)
    print_teacher(teacher.model_dump())


_STATES = {"done": "green", "partly": "yellow", "again": "yellow", "to do": "default"}


@app.command()
def status(
    file: PipelineFile,
    run: RunFolder = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Show which stations are done, and what has changed where a station would run again. No model is called."""

    def work() -> Any:
        with looking(file, run, overrides) as made:
            return made.status()

    for one in guarded(lambda: None, work):
        if as_json:
            echo_json({**asdict(one), "note": one.note})
        else:
            state = (f"{one.state:7}", _STATES[one.state])
            out.print(line(state, f" {one.station:20} {one.note}"), soft_wrap=True)


@app.command()
def experiment(
    file: ExperimentFile,
    run: RunFolder = None,
    overrides: Overrides = None,
    wait: Wait = False,
) -> None:
    """Run one of the experiments: main, transfer, solvers, dynamic, multitask, depth, curve, cap."""
    if not file.suffix and not file.exists():
        named = Path("examples") / "experiments" / f"{file}.yaml"
        if not named.is_file():
            problem = f"There is no file {file}, and no {named} here."
            fail(DivconError(problem, "Give an experiment's file, or run the command in a checkout of divcon."))
        file = named
    folder = run or Path("runs") / file.stem
    made: list[Any] = []

    def work() -> Any:
        from divcon.config import load_experiment
        from divcon.experiments import ExperimentRun
        from divcon.pipeline import Incomplete

        made.append(ExperimentRun(load_experiment(file, overrides or []), folder, Terminal()))
        with leaving(made[0]):
            made[0].hold(wait)
            log_into(folder)
            try:
                return made[0].run()
            except Incomplete as error:
                if error.results is not None:
                    print_rows(error.results, folder)
                raise

    print_rows(guarded(lambda: made[0].experiment, work), folder)


@app.command()
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    run: GivenRun,
    context: Annotated[str | None, typer.Option(help="A passage the question is about.")] = None,
    student: Annotated[str | None, typer.Option(help=_STUDENT)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Answer one question with the program of a run folder."""
    made: list[Any] = []

    def work() -> Any:
        from divcon.config import load_saved_pipeline
        from divcon.pipeline import Run

        made.append(Run(load_saved_pipeline(run), run, Terminal(err)))
        log_into(run)
        with leaving(made[0]):
            return made[0].ask(question, context, student)

    started = time.perf_counter()
    prediction = guarded(lambda: made[0].pipeline, work)
    seconds = round(time.perf_counter() - started, 2)
    print_prediction(question, prediction, seconds, as_json)


_LEVELS = {"ok": "green", "warning": "yellow", "failure": "red"}


@app.command()
def doctor(file: PipelineFile, run: RunFolder = None, overrides: Overrides = None) -> None:
    """Check everything that a pipeline or experiment file needs, a line per check. No call is paid for."""
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
            text = finding.text + (f"  {finding.remedy}" if finding.level != "ok" else "")
            out.print(line((finding.level, _LEVELS[finding.level]), f" {finding.what}: {text}"), soft_wrap=True)

    guarded(lambda: None, work)
    if any(finding.level == "failure" for finding in found):
        raise typer.Exit(1)


@app.command()
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
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[-- VLLM ARGUMENTS]", help="For vLLM.")] = None,
) -> None:
    """Serve the students of a run folder with vLLM on loopback until Ctrl-C. Their adapters are probed first."""

    def work() -> None:
        from divcon._serve import read_arguments, serve_students
        from divcon.config import load_saved_pipeline
        from divcon.pipeline import Run

        options = {"python": python, "api_base": url, "port": port, "deadline": deadline}
        changed: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        if arguments:
            changed["arguments"] = read_arguments(arguments)
        with leaving(Run(load_saved_pipeline(run), run, Terminal())) as made:
            log_into(run)
            serve_students(made, student, adapter, changed, echo)

    guarded(lambda: None, work)


@app.command()
def grade(
    task: Annotated[str, typer.Argument(help="A task, such as gsm8k, drop or bbh; 'file' grades by the gold's form.")],
    gold: Annotated[
        list[str] | None, typer.Option(help="A gold answer; may be repeated. DROP's spans are separated by ';'.")
    ] = None,
    reply: Annotated[str | None, typer.Option(help="A program's answer.")] = None,
    question: Annotated[str, typer.Option(help="The question, where the answer is one of its options.")] = "",
    file: GradedFile = None,
    grader: Annotated[str, typer.Option(help="strict, or paper for the lenient ones of the paper's code.")] = "strict",
    percent: Annotated[bool, typer.Option(help="Numeric answers are shares: 5 % is 0.05.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines.")] = False,
) -> None:
    """Grade a reply: whether it is right, which answer was read, and by which rule. The status is 2 if one is wrong."""

    def work() -> list[Any]:
        from divcon.benchmarks.tasks import grade_replies, read_pairs

        if file is None and (not any(one.strip() for one in gold or []) or reply is None):
            raise DivconError("There is nothing to grade.", "Give --gold and --reply, or --file.")
        pairs = read_pairs(file) if file is not None else [(0, gold or [], reply or "", question)]
        return grade_replies(task, pairs, grader=grader, percent=percent, file=file)

    verdicts = guarded(lambda: None, work)
    for verdict in verdicts:
        found = {"right": verdict.right, "extracted": verdict.extracted, "rule": verdict.rule, "score": verdict.score}
        if as_json:
            echo_json(found)
        else:
            read = f"read '{verdict.extracted}'" if verdict.extracted is not None else "no answer found"
            right = "right" if verdict.right else "wrong"
            echo(f"{right}: {read}, rule {verdict.rule}, score {verdict.score:g}")
    if len(verdicts) > 1 and not as_json:
        echo(f"{sum(verdict.right for verdict in verdicts)} of {len(verdicts)} right")
    if not all(verdict.right for verdict in verdicts):
        raise typer.Exit(2)


@app.command()
def base(
    file: GGUFFile,
    folder: NewFolder,
    dtype: Annotated[
        str, typer.Option(help="The type of the written weights: bfloat16, or float32 at twice the size.")
    ] = "bfloat16",
) -> None:
    """Convert a GGUF file to a folder that roles.decomposer.base and vLLM can load."""

    def work() -> Path:
        from divcon.distill.serving.embedded import convert_gguf

        if dtype not in ("bfloat16", "float32"):
            raise DivconError(f"There is no dtype '{dtype}' here.", "Write bfloat16 or float32.")
        out.print(f"Dequantizing {file.name}; a minute for half a billion parameters.")
        return convert_gguf(file, folder, dtype=dtype)

    out.print(str(guarded(lambda: None, work)), soft_wrap=True)


@app.command()
def schema(
    file: Annotated[
        Literal["pipeline", "experiment", "results"],
        typer.Argument(metavar="KIND", help="pipeline, experiment or results."),
    ] = "pipeline",
) -> None:
    """Print the JSON Schema of the pipeline file, the experiment file, or results.json."""
    from divcon.schemas import schema_text

    typer.echo(schema_text(file), nl=False)


@app.command()
def mcp(
    run: GivenRun,
    student: Annotated[str | None, typer.Option(help=_STUDENT)] = None,
) -> None:
    """Offer the program of a run folder to agents, as an MCP tool on standard input and output."""
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


def main() -> None:
    """The entry point of `divcon`."""
    with all_shown():
        app()


if __name__ == "__main__":
    main()
