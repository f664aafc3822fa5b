"""A DSPy LM on vLLM: a plain `dspy.LM` over HTTP, with a provider that starts the server and fine-tunes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dspy
from pydantic import ValidationError

from divcon.distill._manifest import ManifestError
from divcon.distill._paths import expanded_path
from divcon.distill._provider import LoRAProvider
from divcon.distill._store import fingerprint
from divcon.distill.serving import AdapterMode
from divcon.distill.serving._finetuned import find_finetuned
from divcon.distill.serving.embedded import Base, local_base
from divcon.distill.serving.server import ServerError, read_adapter
from divcon.distill.serving.vllm import VLLM, ServerSettings, VLLMModel
from divcon.distill.training import TrainSettings
from divcon.signatures import refusal

_VLLM = VLLM()
_PREFIX = f"{_VLLM.provider}/"


class VLLMProvider(LoRAProvider):
    """Serves an LM's base or adapter with vLLM, and fine-tunes the base with LoRA.

    `lm.launch()` starts the server (or loads the adapter into a running one), probes the adapter and sets the LM's
    address. `lm.kill()` stops the server. Copies of an LM share the server. It stops with this process at the latest.

    Args:
        base: `embedded`, a folder, or a hub name.
        settings: The server's settings; `launch_kwargs` of an LM override them.
        adapter: How adapters are served; see `VLLMModel`.
        folder: Where fine-tuned adapters are kept; the cache folder by default.
    """

    def __init__(
        self,
        base: str = "embedded",
        settings: ServerSettings | None = None,
        adapter: AdapterMode = "auto",
        folder: Path | None = None,
    ) -> None:
        super().__init__(base, folder)
        self.settings = settings or ServerSettings()
        self.adapter = adapter
        self.known: dict[str, Path] = {}

    @staticmethod
    def is_provider_model(model: str) -> bool:
        return model.startswith(_PREFIX)

    def check(self, settings: TrainSettings) -> None:
        """See `LoRAProvider.check`.

        Raises:
            ServerError: The rank is higher than vLLM supports, or higher than the server's `max-lora-rank`.
        """
        allowed = int(self.settings.arguments.get(_VLLM.rank_argument, _VLLM.ranks[-1]))
        if settings.rank > allowed and self.adapter == "lora":
            raise ServerError(
                f"train_kwargs: rank {settings.rank} is over {allowed}, the highest that the server will take.",
                "Lower the rank, raise max-lora-rank, or serve the adapter merged.",
            )

    def served(self, adapter: Path) -> str:
        """See `LoRAProvider.served`.

        Raises:
            ManifestError: The folder holds no adapter of this base.
        """
        name = read_adapter(adapter, self._base, _VLLM).name
        self.known[name] = adapter
        return f"{_PREFIX}{name}"

    def launch(self, lm: dspy.LM, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Serve the model that the LM names, unless it is served, and set the LM's address.

        Args:
            lm: An LM of this provider.
            launch_kwargs: Fields of `ServerSettings` that differ from the provider's.

        Raises:
            ServerError: The server can't be started or used.
            ManifestError: The LM names an unknown adapter.
        """
        settings = self._settings({**lm.launch_kwargs, **(launch_kwargs or {})})
        name = self._served_lora(lm.model)
        model = _model(self._base, settings, self.adapter, name, self.known.get(name))
        model.start(name)
        with model.serving(name) as server:
            lm.kwargs["api_base"] = server.api_base
            lm.kwargs["api_key"] = server.client.key

    def kill(self, lm: dspy.LM, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Stop the LM's server, if it runs and no other model is launched on it."""
        _forget(self._base, self._served_lora(lm.model), lm.kwargs.get("api_base"))
        for name in ("api_base", "api_key"):
            lm.kwargs.pop(name, None)

    @property
    def _base(self) -> Base:
        return local_base(self.base)

    def _settings(self, changed: Mapping[str, Any]) -> ServerSettings:
        try:
            return ServerSettings(**{**self.settings.model_dump(), **changed})
        except ValidationError as error:
            raise ServerError(f"launch_kwargs: {refusal(error)}.", "See divcon.ServerSettings.") from error

    def _served_lora(self, model: str) -> str:
        """The adapter that an LM's `model` names; empty for the base."""
        name = model.removeprefix(_PREFIX)
        if name == self._base.id or name in self.known:
            return "" if name == self._base.id else name
        if find_finetuned(name, lambda folder: self.served(folder).removeprefix(_PREFIX), self.folder):
            return name
        raise ManifestError(f"There is no adapter '{name}'.", "Give its folder: vllm_lm(adapter=FOLDER).")


# The servers of this process by key, each with the names of the adapters launched on it ("" is the base).
_servers: dict[str, tuple[VLLMModel, set[str]]] = {}
_changing = threading.RLock()


def _key(base: Base, settings: ServerSettings, mode: AdapterMode, merged: str) -> str:
    return fingerprint(base.revision, settings.model_dump(mode="json"), mode, merged)


def _model(base: Base, settings: ServerSettings, mode: AdapterMode, name: str, folder: Path | None) -> VLLMModel:
    with _changing:
        made = VLLMModel(base, settings, adapter=mode)
        merged = ""
        if folder is not None:
            merged = made.server_of(made.add(folder))
        model, launched = _servers.setdefault(_key(base, settings, mode, merged), (made, set()))
        if folder is not None and model is not made:
            model.add(folder)
        launched.add(name)
        return model


def _forget(base: Base, name: str, address: str | None) -> None:
    with _changing:
        for key, (model, launched) in list(_servers.items()):
            if model.base.revision != base.revision or name not in launched or model.address != address:
                continue
            launched.discard(name)
            if not launched:
                del _servers[key]
                model.close()


def vllm_lm(
    base: str = "embedded",
    *,
    adapter: Path | str | None = None,
    settings: ServerSettings | None = None,
    mode: AdapterMode = "auto",
    launch: bool = True,
    temperature: float = 0.0,
    max_tokens: int = 256,
    train_kwargs: dict[str, Any] | None = None,
    **asked: Any,
) -> dspy.LM:
    """A `dspy.LM` on a vLLM server that divcon starts, or on a running one; it can be fine-tuned.

    Args:
        base: `embedded`, a folder, or a hub name.
        adapter: A trained adapter's folder; None for the base as it is.
        settings: The server's settings.
        mode: How the adapter is served; see `VLLMModel`.
        launch: Whether to start the server now; otherwise `lm.launch()` does.
        temperature: 0 is greedy.
        max_tokens: The largest number of tokens in a reply.
        train_kwargs: The fields of `TrainSettings`, for `lm.finetune`.
        asked: Further settings of the `dspy.LM`, such as `engine`.

    Raises:
        ManifestError: The folder holds no adapter, or an adapter for another base.
        ServerError: The server can't be started or used.
        TrainingError: `train_kwargs` can't be trained with.
    """
    provider = VLLMProvider(base, settings, mode)
    provider.settings_of(train_kwargs)  # an optimizer pays for its rows before it trains on them
    model = provider.served(expanded_path(adapter)) if adapter is not None else f"{_PREFIX}{local_base(base).id}"
    lm = dspy.LM(
        model,
        provider=provider,
        finetuning_model=f"{_PREFIX}{local_base(base).id}",  # always trained from the base
        train_kwargs=train_kwargs,
        cache=False,  # the key of DSPy's cache ignores the address, and its entries are pickles
        temperature=temperature,
        max_tokens=max_tokens,
        **asked,
    )
    if launch:
        lm.launch()
    return lm
