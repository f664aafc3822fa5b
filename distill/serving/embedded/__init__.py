"""The embedded default: a small base that needs no GPU, no key and no hub, and the solver adapter shipped for it."""

from divcon.distill.serving.embedded import _waiting
from divcon.distill.serving.embedded._base import (
    EMBEDDED_BASE_ID,
    Base,
    EmbeddedBaseMissing,
    cache_folder,
    embedded_base,
    is_converted,
    local_base,
    require_hub_name,
    require_weights,
    solver_adapter,
    solver_wording,
)
from divcon.distill.serving.embedded._decoding import BUCKET
from divcon.distill.serving.embedded._precision import (
    Precision,
    WantedPrecision,
    cpu_has_bfloat16,
    named_precision,
    precision,
    usable_cores,
)
from divcon.distill.serving.embedded._speed import Speed, speed
from divcon.distill.serving.embedded._steady import steady_threads
from divcon.distill.serving.embedded._waiting import inherited
from divcon.distill.serving.embedded._weights import LOADING, GGUFError, convert_gguf, free_memory, whole_folder

# Here, because whatever of this package imports torch imports this first.
_waiting.wait_briefly()

__all__ = [
    "BUCKET",
    "EMBEDDED_BASE_ID",
    "LOADING",
    "Base",
    "EmbeddedBaseMissing",
    "GGUFError",
    "Precision",
    "Speed",
    "WantedPrecision",
    "cache_folder",
    "convert_gguf",
    "cpu_has_bfloat16",
    "embedded_base",
    "free_memory",
    "inherited",
    "is_converted",
    "local_base",
    "named_precision",
    "precision",
    "require_hub_name",
    "require_weights",
    "solver_adapter",
    "solver_wording",
    "speed",
    "steady_threads",
    "usable_cores",
    "whole_folder",
]
