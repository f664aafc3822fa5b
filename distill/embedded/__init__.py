"""The embedded default: a small base that needs no GPU, no key and no hub, and the solver adapter shipped for it."""

from divcon.distill.embedded._base import (
    EMBEDDED_BASE_ID,
    Base,
    EmbeddedBaseMissing,
    cache_folder,
    embedded_base,
    local_base,
    solver_adapter,
    solver_wording,
)
from divcon.distill.embedded._weights import LOADING, GGUFError, convert_gguf, whole_folder

__all__ = [
    "EMBEDDED_BASE_ID",
    "LOADING",
    "Base",
    "EmbeddedBaseMissing",
    "GGUFError",
    "cache_folder",
    "convert_gguf",
    "embedded_base",
    "local_base",
    "solver_adapter",
    "solver_wording",
    "whole_folder",
]
