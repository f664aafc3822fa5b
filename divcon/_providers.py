"""What LiteLLM knows of the providers of models: which there are, their keys and their prices."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

DEFAULT_MODEL = "openai/gpt-4.1-mini"  # splits and answers where nobody names another
_KEYLESS = ("embedded", "scripted", "hosted_vllm", "ollama", "ollama_chat")  # models of one's own


def _quiet() -> AbstractContextManager[Any]:
    """Keeps standard output clear of the list of providers that LiteLLM prints for a model that it doesn't know."""
    return contextlib.redirect_stdout(io.StringIO())


def is_known(model: str) -> bool:
    """Whether a model's name begins with a provider."""
    import litellm
    from litellm.exceptions import BadRequestError

    try:
        with _quiet():
            litellm.get_llm_provider(model)
    except BadRequestError:
        return False
    return True


def missing_keys(model: str) -> list[str]:
    """The variables of the environment that a model's provider needs and that aren't set."""
    if model.partition("/")[0] in _KEYLESS:
        return []
    import litellm

    with _quiet():
        found = litellm.validate_environment(model)
    return [] if found["keys_in_environment"] else list(found["missing_keys"])


def listed_price(model: str) -> dict[str, float] | None:
    """US dollars per million tokens, as LiteLLM's list has them; None where it doesn't know the model."""
    import litellm

    try:
        with _quiet():
            found: Mapping[str, Any] = litellm.get_model_info(model)
    except Exception:  # noqa: BLE001 - litellm raises plain Exception for a model that it doesn't know
        return None
    names = {
        "input": "input_cost_per_token",
        "cached": "cache_read_input_token_cost",
        "output": "output_cost_per_token",
    }
    price = {ours: round(1e6 * found[theirs], 6) for ours, theirs in names.items() if found.get(theirs) is not None}
    return price if price.get("input") and "output" in price else None
