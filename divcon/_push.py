"""`divcon push`: publish a trained adapter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from divcon._arguments import AsJSON, path_of
from divcon._terminal import echo_json, guarded, out

_STUDENT = "A trained student of the run, such as sd-r."
_TARGET = "A folder (./adapter, /srv/adapter), or a repository of a hub (owner/name)."


def push(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", parser=path_of, help="A run folder.")],
    arm: Annotated[str, typer.Argument(metavar="ARM", help=_STUDENT)],
    target: Annotated[str, typer.Argument(metavar="TARGET", help=_TARGET)],
    public: Annotated[bool, typer.Option("--public", help="Let everyone read a new repository.")] = False,
    as_json: AsJSON = False,
) -> None:
    """Publish the adapter of a student, with its model card, to a folder or a hub.

    Weights, settings, manifest, probe and card are published. The probe holds one training question with its plan.

    Example: divcon push runs/demo sd-r owner/planner
    """
    from divcon.pipeline import publish

    found = guarded(lambda: None, lambda: publish(folder, arm, target, public=public))
    if as_json:
        echo_json(asdict(found))
        return
    out.print(f"{', '.join(found.files)}\n{found.where}", soft_wrap=True)
