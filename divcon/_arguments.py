"""The arguments that several commands share, and paths of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from divcon._completion import experiments, keys, named, students


def path_of(text: str) -> Path:
    """A path of the command line. A shell leaves `~` and `$NAME` as they are where they are quoted or follow `=`."""
    from divcon.distill._paths import PathError, expanded_path

    try:
        return expanded_path(text)
    except PathError as error:
        raise typer.BadParameter(str(error)) from error


PipelineFile = Annotated[Path, typer.Argument(metavar="FILE", parser=path_of, help="The pipeline file, in YAML.")]
_DEFAULT = "The run folder; runs/<the file's stem> by default."
RunFolder = Annotated[Path | None, typer.Option("--run", metavar="FOLDER", parser=path_of, help=_DEFAULT)]
GivenRun = Annotated[Path, typer.Option("--run", metavar="FOLDER", parser=path_of, help="A run folder.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a key of the file; may be repeated.", autocompletion=named(keys)
    ),
]
Wait = Annotated[bool, typer.Option("--wait", help="Where another process works on the run folder, wait for its end.")]
AsJSON = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else on standard output.")]
_NAME = "An experiment's file, or the name of one that ships with divcon."
ExperimentFile = Annotated[
    Path, typer.Argument(metavar="NAME", parser=path_of, help=_NAME, autocompletion=named(experiments))
]
_GRADED = "JSON Lines with gold (text or a list), reply and, if need be, question."
GradedFile = Annotated[Path | None, typer.Option("--file", metavar="PATH", parser=path_of, help=_GRADED)]
_FOR_VLLM = "The Python that vLLM is installed for."
Interpreter = Annotated[Path | None, typer.Option("--python", metavar="PYTHON", parser=path_of, help=_FOR_VLLM)]
_GGUF = "A GGUF file of an instruction-tuned model."
GGUFFile = Annotated[Path, typer.Argument(metavar="FILE.gguf", parser=path_of, help=_GGUF)]
_NEW = "The folder to write; it must not exist."
NewFolder = Annotated[Path, typer.Argument(metavar="FOLDER", parser=path_of, help=_NEW)]
_STUDENT = "A trained student, such as sd-r, or untuned; by default the best trained."
Student = Annotated[str | None, typer.Option(help=_STUDENT, autocompletion=named(students))]
