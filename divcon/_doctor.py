"""The doctor: check everything that a pipeline needs, before a call is paid for."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from divcon.benchmarks.tasks import TASKS
from divcon.config import Endpoint, Pipeline
from divcon.distill import OPTIMIZER_EXTRAS, ManifestError, is_trained, local_base, optimizer_name, read_manifest
from divcon.distill.executors import EXECUTORS
from divcon.distill.serving import ENGINES, Finding
from divcon.distill.serving.embedded import cache_folder, precision
from divcon.distill.serving.server import KeyRefused, ServerClient, ServerUnreachable
from divcon.signatures import DivconError

_ROOM = 2e9  # free bytes on disk; with less there is a warning, and with less than a tenth of it a failure


def diagnose(
    pipeline: Pipeline, folder: Path, *, asks: tuple[str, ...] = ("teacher", "solver", "decomposer")
) -> Iterator[Finding]:
    """Check everything that a pipeline needs, the cheap checks first.

    Args:
        pipeline: The pipeline.
        folder: Its run folder, which need not be there.
        asks: The roles whose models will be called; the endpoints of other roles aren't checked.
    """
    yield from _packages(pipeline)
    yield _device(pipeline)
    yield from _disk(folder)
    try:
        if pipeline.compile.optimizer != "none":
            optimizer_name(pipeline.compile.optimizer)
    except DivconError as error:
        yield Finding("failure", "optimizer", error.problem, error.remedy)
    yield from _base(pipeline, folder)
    for role, endpoint in (("teacher", pipeline.roles.teacher), ("solver", pipeline.roles.solver)):
        if role in asks:
            yield from _endpoint(role, endpoint)
        yield from _price(role, endpoint)
    if "decomposer" in asks:
        yield from ENGINES[pipeline.roles.decomposer.serve].examine(pipeline.roles.decomposer.server)


def _packages(pipeline: Pipeline) -> Iterator[Finding]:
    extras = {"", "train", "report", EXECUTORS[pipeline.run.executor].extra, TASKS[pipeline.task.name].extra}
    extras.add(OPTIMIZER_EXTRAS.get(pipeline.compile.optimizer, ""))
    extras |= {"mlflow"} if pipeline.tracking else set()
    wrong = []
    for line in metadata.requires("divcon") or []:
        wanted = Requirement(line)
        if wanted.marker and not any(wanted.marker.evaluate({"extra": extra}) for extra in extras):
            continue
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            wrong.append((f"{wanted.name} isn't installed", line))
            continue
        if not wanted.specifier.contains(version, prereleases=True):
            wrong.append((f"{wanted.name} {version} isn't {wanted.specifier}", line))
    shown = ", ".join(f"{name} {metadata.version(name)}" for name in ("divcon", "dspy"))
    python = ".".join(map(str, sys.version_info[:3]))
    if wrong:
        wanted_extras = ",".join(sorted(extras - {""}))
        remedy = f"pip install 'divcon[{wanted_extras}]', with -c constraints.txt for the tested versions."
        yield Finding("failure", "packages", "; ".join(text for text, _ in wrong), remedy)
    else:
        yield Finding("ok", "packages", f"Python {python}, {shown} and what they need")


def _device(pipeline: Pipeline) -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("failure", "device", "torch can't be imported", "pip install 'divcon[train]'.")
    if torch.cuda.is_available():
        room = torch.cuda.mem_get_info()[0] / 1e9
        return Finding("ok", "device", f"{torch.cuda.get_device_name(0)}, {room:.0f} GB free; training runs there")
    cores = os.cpu_count() or 1
    if pipeline.roles.decomposer.base != "embedded":
        return Finding(
            "warning", "device", f"no GPU that torch sees; training runs on {cores} CPU cores", "Expect hours."
        )
    served = precision(pipeline.roles.precision)
    return Finding(
        "ok",
        "device",
        f"no GPU; training and the embedded engine run on {cores} CPU cores; the engine computes in {served}",
    )


def _disk(folder: Path) -> Iterator[Finding]:
    for what, place in (("run folder", folder), ("cache", cache_folder())):
        there = next(path for path in (place.absolute(), *place.absolute().parents) if path.exists())
        free = shutil.disk_usage(there).free
        text = f"{free / 1e9:.1f} GB free for the {what} at {place}"
        if not os.access(there, os.W_OK):
            yield Finding("failure", "disk", f"{there} can't be written to", "Choose another folder.")
        elif free < _ROOM / 10:
            yield Finding("failure", "disk", text, "Make room.")
        elif free < _ROOM:
            yield Finding("warning", "disk", text, "Make room: weights and checkpoints need some.")
        else:
            yield Finding("ok", "disk", text)


def _base(pipeline: Pipeline, folder: Path) -> Iterator[Finding]:
    name = pipeline.roles.decomposer.base
    if name != "embedded" and not Path(name).expanduser().is_dir():
        from huggingface_hub import try_to_load_from_cache

        if not isinstance(try_to_load_from_cache(name, "config.json"), str):
            offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
            if offline:
                text = f"{name} isn't in the hub's cache, and HF_HUB_OFFLINE forbids to fetch it"
                yield Finding("failure", "base", text, "Unset HF_HUB_OFFLINE, or give a folder.")
            else:
                yield Finding("ok", "base", f"{name} is downloaded when the run begins")
            return
    try:
        base = local_base(name)
    except DivconError as error:
        yield Finding("failure", "base", error.problem, error.remedy)
        return
    yield Finding("ok", "base", f"{base.id}, {base.revision[:24]}")
    for adapter in sorted((folder / "adapters").glob("*")):
        if not is_trained(adapter):
            continue
        try:
            ENGINES[pipeline.roles.decomposer.serve].check_adapter(adapter, base)
            manifest = read_manifest(adapter)
            if manifest.base["revision"] != base.revision:
                raise ManifestError(f"{adapter} was trained on {manifest.base['id']}.", "It will be trained again.")
        except DivconError as error:
            yield Finding("warning", "adapter", error.problem, error.remedy)
        else:
            rows = f"{manifest.rows} rows, rank {manifest.settings.get('rank', '?')}"
            yield Finding("ok", "adapter", f"{adapter.name} ({rows}) is for this base and unchanged")


def _endpoint(role: str, endpoint: Endpoint) -> Iterator[Finding]:
    model = endpoint.model
    if endpoint.scripted or endpoint.embedded:
        kind = "scripted, not a model" if endpoint.scripted else "in this process"
        yield Finding("ok", role, f"{model} ({kind})")
        return
    name = model.partition("/")[2]
    key = os.environ.get(endpoint.api_key_env) if endpoint.api_key_env else None
    if endpoint.api_base:
        yield _reached(role, ServerClient(endpoint.api_base, key or _usual_key(model), timeout=10.0), name, model)
        return
    if not _known_provider(model):
        remedy = f"Correct roles.{role}.model: a provider's name, a slash and the model."
        yield Finding("failure", role, f"LiteLLM knows no provider for {model}", remedy)
        return
    missing = [] if key else _missing_keys(model)
    if missing:
        remedy = f"Set it, or name another variable in roles.{role}.api_key_env."
        yield Finding("failure", role, f"{model} needs a key, and {', '.join(missing)} isn't set", remedy)
    else:
        yield Finding("ok", role, f"{model}, with a key from the environment; it wasn't asked")


def _reached(what: str, client: ServerClient, name: str, model: str) -> Finding:
    try:
        served = client.names()
    except DivconError as error:
        # A gateway may refuse to list its models and still answer.
        refused = isinstance(error, (ServerUnreachable, KeyRefused))
        return Finding("failure" if refused else "warning", what, error.problem, error.remedy)
    if name in served:
        return Finding("ok", what, f"{client.api_base} serves {name}")
    text = f"{client.api_base} doesn't serve '{name}'; it serves {', '.join(served[:6]) or 'nothing'}"
    return Finding(
        "failure" if model.startswith("hosted_vllm/") else "warning", what, text, f"Correct roles.{what}.model."
    )


def _usual_key(model: str) -> str | None:
    return os.environ.get("OPENAI_API_KEY") if model.startswith("openai/") else None


def _known_provider(model: str) -> bool:
    import litellm
    from litellm.exceptions import BadRequestError

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # besides raising the error, it prints a list of providers
            litellm.get_llm_provider(model)
    except BadRequestError:
        return False
    return True


def _missing_keys(model: str) -> list[str]:
    import litellm

    found = litellm.validate_environment(model)
    return [] if found["keys_in_environment"] else list(found["missing_keys"])


def _price(role: str, endpoint: Endpoint) -> Iterator[Finding]:
    if endpoint.scripted or endpoint.embedded or endpoint.price:
        return
    remedy = f"Write roles.{role}.price: {{input: ..., output: ...}} in dollars per million tokens."
    yield Finding("warning", "price", f"the {role}'s price is unknown, so the cost of the run is unknown too", remedy)
