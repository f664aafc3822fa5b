"""The command `init`: asks or takes options, looks at the data, and writes a first pipeline file."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from divcon._arguments import AsJSON, path_of
from divcon._providers import DEFAULT_MODEL, missing_keys
from divcon._terminal import echo, echo_json, fail, guarded
from divcon.signatures import DivconError

_BASE, _OUT = "embedded", "pipeline.yaml"
_DATA = "A file or folder of questions with their answers: CSV, TSV, JSON, JSON Lines or Parquet."


def init(
    data: Annotated[Path | None, typer.Argument(metavar="[DATA]", parser=path_of, help=_DATA)] = None,
    data_option: Annotated[
        Path | None, typer.Option("--data", metavar="DATA", parser=path_of, help="The same, as an option.")
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(help=f"The model that splits questions; {DEFAULT_MODEL} by default.")
    ] = None,
    solver: Annotated[str | None, typer.Option(help="The model that answers; the teacher's by default.")] = None,
    base: Annotated[str | None, typer.Option(help=f"The small model to train; {_BASE} by default.")] = None,
    teacher_at: Annotated[str | None, typer.Option(metavar="URL", help="The teacher's server, if it's yours.")] = None,
    solver_at: Annotated[str | None, typer.Option(metavar="URL", help="The solver's server, if it's yours.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", parser=path_of, help=f"The file to write; {_OUT} by default.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Another key to write; may be repeated.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing: what isn't given is the default.")] = False,
    as_json: AsJSON = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a pipeline file for your questions, with a comment on every key. No model is called.

    On a terminal it asks for what isn't given. Columns are guessed from their names and values, and shown.

    Example: divcon init questions.csv --teacher openai/gpt-4.1-mini --yes
    """
    asking = not (yes or as_json) and sys.stdin.isatty()
    if data and data_option:
        fail(DivconError("The data is given twice.", "Give it as an argument or with --data."))
    path = data or data_option
    if path is None:
        if not asking:
            fail(DivconError("The data isn't given.", "Write for example: divcon init questions.csv"))
        path = path_of(typer.prompt("Your questions with their answers (a file or folder)"))
    given = overrides or []

    def look() -> Any:
        from divcon._starter import look_at

        return look_at(path, given)

    questions = guarded(lambda: None, look)
    if not as_json:
        for sentence in questions.said():
            echo(sentence)
    if asking and questions.columns and not typer.confirm("Are these the right columns?", default=True):
        sets = " ".join(f"--set task.fields.{ours}=COLUMN" for ours in ("question", "answer"))
        fail(DivconError("Nothing was written.", f"Name the columns: divcon init {shlex.quote(str(path))} {sets}"))
    teacher = teacher or _answered("The model that splits questions (the teacher)", DEFAULT_MODEL, asking)
    teacher_at = teacher_at or _address(teacher, asking)
    solver = solver or _answered("The model that answers them (the solver)", teacher, asking)
    solver_at = solver_at or (teacher_at if solver == teacher else _address(solver, asking))
    base = base or _answered("The small model to train (embedded, a folder or a hub name)", _BASE, asking)
    out = out or path_of(_answered("Write it to", _OUT, asking))
    if out.exists() and not force and not (asking and typer.confirm(f"{out} is there. Overwrite it?", default=False)):
        fail(DivconError(f"{out} is there already.", "Choose another file with --out, or add --force."))

    def write() -> list[str]:
        from divcon._starter import require_loads, starter
        from divcon.distill import write_whole

        addresses = {"teacher": teacher_at, "solver": solver_at}
        text = starter(questions, out, teacher, solver, base, addresses, given)
        require_loads(text, str(out))
        write_whole(out, text)
        return list(dict.fromkeys([*missing_keys(teacher), *missing_keys(solver)]))

    lacking = guarded(lambda: None, write)
    if as_json:
        counts = {"questions": questions.count, **questions.sizes}
        echo_json({"file": str(out), **counts, "fields": questions.columns, "keys_to_set": lacking})
        return
    echo(f"Wrote {out}. Look it over; then:")
    for name in lacking:
        echo(f"  {'set' if os.name == 'nt' else 'export'} {name}=...    (it isn't set)")
    echo(f"  divcon precheck {shlex.quote(str(out))}    (asks some training questions and says whether to go on)")


def _answered(question: str, default: str, asking: bool) -> str:
    """The answer to a question; its default where nothing is asked."""
    return str(typer.prompt(question, default=default)) if asking else default


def _address(model: str, asking: bool) -> str | None:
    """The address of a model on a server of one's own; None for other models."""
    if not asking or not model.startswith("hosted_vllm/"):
        return None
    return str(typer.prompt(f"The address of the server of {model}", default="http://127.0.0.1:8000/v1"))
