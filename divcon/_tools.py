"""Small commands beside the line: grade a reply, convert a base, print a schema."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from divcon._arguments import AsJSON, GGUFFile, GradedFile, NewFolder
from divcon._completion import named, task_names
from divcon._terminal import console_of, echo, echo_json, guarded, out
from divcon.signatures import DivconError

_TASK = "A task, such as gsm8k, drop or bbh; 'file' grades by the gold's form."


def grade(
    task: Annotated[str, typer.Argument(help=_TASK, autocompletion=named(task_names))],
    gold: Annotated[
        list[str] | None, typer.Option(help="A gold answer; may be repeated. DROP's spans are separated by ';'.")
    ] = None,
    reply: Annotated[str | None, typer.Option(help="A program's answer.")] = None,
    question: Annotated[str, typer.Option(help="The question, where the answer is one of its options.")] = "",
    file: GradedFile = None,
    grader: Annotated[str, typer.Option(help="strict, or paper for the lenient ones of the paper's code.")] = "strict",
    percent: Annotated[bool, typer.Option(help="Numeric answers are shares: 5 % is 0.05.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Grade a reply: whether it is right, which answer was read, and by which rule. The status is 2 if one is wrong.

    With --json, a reply gives an object, and a file a list of them.

    Example: divcon grade gsm8k --gold 12600 --reply 'The total comes to $12,600.'
    """

    def work() -> list[Any]:
        from divcon.benchmarks.tasks import grade_replies, read_pairs

        if file is None and (not any(one.strip() for one in gold or []) or reply is None):
            raise DivconError("There is nothing to grade.", "Give --gold and --reply, or --file.")
        pairs = read_pairs(file) if file is not None else [(0, gold or [], reply or "", question)]
        return grade_replies(task, pairs, grader=grader, percent=percent, file=file)

    verdicts = guarded(lambda: None, work)
    if as_json:
        found = [
            {"right": one.right, "extracted": one.extracted, "rule": one.rule, "score": one.score} for one in verdicts
        ]
        echo_json(found if file is not None else found[0])
    else:
        for verdict in verdicts:
            read = f"read '{verdict.extracted}'" if verdict.extracted is not None else "no answer found"
            right = "right" if verdict.right else "wrong"
            echo(f"{right}: {read}, rule {verdict.rule}, score {verdict.score:g}")
        if len(verdicts) > 1:
            echo(f"{sum(verdict.right for verdict in verdicts)} of {len(verdicts)} right")
    if not all(verdict.right for verdict in verdicts):
        raise typer.Exit(2)


def base(
    file: GGUFFile,
    folder: NewFolder,
    dtype: Annotated[
        str, typer.Option(help="The type of the written weights: bfloat16, or float32 at twice the size.")
    ] = "bfloat16",
    as_json: AsJSON = False,
) -> None:
    """Convert a GGUF file to a folder that roles.decomposer.base and vLLM can load.

    Example: divcon base smollm2.gguf bases/smollm2
    """

    def work() -> Path:
        from divcon.distill.serving.embedded import convert_gguf

        if dtype not in ("bfloat16", "float32"):
            raise DivconError(f"There is no dtype '{dtype}' here.", "Write bfloat16 or float32.")
        console_of(as_json).print(f"Dequantizing {file.name}; a minute for half a billion parameters.")
        return convert_gguf(file, folder, dtype=dtype)

    written = guarded(lambda: None, work)
    if as_json:
        echo_json({"folder": str(written)})
    else:
        out.print(str(written), soft_wrap=True)


def schema(
    file: Annotated[
        Literal["pipeline", "experiment", "results"],
        typer.Argument(metavar="KIND", help="pipeline, experiment or results."),
    ] = "pipeline",
) -> None:
    """Print the JSON Schema of the pipeline file, the experiment file, or results.json.

    Example: divcon schema results
    """
    from divcon.schemas import schema_text

    typer.echo(schema_text(file), nl=False)
