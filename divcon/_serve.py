"""`divcon serve`: the students of a run folder behind a server, for programs elsewhere on this machine."""

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
    """What stands after `--`, as `server.arguments` has it.

    Raises:
        DivconError: A value stands where a name should.
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
    run: Run, student: str | None, adapter: str | None, changed: dict[str, Any], show: Callable[[str], None]
) -> None:
    """Serve until the server ends for good or the user stops it; a running server only gets the adapters.

    Args:
        run: The run folder.
        student: A trained student's name, or `untuned`; None for all that one server can serve, or else the best.
        adapter: How adapters are served; None for what the run says.
        changed: Fields of the server's settings that differ from the run's.
        show: Prints a line.

    Raises:
        DivconError: A student isn't trained, or the settings make no sense.
        ServerError: The server can't be started or used.
    """
    of_run = run.pipeline.roles.decomposer
    mode = adapter or of_run.adapter
    if mode not in get_args(AdapterMode):
        raise DivconError(f"There is no way '{mode}' to serve an adapter.", "Write lora, merged or auto.")
    engine = server_engine(of_run.serve)
    before = of_run.server.model_dump(exclude_defaults=True) if of_run.server else {}
    if "api_base" in changed:
        before = {}
    if "arguments" in changed:
        changed = {**changed, "arguments": {**before.get("arguments", {}), **changed["arguments"]}}
    try:
        settings = engine.settings(**{**before, **changed})
    except ValidationError as error:
        raise DivconError(f"serve: {refusal(error)}.", "Correct it.") from error
    wanted = run.saved.students(student)
    told = lambda text: run.reporter.finished("serve", text)  # noqa: E731
    log = run.folder / f"{engine.name}.log"
    options = ServingOptions(settings, cast(AdapterMode, mode), run.pipeline.roles.precision, log, told)
    with engine.serves(run.models.base, options) as model:
        names = [model.add(folder) if folder else "" for _, folder in wanted]
        if len({model.server_of(name) for name in names}) > 1:
            names = names[:1]  # a merged copy takes a server of its own
        for name in names:
            address = model.start(name)
        show(f"address  {address}")
        variable = settings.api_key_env or settings.key_variable
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
                    model.start(name)  # nothing, while it runs
        except KeyboardInterrupt:
            show("Ended.")
