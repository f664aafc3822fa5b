"""Students on a server that is started or attached to: adapters unmerged or merged, probed before use."""

from divcon.distill.serving.server._adapters import Adapter, merged_copy, read_adapter
from divcon.distill.serving.server._client import ProbeError, ServerClient, probe
from divcon.distill.serving.server._process import ServerDied, ServerError
from divcon.distill.serving.server._settings import AdapterMode

__all__ = [
    "Adapter",
    "AdapterMode",
    "ProbeError",
    "ServerClient",
    "ServerDied",
    "ServerError",
    "merged_copy",
    "probe",
    "read_adapter",
]
