"""Students on vLLM."""

from divcon.distill.serving.vllm._client import VLLMClient
from divcon.distill.serving.vllm._engine import VLLMModel
from divcon.distill.serving.vllm._software import PYTHON_VARIABLE, VLLM, ServerSettings

__all__ = ["PYTHON_VARIABLE", "VLLM", "ServerSettings", "VLLMClient", "VLLMModel"]
