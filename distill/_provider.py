"""A DSPy LM on the embedded engine, with a provider that fine-tunes it with LoRA.

It supports `lm.finetune`, `lm.launch`, `lm.kill` and DSPy's BootstrapFinetune. DSPy's own local provider needs SGLang
and trains all weights.
"""

from __future__ import annotations

import functools
import hashlib
import threading
import warnings
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import dspy
from dspy._vendor.lm15.serde import request_to_dict
from dspy.clients.provider import Provider, TrainingJob
from dspy.clients.utils_finetune import TrainDataFormat, TrainingStatus
from dspy.lm15 import Request, Response, response_to_events
from filelock import FileLock
from pydantic import ValidationError

from divcon.distill._files import render_lines, write_whole
from divcon.distill._manifest import ManifestError, prompt_hash
from divcon.distill._paths import expanded_path
from divcon.distill._rollouts import RolloutNote, next_rollout
from divcon.distill._store import fingerprint
from divcon.distill.serving._finetuned import finetuned_folder
from divcon.distill.serving.embedded import local_base
from divcon.distill.serving.embedded._model import EmbeddedModel, shared_model
from divcon.distill.training import (
    Provenance,
    Training,
    TrainingError,
    TrainingStopped,
    TrainSettings,
    already_trained,
    train_adapter,
)
from divcon.signatures import refusal

_PREFIX = "embedded/"


class PromptDrift(UserWarning):
    """An adapter gets another instruction than it was trained with."""


class EmbeddedEngine:
    """The engine of a `dspy.LM` that is served in this process. The request's `model` names the base or an adapter.

    The engine holds a name and no weights, so an LM with it can be copied, pickled and saved.

    Args:
        base: `embedded`, a folder, or a hub name.
    """

    def __init__(self, base: str = "embedded") -> None:
        self.base = base
        self._checked: set[str] = set()

    def __reduce__(self) -> Any:
        return type(self), (self.base,)

    def __deepcopy__(self, memo: dict[int, Any]) -> EmbeddedEngine:
        return self

    @functools.cached_property
    def model(self) -> EmbeddedModel:
        return shared_model(local_base(self.base))

    def complete(self, request: Request) -> Response:
        adapter = self._adapter(request)
        return self.model.backend(adapter).complete(request, next_rollout(fingerprint(request_to_dict(request))))

    def stream(self, request: Request) -> Iterator[Any]:
        yield from response_to_events(self.complete(request))

    def close(self) -> None:
        """Does nothing: all LMs of the process share the weights."""

    def dump_state(self) -> dict[str, Any]:
        """DSPy's hook for saving an LM."""
        return {"base": self.base}

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> EmbeddedEngine:
        """DSPy's hook for loading one."""
        return cls(**state)

    def _adapter(self, request: Request) -> str:
        adapter = served_lora(request.model)
        self.model.require(adapter)
        if adapter and adapter not in self._checked:
            system = [{"role": "system", "content": str(request.system or "")}] if request.system is not None else []
            if prompt_hash([system]) != self.model.manifest(adapter).prompt_hash:
                warnings.warn(
                    f"The adapter {adapter} is asked with another instruction than it was trained with; give the "
                    "training the predictor's own adapter, as in BootstrapFinetune(adapter=CompactAdapter()).",
                    PromptDrift,
                    stacklevel=2,
                )
            self._checked.add(adapter)
        return adapter


class AsyncEmbeddedEngine:
    """The async half of `EmbeddedEngine`."""

    def __init__(self, base: str = "embedded") -> None:
        self.sync = EmbeddedEngine(base)

    def __reduce__(self) -> Any:
        return type(self), (self.sync.base,)

    def __deepcopy__(self, memo: dict[int, Any]) -> AsyncEmbeddedEngine:
        return self

    async def complete(self, request: Request) -> Response:
        adapter = self.sync._adapter(request)
        rollout = next_rollout(fingerprint(request_to_dict(request)))
        return await self.sync.model.backend(adapter).acomplete(request, rollout)

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        for event in response_to_events(await self.complete(request)):
            yield event

    async def aclose(self) -> None:
        """See `EmbeddedEngine.close`."""

    def dump_state(self) -> dict[str, Any]:
        """DSPy's hook for saving an LM."""
        return self.sync.dump_state()

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> AsyncEmbeddedEngine:
        """DSPy's hook for loading one."""
        return cls(**state)


def embedded_lm(
    base: str = "embedded",
    *,
    adapter: Path | str | None = None,
    temperature: float = 0.0,
    max_tokens: int = 256,
    train_kwargs: dict[str, Any] | None = None,
) -> dspy.LM:
    """A `dspy.LM` on the embedded engine, which can be fine-tuned.

    Args:
        base: `embedded`, a folder, or a hub name.
        adapter: A trained adapter's folder; None for the base as it is.
        temperature: 0 is greedy.
        max_tokens: The largest number of tokens in a reply.
        train_kwargs: The fields of `TrainSettings`, for `lm.finetune`.

    Raises:
        ManifestError: The folder holds no adapter, or an adapter for another base.
        TrainingError: `train_kwargs` can't be trained with.
    """
    provider = EmbeddedProvider(base)
    provider.settings_of(train_kwargs)  # an optimizer pays for its rows before it trains on them
    name = shared_model(local_base(base)).add(expanded_path(adapter)) if adapter is not None else "base"
    return dspy.LM(
        f"{_PREFIX}{name}",
        engine=EmbeddedEngine(base),
        async_engine=AsyncEmbeddedEngine(base),
        provider=provider,
        finetuning_model=f"{_PREFIX}base",  # an adapter is always trained from the base, never on top of another
        train_kwargs=train_kwargs,
        cache=False,  # DSPy's cache has the model's name as its key, and pickles its entries
        num_retries=0,
        temperature=temperature,
        max_tokens=max_tokens,
        callbacks=[RolloutNote()],
    )


def served_lora(model: str) -> str:
    """The served adapter's name in an LM's `model`; empty for the base."""
    name = model.removeprefix(_PREFIX)
    return "" if name == "base" else name


class LoRAJob(TrainingJob):
    """A running fine-tuning: a future that returns the trained LM, or raises the error."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.stop = threading.Event()
        self.steps = (0, 0)

    def status(self) -> TrainingStatus:
        """The state of the training; the attribute `steps` is the number of steps as (done, total)."""
        if not self.done():
            return TrainingStatus.running if self.steps[0] else TrainingStatus.pending
        outcome = super().result()
        if isinstance(outcome, TrainingStopped):
            return TrainingStatus.cancelled
        return TrainingStatus.failed if isinstance(outcome, Exception) else TrainingStatus.succeeded

    def cancel(self) -> bool:
        """Stop after the current step. A later call with the same rows and settings resumes the training.

        Returns:
            False where the job has already ended.
        """
        if self.done():
            return False
        self.stop.set()
        return True

    def cancelled(self) -> bool:
        """Whether it ended because it was stopped."""
        return self.done() and self.status() is TrainingStatus.cancelled

    def result(self, timeout: float | None = None) -> Any:
        """The trained LM.

        Raises:
            CancelledError: The job was cancelled.
            DivconError: The job failed. (DSPy's own job returns the error as its result.)
        """
        try:
            outcome = super().result(timeout)
        except KeyboardInterrupt:
            self.cancel()
            raise
        if isinstance(outcome, TrainingStopped):
            raise CancelledError(str(outcome)) from outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error of the job, or None."""
        outcome = super().result(timeout)
        return outcome if isinstance(outcome, Exception) else None


class LoRAProvider(Provider):
    """Fine-tunes a base with LoRA on this machine; subclasses serve the trained adapter.

    Args:
        base: `embedded`, a folder, or a hub name.
        folder: Where rows and adapters are kept; the cache folder by default.
    """

    def __init__(self, base: str = "embedded", folder: Path | None = None) -> None:
        super().__init__()
        self.finetunable = True
        self.TrainingJob = LoRAJob
        self.base = base
        self.folder = None if folder is None else expanded_path(folder)

    def served(self, adapter: Path) -> str:
        """The `model` of an LM that a trained adapter answers."""
        raise NotImplementedError

    def check(self, settings: TrainSettings) -> None:
        """Raise an error, before training, where an adapter with these settings couldn't be served."""

    def settings_of(self, train_kwargs: dict[str, Any] | None) -> TrainSettings:
        """The settings of a training, checked.

        Raises:
            TrainingError: They can't be trained with.
            ServerError: An adapter with these settings couldn't be served.
        """
        try:
            settings = TrainSettings(**(train_kwargs or {}))
        except ValidationError as error:
            raise TrainingError(f"train_kwargs: {refusal(error)}.", "See divcon.TrainSettings.") from error
        self.check(settings)
        return settings

    def finetune(
        self,
        job: LoRAJob,
        model: str,
        train_data: list[dict[str, Any]],
        train_data_format: TrainDataFormat | str | None,
        train_kwargs: dict[str, Any] | None = None,
    ) -> str:
        """Train a LoRA adapter on chats and return the name it is served under.

        An adapter already trained on the same rows and settings is returned as it is. A training that was stopped is
        resumed.

        Args:
            job: The job of this training; setting its `stop` stops the training.
            model: Not used: an adapter is always trained from the base.
            train_data: Rows of `{"messages": [...]}`, whose last message is the reply to learn.
            train_data_format: Only `chat`.
            train_kwargs: The fields of `TrainSettings`.

        Raises:
            TrainingError: The rows, the format or the settings can't be trained with.
            TrainingStopped: The job was cancelled.
        """
        if train_data_format is not None and TrainDataFormat(train_data_format) is not TrainDataFormat.CHAT:
            raise TrainingError(f"A local model learns from chats, not from {train_data_format}.", "Give chats.")
        settings = self.settings_of(train_kwargs)
        base = local_base(self.base)
        text = render_lines([_row(number, data) for number, data in enumerate(train_data, 1)])
        named = fingerprint(hashlib.sha256(text.encode()).hexdigest(), settings.deciding(), base.revision)
        root = self.folder or finetuned_folder()
        rows, output = root / f"{named}.jsonl", root / named

        def progress(done: int, total: int, loss: float) -> None:
            job.steps = (done, total)

        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{named}.lock"):  # threads and processes do the same training once
            write_whole(rows, text)
            training = Training(rows, base, output, settings)
            try:
                trained = already_trained(training)
            except ManifestError as error:
                raise TrainingError(f"The trained adapter can't be used: {error}", f"Remove {output}.") from error
            if trained is None:
                train_adapter(training, Provenance(student="tuned"), progress=progress, stop=job.stop)
        return self.served(output)


class EmbeddedProvider(LoRAProvider):
    """Fine-tunes an embedded base with LoRA, and serves the trained adapter in this process.

    Args:
        base: `embedded`, a folder, or a hub name.
        folder: Where rows and adapters are kept; the cache folder by default.
    """

    @staticmethod
    def is_provider_model(model: str) -> bool:
        return model.startswith(_PREFIX)

    def served(self, adapter: Path) -> str:
        """See `LoRAProvider.served`."""
        return f"{_PREFIX}{shared_model(local_base(self.base)).add(adapter)}"

    def launch(self, lm: dspy.LM, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Load the weights, unless they are loaded.

        Raises:
            ManifestError: The LM names an unknown adapter.
        """
        shared_model(local_base(self.base)).load(served_lora(lm.model))

    def kill(self, lm: dspy.LM, launch_kwargs: dict[str, Any] | None = None) -> None:
        """Free the memory of the LM's weights, if they are loaded."""
        shared_model(local_base(self.base)).unload(served_lora(lm.model))


def _row(number: int, data: Any) -> dict[str, Any]:
    messages = data.get("messages") if isinstance(data, dict) else None
    turns = [one for one in messages if isinstance(one, dict)] if isinstance(messages, list) else []
    if len(turns) < 2 or turns != messages or turns[-1].get("role") != "assistant":
        raise TrainingError(
            f"Training row {number} is no chat that ends with the assistant's message.",
            "Give rows in the form that adapter.format_finetune_data returns.",
        )
    return {"prompt": turns[:-1], "completion": turns[-1:]}
