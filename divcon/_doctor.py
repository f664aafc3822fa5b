"""The doctor: check everything that a pipeline needs, before a call is paid for."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from packaging.requirements import Requirement

from divcon._data import lacking_references, too_few_steps, too_long_to_learn
from divcon._providers import is_known, missing_keys
from divcon.benchmarks import RowFields, read_recording
from divcon.benchmarks.arms import UNTUNED, UNTUNED_SOLVES
from divcon.benchmarks.tasks import TASKS, load_task
from divcon.config import Endpoint, Pipeline
from divcon.distill import OPTIMIZER_EXTRAS, ManifestError, is_trained, local_base, optimizer_name, read_manifest
from divcon.distill._proxies import unusable_proxy
from divcon.distill.executors import EXECUTORS
from divcon.distill.serving import ENGINES, AnyServerSettings, Finding
from divcon.distill.serving.embedded import (
    Base,
    cache_folder,
    precision,
    require_hub_name,
    require_weights,
    usable_cores,
)
from divcon.distill.serving.server import KeyRefused, ServerClient, ServerError, ServerUnreachable, WrongAddress
from divcon.signatures import DivconError

_ROOM = 2e9  # free bytes on disk; with less there is a warning, and with less than a tenth of it a failure


def diagnose(
    pipeline: Pipeline,
    folder: Path,
    *,
    asks: tuple[str, ...] = ("teacher", "solver", "decomposer"),
    data: bool = True,
) -> Iterator[Finding]:
    """Check everything that a pipeline needs, the cheap checks first.

    Args:
        pipeline: The pipeline.
        folder: Its run folder, which need not be there.
        asks: The roles whose models will be called; the endpoints of other roles aren't checked.
        data: Whether to load the questions and check them.
    """
    yield from _whatever_happens("packages", lambda: _packages(pipeline))
    yield from _whatever_happens("device", lambda: [_device(pipeline)])
    yield from _whatever_happens("disk", lambda: _disk(folder))
    yield from _whatever_happens("optimizer", lambda: _optimizer(pipeline))
    if data:
        yield from _whatever_happens("data", lambda: _data(pipeline))
    if pipeline.tracking is not None:
        uri = pipeline.tracking.mlflow
        yield from _whatever_happens("tracking", lambda: [_tracking(uri)])
    for name in pipeline.evaluate.recorded:
        yield from _whatever_happens("recorded", functools.partial(_recording, pipeline, name))
    if pipeline.only_recorded:
        return
    yield from _whatever_happens("base", lambda: _base(pipeline, folder))
    for role, endpoint in (("teacher", pipeline.roles.teacher), ("solver", pipeline.roles.solver)):
        if role in asks:
            check = _own_model if endpoint.base is not None else _endpoint
            yield from _whatever_happens(role, functools.partial(check, role, endpoint))
        yield from _price(role, endpoint)
    if "decomposer" in asks:
        yield from _whatever_happens("decomposer", lambda: _student(pipeline))
    yield from _whatever_happens("servers", lambda: _servers(pipeline))


def _whatever_happens(what: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of a check. An error that it doesn't expect is a finding too, and the other checks go on."""
    try:
        yield from check()
    except DivconError as error:
        yield Finding("failure", what, error.problem, error.remedy)
    except Exception as error:  # noqa: BLE001 - a doctor that falls ill helps nobody
        said = " ".join(str(error).split())[:300]
        yield Finding("failure", what, f"the check itself failed: {type(error).__name__}: {said}", "Report it.")


def _optimizer(pipeline: Pipeline) -> Iterator[Finding]:
    if pipeline.compile.optimizer != "none":
        optimizer_name(pipeline.compile.optimizer)
    return iter(())


def _data(pipeline: Pipeline) -> Iterator[Finding]:
    loaded = load_task(pipeline.task)
    failure = lacking_references(pipeline, [*loaded.train, *loaded.test]) or too_long_to_learn(pipeline, loaded.train)
    if failure is not None:
        yield failure
        return
    counts = f"{len(loaded.train)} training and {len(loaded.test)} test questions of {pipeline.task.name}"
    yield Finding("ok", "data", "; ".join([counts, *loaded.about_overlap()]))
    if (few := too_few_steps(pipeline, len(loaded.train))) is not None:
        yield few


def _recording(pipeline: Pipeline, name: str) -> Iterator[Finding]:
    arm = pipeline.evaluate.recorded[name]
    found = read_recording(arm.path, arm.fields, "reply", f"evaluate.recorded.{name}")
    yield Finding("ok", "recorded", f"{name}: {len(found.rows):,} replies in {found.file.name}")


def _tracking(uri: str) -> Finding:
    """Whether MLflow can write there. Nothing is written."""
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        client = ServerClient(uri, timeout=10.0)
        with client.explained("say how it is"):
            answer = client.http.get(f"{client.api_base}/health")
        text = f"{uri} answers {answer.status_code}"
        if answer.status_code < 400 or answer.status_code in (401, 403):
            return Finding("ok", "tracking", text)
        remedy = "Check that tracking.mlflow is the address of an MLflow server."
        return Finding("failure" if answer.status_code >= 500 else "warning", "tracking", text, remedy)
    if scheme in ("file", ""):
        folder = Path(uri.removeprefix("file:")).absolute()
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if not there.is_dir() or not os.access(there, os.W_OK):
            return Finding("failure", "tracking", f"{there} is no folder that can be written to", "Choose another.")
        return Finding("ok", "tracking", f"the folder {folder}")
    if scheme.partition("+")[0] in ("sqlite", "postgresql", "mysql", "mssql"):
        if importlib.util.find_spec("sqlalchemy") is None:
            text = f"{scheme} needs SQLAlchemy, which isn't installed"
            return Finding("failure", "tracking", text, "pip install mlflow, or give a folder or a server.")
        return Finding("ok", "tracking", f"a database ({scheme}); it wasn't asked")
    if scheme.startswith("databricks") or uri.startswith("databricks"):
        return Finding("ok", "tracking", "Databricks; it wasn't asked")
    return Finding("failure", "tracking", f"MLflow writes to no '{scheme}:'", "Give a folder (file:...) or a server.")


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
        return Finding(
            "ok",
            "device",
            f"{torch.cuda.get_device_name(0)}, {room:.0f} GB free; training and what is embedded run there",
        )
    cores = usable_cores()
    roles = pipeline.roles
    if roles.decomposer.base != "embedded":
        return Finding(
            "warning", "device", f"no GPU that torch sees; training runs on {cores} CPU cores", "Expect hours."
        )
    if any(role.serve == "embedded" and role.base not in (None, "embedded") for role in (roles.teacher, roles.solver)):
        text = f"no GPU that torch sees; a model of your own runs on {cores} CPU cores"
        return Finding("warning", "device", text, "Expect hours, or take a small one.")
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
    base = _found_base("base", name)
    if isinstance(base, Finding):
        yield base
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


def _found_base(what: str, name: str) -> Base | Finding:
    """A base that is here, or a finding: it is at the hub, or nowhere."""
    if name != "embedded" and not Path(name).is_dir():
        require_hub_name(name)
        lacking = _lacking_in_cache(name)
        if lacking is not None:
            return _at_the_hub(what, name, lacking)
    try:
        return local_base(name)
    except DivconError as error:
        return Finding("failure", what, error.problem, error.remedy)


def _student(pipeline: Pipeline) -> Iterator[Finding]:
    """The engine that serves the students, and whether a running server has their base, where an arm asks it."""
    student = pipeline.roles.decomposer
    yield from ENGINES[student.serve].examine(student.server)
    if {UNTUNED.name, UNTUNED_SOLVES.name} & set(pipeline.arms):
        yield from _lacks_base("decomposer", student.base, student.server)


def _lacks_base(role: str, base: str, server: AnyServerSettings | None) -> Iterator[Finding]:
    """A failure, where a running server doesn't serve a base that it will be asked for."""
    if server is None or server.api_base is None or isinstance(found := _found_base(role, base), Finding):
        return
    client = ServerClient(server.api_base, os.environ.get(server.api_key_env or server.key_variable), timeout=10.0)
    with contextlib.suppress(ServerError):  # who can't be reached has been named
        if client.name_of(found.id) is None:
            text = f"{client.api_base} doesn't serve '{found.id}'; it serves {', '.join(client.names()) or 'nothing'}"
            yield Finding("failure", role, text, f"Correct roles.{role}.server.api_base, or start one with this base.")


def _own_model(role: str, endpoint: Endpoint) -> Iterator[Finding]:
    """A base that divcon serves for the teacher or the solver."""
    assert endpoint.base is not None
    base, engine = _found_base(role, endpoint.base), ENGINES[endpoint.serve]
    if isinstance(base, Finding):
        yield base
    else:
        yield Finding("ok", role, f"{base.id}, {base.revision[:24]} ({engine.where})")
    for found in engine.examine(endpoint.server):
        yield replace(found, what=role)
    yield from _lacks_base(role, endpoint.base, endpoint.server)


def _servers(pipeline: Pipeline) -> Iterator[Finding]:
    """Whether what is loaded together claims more than there is."""
    roles, student = pipeline.roles, pipeline.roles.decomposer
    own = [one for one in (roles.teacher.own, (student.base, student.serve, student.server), roles.solver.own) if one]
    apart = [one for at, one in enumerate(own) if one not in own[:at]]
    greedy = any(
        serve == "vllm" and not (server and (server.api_base or "gpu-memory-utilization" in server.arguments))
        for _, serve, server in apart
    )
    if not (greedy and len(apart) > 1 and roles.servers == "together"):
        return
    import torch

    if torch.cuda.is_available():
        text = f"{len(apart)} models share this GPU, and a vLLM server takes nine tenths of it unless it is told less"
        remedy = "Give each role server: {arguments: {gpu-memory-utilization: ...}}, or write roles.servers: turns."
        yield Finding("warning", "servers", text, remedy)


def _lacking_in_cache(name: str) -> str | None:
    """What the hub's cache lacks of a base, in words; None where nothing is missing."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json")
    if not isinstance(config, str):
        return f"{name} isn't in the hub's cache"
    try:
        require_weights(Path(config).parent)
    except DivconError as error:
        return f"the hub's cache has {name} without its weights: {error.problem.rstrip('.')}"
    return None


def _at_the_hub(what: str, name: str, lacking: str) -> Finding:
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        text = f"{lacking}, and HF_HUB_OFFLINE forbids to fetch it"
        return Finding("failure", what, text, "Unset HF_HUB_OFFLINE, or give a folder.")
    from huggingface_hub import model_info

    try:
        model_info(name, timeout=10.0)
    except (OSError, ValueError, httpx.HTTPError) as error:
        said = " ".join(str(error).split())[:200]
        remedy = "Write 'embedded', a folder that is there, or the name of a model at the hub."
        return Finding("failure", what, f"{lacking}, and the hub gives no such model: {said}", remedy)
    return Finding("ok", what, f"{name} is downloaded when the run begins")


def _endpoint(role: str, endpoint: Endpoint) -> Iterator[Finding]:
    model = endpoint.model or ""
    if endpoint.path is not None:
        found = read_recording(endpoint.path, endpoint.fields or RowFields(), "subquestions", "roles.teacher")
        yield Finding("ok", role, f"{endpoint.name} (recorded), {len(found.rows):,} plans in {found.file.name}")
        return
    if endpoint.scripted or endpoint.embedded:
        kind = "scripted, not a model" if endpoint.scripted else "in this process"
        yield Finding("ok", role, f"{model} ({kind})")
        return
    name = model.partition("/")[2]
    key = os.environ.get(endpoint.api_key_env) if endpoint.api_key_env else None
    address = endpoint.api_base or _usual_address(model)
    if (variable := unusable_proxy(address or "https://api.openai.com")) is not None:
        text = f"{variable} names a proxy that isn't HTTP's, and the clients of models can use no other"
        remedy = "Name an HTTP proxy, or have NO_PROXY exempt the server."
        yield Finding("failure", role, text, remedy)
        return
    if address:
        yield _reached(role, ServerClient(address, key or _usual_key(model), timeout=10.0), name, model)
        return
    if not is_known(model):
        remedy = f"Correct roles.{role}.model: a provider's name, a slash and the model."
        yield Finding("failure", role, f"LiteLLM knows no provider for {model}", remedy)
        return
    missing = [] if key else missing_keys(model)
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
        refused = isinstance(error, (ServerUnreachable, KeyRefused, WrongAddress))
        return Finding("failure" if refused else "warning", what, error.problem, error.remedy)
    if name in served:
        return Finding("ok", what, f"{client.api_base} serves {name}")
    text = f"{client.api_base} doesn't serve '{name}'; it serves {', '.join(served[:6]) or 'nothing'}"
    return Finding(
        "failure" if model.startswith("hosted_vllm/") else "warning", what, text, f"Correct roles.{what}.model."
    )


def _usual_address(model: str) -> str | None:
    """The address that the environment names for all models of a provider, where DSPy sends its calls to it."""
    prefix = model.partition("/")[0].upper()
    return os.environ.get(f"{prefix}_API_BASE") or os.environ.get(f"{prefix}_BASE_URL")


def _usual_key(model: str) -> str | None:
    return os.environ.get("OPENAI_API_KEY") if model.startswith("openai/") else None


def _price(role: str, endpoint: Endpoint) -> Iterator[Finding]:
    if not endpoint.asked or endpoint.ours or endpoint.price:
        return
    remedy = f"Write roles.{role}.price: {{input: ..., output: ...}} in dollars per million tokens."
    yield Finding("warning", "price", f"the {role}'s price is unknown, so the cost of the run is unknown too", remedy)
