"""Students on vLLM: a server that is started or attached to, adapters unmerged or merged, probed before use."""

from divcon.distill.vllm._adapters import Adapter, merged_copy, read_adapter
from divcon.distill.vllm._client import ProbeError, ServerClient, probe
from divcon.distill.vllm._model import VLLMBackend, VLLMModel
from divcon.distill.vllm._process import ServerDied, ServerError
from divcon.distill.vllm._provider import VLLMProvider, vllm_lm
from divcon.distill.vllm._settings import (
    PYTHON_VARIABLE,
    AdapterMode,
    Installation,
    ServerSettings,
    find_installation,
)

__all__ = [
    "PYTHON_VARIABLE",
    "Adapter",
    "AdapterMode",
    "Installation",
    "ProbeError",
    "ServerClient",
    "ServerDied",
    "ServerError",
    "ServerSettings",
    "VLLMBackend",
    "VLLMModel",
    "VLLMProvider",
    "find_installation",
    "merged_copy",
    "probe",
    "read_adapter",
    "vllm_lm",
]
