"""Students on vLLM."""

from divcon.distill.serving.server._model import VLLMBackend, VLLMModel
from divcon.distill.serving.server._settings import PYTHON_VARIABLE, Installation, ServerSettings, find_installation

__all__ = ["PYTHON_VARIABLE", "Installation", "ServerSettings", "VLLMBackend", "VLLMModel", "find_installation"]
