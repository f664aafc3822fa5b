"""The embedded engine: one base and its adapters in this process, behind `dspy.LM`.

Concurrent calls are batched. A reply depends on its own request alone, so a run that was killed and goes on in other
batches gives the same bytes: requests of one batch share a length bucket, each prompt is read alone, a step of decoding
has a multiple of `_ROWS` rows, and as many threads compute as was found to give a row the same bits in all those
batches (`steady_threads`).
That, and letting finished rows leave the batch, is why `generate()` of transformers isn't used here.
"""

from __future__ import annotations

import copy
import functools
import json
import queue
import threading
from collections import defaultdict
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from divcon.distill._control import without_control_tokens
from divcon.distill._manifest import Manifest, ManifestError, manifest_for, read_manifest
from divcon.distill.serving._finetuned import find_finetuned
from divcon.distill.serving.embedded import (
    LOADING,
    Base,
    Precision,
    WantedPrecision,
    free_memory,
    named_precision,
    precision,
    steady_threads,
    usable_cores,
)
from divcon.distill.serving.embedded._backend import EmbeddedBackend
from divcon.distill.serving.embedded._decoding import Ended, Job, decode, grouped_attention
from divcon.signatures import DivconError, FatalError

# A batch has a multiple of so many rows, filled up with copies.
_ROWS = 8
# A GPU writes a token of hundreds of rows in the time of one. So batches are larger there, prompts of more lengths
# share one, and more of them are read at once.
_BATCH, _BATCH_ON_GPU = 64, 256
_SHORTEST_ON_GPU = 256  # tokens; longer prompts share a batch with those of up to twice their length
_READ_ON_GPU = 16_384  # tokens
_ATTENTION = "divcon_grouped"
_IDLE = 2.0  # seconds without work after which the worker thread ends, and its OpenMP threads with it
_GATHER = 0.02  # seconds without a new arrival after which a batch that isn't full starts


class NoRoom(FatalError):
    """A GPU's memory is too small for a base."""


class EmbeddedModel:
    """A base model in this process, with any number of adapters. Weights load with the first request.

    An adapter is merged into a copy of the layers it touches: on a CPU an unmerged one doubles the time of a token.

    Args:
        base: The base model.
        batch_size: The most rows that are decoded together; by default 64, and 256 on a GPU. They are halved where a
            GPU's memory is too small for them.
        precision: What it computes in; see `divcon.distill.serving.embedded.precision`.
    """

    warms_up = False

    def __init__(self, base: Base, *, batch_size: int | None = None, precision: WantedPrecision = "auto") -> None:
        self.wanted = precision
        self.base = base
        self._batch_size = batch_size
        self._folders: dict[str, Path] = {}
        self._models: dict[str, Any] = {}
        self._tokenizer: Any = None
        self._rows = _ROWS  # a batch has a multiple of so many
        self._loading = threading.Lock()
        self._changing = threading.RLock()
        self._jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> EmbeddedModel:
        return self

    def add(self, folder: Path) -> str:
        """Make an adapter known and return the name it is served under, which carries its content hash.

        Raises:
            ManifestError: The adapter has no manifest, was changed, or was trained on another base.
        """
        name = manifest_for(folder, self.base).served_name
        self._folders[name] = folder
        return name

    def load(self, adapter: str = "") -> None:
        """Load the weights of the base or of an adapter now rather than with the first request.

        Raises:
            ManifestError: There is no such adapter.
        """
        self.require(adapter)
        with self._changing:
            self._model(adapter)

    def unload(self, adapter: str = "") -> None:
        """Free the memory of an adapter's merged weights, or of everything, once the batch under way has ended.

        The next request loads again.
        """
        with self._changing:
            if adapter:
                self._models.pop(adapter, None)
            else:
                self._models.clear()
            free_memory()

    def require(self, adapter: str) -> None:
        """Raise unless the base (an empty name) or a known adapter is meant.

        Raises:
            ManifestError: There is no such adapter.
        """
        if not adapter or adapter in self._folders:
            return
        if find_finetuned(adapter, self.add):
            return
        raise ManifestError(
            f"There is no adapter '{adapter}' in this process.", "Give its folder: embedded_lm(adapter=FOLDER)."
        )

    def manifest(self, adapter: str) -> Manifest:
        """The manifest of a known adapter."""
        return read_manifest(self._folders[adapter])

    def backend(self, name: str = "", *, pattern: str | None = None, thinks: bool = True) -> EmbeddedBackend:
        """What a role's engine asks: the base, or one of its adapters by served name; see `ServedBase.backend`.

        Raises:
            DivconError: A pattern is given; replies are held to none here.
        """
        if pattern is not None:
            raise DivconError("The embedded engine holds replies to no pattern.", "Leave out guided.")
        return EmbeddedBackend(self, name, thinks)

    def model_name(self, name: str) -> str:
        """The public name of the base (an empty name) or of an adapter: `embedded/NAME`."""
        return f"embedded/{name or 'base'}"

    def deciding(self, name: str, cap: int | None = None) -> list[Any]:
        """See `ServedBase.deciding`."""
        return [self.base.revision, *named_precision(self.precision)]

    def close(self) -> None:
        """Free the memory of the weights, which all that is served in this process share."""
        self.unload()

    def encode(self, messages: list[dict[str, str]], thinks: bool = True) -> list[int]:
        """Token ids of a chat up to where the reply begins.

        Args:
            messages: The chat.
            thinks: See `ServedBase.backend`.
        """
        plain = without_control_tokens(messages, self.tokenizer)
        told = {} if thinks else {"enable_thinking": False}
        ids: list[int] = self.tokenizer.apply_chat_template(plain, add_generation_prompt=True, **told)["input_ids"]
        return ids

    @functools.cached_property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU."""
        import torch

        return torch.cuda.is_available()

    @property
    def on_cpu(self) -> bool:
        """Whether it computes on the cores of this processor."""
        return not self.on_gpu

    @property
    def batch_size(self) -> int:
        """The most rows that are decoded together."""
        return self._batch_size or (_BATCH_ON_GPU if self.on_gpu else _BATCH)

    @property
    def tokenizer(self) -> Any:
        if self._tokenizer is None:
            with self._loading:
                if self._tokenizer is None:
                    from transformers import AutoTokenizer

                    self._tokenizer = AutoTokenizer.from_pretrained(self.base.path)
        return self._tokenizer

    @functools.cached_property
    def context_length(self) -> int:
        """The most tokens the base reads and writes together."""
        config = json.loads((self.base.path / "config.json").read_text(encoding="utf-8"))
        return int(config.get("max_position_embeddings", 2048))

    @functools.cached_property
    def precision(self) -> Precision:
        """What it computes in, which decides its replies."""
        return precision(self.wanted)

    def submit(self, job: Job) -> Future[tuple[list[int], Ended]]:
        job.done.set_running_or_notify_cancel()  # a caller who gives up leaves the batch to the others
        with self._loading:
            self._jobs.put(job)
            # A forked process has a copy of this, but not the thread.
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._work, name="divcon-embedded", daemon=True)
                self._worker.start()
        return job.done

    # -- the worker thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        waiting: dict[tuple[str, int], list[Job]] = defaultdict(list)
        while True:
            if not any(waiting.values()):
                try:
                    self._admit(waiting, self._jobs.get(timeout=_IDLE))
                except queue.Empty:
                    with self._loading:
                        if not self._jobs.empty():
                            continue
                        self._worker = None
                        return
            while max(len(jobs) for jobs in waiting.values()) < self.batch_size:
                try:
                    self._admit(waiting, self._jobs.get(timeout=_GATHER))
                except queue.Empty:
                    break
            key = max(waiting, key=lambda k: len(waiting[k]))
            batch, waiting[key] = waiting[key][: self.batch_size], waiting[key][self.batch_size :]
            try:
                waiting[key] = [*self._answer(batch), *waiting[key]]
            except BaseException as error:  # noqa: BLE001 - handed to the callers, who raise it
                for job in batch:
                    if not job.done.done():
                        job.done.set_exception(error)

    def _answer(self, batch: list[Job]) -> list[Job]:
        """Answer a batch. Returns jobs that have to be answered again, in smaller batches."""
        import torch

        # Held to the end, and no model is kept by the thread that waits, so that `unload` frees what it says.
        with self._changing:
            model = self._model(batch[0].adapter)
            try:
                if self.on_gpu:
                    decode(model, self.tokenizer, batch, min(_ROWS, self.batch_size), _READ_ON_GPU)
                    return []
                for jobs in [batch] if self._rows > 1 else [[job] for job in batch]:
                    # Eight prompts at once are read 1.2 times as fast at 128 to 192 tokens, and no faster at 320 (two
                    # cores, float32). But a single one would be read eight times, to come out as it does in company.
                    decode(model, self.tokenizer, jobs, self._rows, 0)
                return []
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
        self._batch_size = max(1, len(batch) // 2)
        free_memory()
        again = [job for job in batch if not job.done.done()]
        for job in again:
            job.begin_again()
        return again

    def _admit(self, waiting: dict[tuple[str, int], list[Job]], job: Job) -> None:
        width = job.bucket
        if self.on_gpu:
            width = max(_SHORTEST_ON_GPU, 1 << (width - 1).bit_length())
        waiting[job.adapter, width].append(job)

    def _model(self, adapter: str) -> Any:
        if adapter in self._models:
            return self._models[adapter]
        import torch

        with LOADING:
            try:
                return self._load(adapter)
            except torch.OutOfMemoryError as error:
                raise NoRoom(
                    f"The GPU's memory has no room for {self.base.id}: {str(error).partition('. ')[0]}.",
                    "End what else uses it, write roles.servers: turns, or take a smaller base.",
                ) from error

    def _load(self, adapter: str) -> Any:
        import torch
        from transformers import AttentionInterface, AutoModelForCausalLM
        from transformers.masking_utils import AttentionMaskInterface, eager_mask
        from transformers.utils import logging as transformers_logging

        if "" not in self._models:
            transformers_logging.disable_progress_bar()
            cuda = self.on_gpu
            if not cuda:
                AttentionInterface.register(_ATTENTION, grouped_attention)
                AttentionMaskInterface.register(_ATTENTION, eager_mask)
            self._models[""] = (
                AutoModelForCausalLM.from_pretrained(
                    self.base.path,
                    dtype=getattr(torch, self.precision),
                    attn_implementation="sdpa" if cuda else _ATTENTION,
                )
                .to("cuda" if cuda else "cpu")
                .eval()
            )
            if not cuda:
                self._rows = _ROWS if self._steady(self._models[""]) else 1
        if adapter not in self._models:
            from peft import PeftModel

            if not adapter.endswith(read_manifest(self._folders[adapter]).content_hash[:12]):
                raise ManifestError(
                    f"The adapter in {self._folders[adapter]} is no longer the one that {adapter} names.",
                    "It was trained anew in its place; take the new one, or train the old one again elsewhere.",
                )
            base = self._models[""]
            # Layers no adapter touches, the embeddings above all, are shared with the base.
            shared = {id(part): part for part in (base.get_input_embeddings(), base.get_output_embeddings())}
            model = PeftModel.from_pretrained(copy.deepcopy(base, shared), str(self._folders[adapter]))
            self._models[adapter] = model.merge_and_unload().eval()
        return self._models[adapter]

    def _steady(self, model: Any) -> bool:
        """Whether rows may be computed together; sets the threads with which they may."""
        sizes = range(_ROWS, -(-self.batch_size // _ROWS) * _ROWS + 1, _ROWS)
        return steady_threads(model, sizes, usable_cores(), grouped_attention) > 0


def shared_model(base: Base, wanted: WantedPrecision = "auto") -> EmbeddedModel:
    """The one engine of this process for a base and a precision: one copy of its weights, one queue, its adapters."""
    return _engine_of(base, precision(wanted))


@functools.cache
def _engine_of(base: Base, precision: Precision) -> EmbeddedModel:
    return EmbeddedModel(base, precision=precision)
