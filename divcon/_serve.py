"""`divcon serve`: serve the students of a run folder to other programs on this machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, cast, get_args

from pydantic import ValidationError

from divcon.distill.serving import AdapterMode, ServingOptions
from divcon.distill.serving.server import server_engine
from divcon.pipeline import Run
from divcon.signatures import DivconError, refusal


def read_arguments(words: Sequence[str]) -> dict[str, Any]:
    """The arguments after `--`, in the form of `server.arguments`.

    Raises:
        DivconError: A value comes before the first name.
    """
    found: dict[str, Any] = {}
    name = ""
    for word in words:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            found[name] = value if equals else True
        elif not name:
            raise DivconError(f"'{word}' is no argument of vLLM.", "Write '-- --max-model-len 4096'.")
        elif found[name] is True:
            found[name] = word
        else:
            found[name] = [*(found[name] if isinstance(found[name], list) else [found[name]]), word]
    return found


def serve_students(
    run: Run,
    student: str | None,
    adapter: str | None,
    changed: dict[str, Any],
    show: Callable[[str], None],
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> None:
    """Serve students until the user stops it or the server can't be restarted.

    A server that is already running gets the adapters, and the function returns.

    Args:
        run: The run.
        student: A trained student's name, or `untuned`. None serves all students that fit one server, or else the best.
        adapter: How adapters are served; None for the run's setting.
        changed: Fields of the server's settings that differ from the run's.
        show: Prints a line.
        tell: Gets the address and the models once they are served; then no lines are printed.

    Raises:
        DivconError: A student isn't trained, or the settings are invalid.
        ServerError: The server can't be started or used.
    """
    declared = run.pipeline.roles.decomposer
    mode = adapter or declared.adapter
    if mode not in get_args(AdapterMode):
        raise DivconError(f"There is no way '{mode}' to serve an adapter.", "Write lora, merged or auto.")
    engine = server_engine(declared.serve)
    before = declared.server.model_dump(exclude_defaults=True) if declared.server else {}
    if "api_base" in changed:
        before = {}
    if "arguments" in changed:
        changed = {**changed, "arguments": {**before.get("arguments", {}), **changed["arguments"]}}
    try:
        settings = engine.settings(**{**before, **changed})
    except ValidationError as error:
        raise DivconError(f"serve: {refusal(error)}.", "Correct it.") from error
    wanted = run.saved.students(student)
    report = lambda text: run.reporter.finished("serve", text)  # noqa: E731
    log = run.folder / f"{engine.name}.log"
    options = ServingOptions(settings, cast(AdapterMode, mode), run.pipeline.roles.precision, log, report)
    with engine.serves(run.models.base, options) as model:
        names = [model.add(folder) if folder else "" for _, folder in wanted]
        if len({model.server_of(name) for name in names}) > 1:
            names = names[:1]  # each merged adapter needs a server of its own
        for name in names:
            address = model.start(name)
        variable = settings.api_key_env or settings.key_variable
        if tell is not None:
            served = [{"name": name or run.models.base.id, "model": model.model_name(name)} for name in names]
            tell({"address": address, "models": served, "api_key_env": variable})
            show = lambda text: None  # noqa: E731
        show(f"address  {address}")
        key = f'os.environ["{variable}"]' if os.environ.get(variable) else '"none"'
        for name in names:
            show(f"model    {name or run.models.base.id}")
            show(f'python   dspy.LM("{model.model_name(name)}", api_base="{address}", api_key={key}, cache=False)')
        if settings.api_base:
            return
        show("Ctrl-C ends it.")
        try:
            while True:
                time.sleep(0.5)
                for name in names:
                    model.start(name)  # does nothing while the server runs
        except KeyboardInterrupt:
            show("Ended.")
