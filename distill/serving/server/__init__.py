"""Students on a server that is started or attached to: adapters unmerged or merged, probed before use.

An engine for another software derives `ServerSoftware` and `AdapterClient`, and makes a `ServerEngine` of them.
"""

from divcon.distill.serving._settings import AnyServerSettings
from divcon.distill.serving.server._adapters import Adapter, merged_copy, read_adapter
from divcon.distill.serving.server._causes import Causes
from divcon.distill.serving.server._checks import Probed, probe, require_apart
from divcon.distill.serving.server._client import AdapterClient, ServerClient
from divcon.distill.serving.server._engine import ServerEngine, server_engine
from divcon.distill.serving.server._errors import (
    KeyRefused,
    ProbeError,
    ServerDied,
    ServerError,
    ServerUnreachable,
    WrongAddress,
)
from divcon.distill.serving.server._installation import Installation
from divcon.distill.serving.server._model import ServedModel
from divcon.distill.serving.server._process import HOST
from divcon.distill.serving.server._software import Launch, ServerSoftware

__all__ = [
    "HOST",
    "Adapter",
    "AdapterClient",
    "AnyServerSettings",
    "Causes",
    "Installation",
    "KeyRefused",
    "Launch",
    "ProbeError",
    "Probed",
    "ServedModel",
    "ServerClient",
    "ServerDied",
    "ServerEngine",
    "ServerError",
    "ServerSoftware",
    "ServerUnreachable",
    "WrongAddress",
    "merged_copy",
    "probe",
    "read_adapter",
    "require_apart",
    "server_engine",
]
