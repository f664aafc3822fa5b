"""Serve: the embedded engine, one base and its adapters in this process, behind `dspy.LM`.

Concurrent calls are batched. A reply depends on its own request alone, so a run that was killed and goes on in other
batches gives the same bytes: requests of one batch share a length bucket, a batch always has a multiple of `_ROWS`
rows, and as many threads compute as was found to give a row the same bits in all those batches (`steady_threads`).
That, and letting finished rows leave the batch, is why `generate()` of transformers isn't used here.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import hashlib
import json
import os
import queue
import random
import threading
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dspy.lm15 import Message, Request, Response, TextPart, Usage
from dspy.utils.exceptions import ContextWindowExceededError, LMInvalidRequestError

from divcon.distill._manifest import MANIFEST, Manifest, ManifestError, manifest_for, read_manifest
from divcon.distill.serving.embedded import (
    LOADING,
    Base,
    Precision,
    WantedPrecision,
    cache_folder,
    precision,
    steady_threads,
)
from divcon.signatures import DivconError

_BUCKET = 64  # prompt lengths are padded to multiples of this many tokens
# A batch has a multiple of so many rows, filled up with copies, and so many are read at once: more of them fall out of
# a CPU's caches, at half the tokens a second.
_ROWS = 8
_ATTENTION = "divcon_grouped"
_IDLE = 2.0  # seconds without work after which the worker thread ends, and its OpenMP threads with it
_GATHER = 0.02  # seconds without a new arrival after which a batch that isn't full starts


@dataclass
class _Job:
    ids: list[int]
    adapter: str
    max_tokens: int
    temperature: float
    top_p: float
    stop: tuple[str, ...]
    rng: random.Random
    done: Future[tuple[list[int], str]] = field(default_factory=Future)
    written: list[int] = field(default_factory=list)

    @property
    def bucket(self) -> int:
        return -(-len(self.ids) // _BUCKET) * _BUCKET


class EmbeddedModel:
    """A base model in this process, with any number of adapters. Weights load with the first request.

    An adapter is merged into a copy of the layers it touches: on a CPU an unmerged one doubles the time of a token.

    Args:
        base: The base model.
        batch_size: The most rows that are decoded together.
        max_tokens: The limit of a reply where the request gives none.
        precision: What it computes in; see `divcon.distill.serving.embedded.precision`.
    """

    def __init__(
        self, base: Base, *, batch_size: int = 64, max_tokens: int = 256, precision: WantedPrecision = "auto"
    ) -> None:
        self.wanted = precision
        self.base = base
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self._folders: dict[str, Path] = {}
        self._models: dict[str, Any] = {}
        self._tokenizer: Any = None
        self._rows = _ROWS  # a batch has a multiple of so many
        self._loading = threading.Lock()
        self._changing = threading.RLock()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
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
        """Free the memory of an adapter's merged weights, or of everything; the next request loads again."""
        with self._changing:
            if adapter:
                self._models.pop(adapter, None)
            else:
                self._models.clear()

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

    def backend(self, adapter: str = "") -> EmbeddedBackend:
        """What a role's engine asks: the base, or one of its adapters by served name."""
        return EmbeddedBackend(self, adapter)

    def encode(self, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of a chat up to where the reply begins."""
        ids: list[int] = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        return ids

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

    def submit(self, job: _Job) -> Future[tuple[list[int], str]]:
        job.done.set_running_or_notify_cancel()  # a caller who gives up leaves the batch to the others
        with self._loading:
            self._jobs.put(job)
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="divcon-embedded", daemon=True)
                self._worker.start()
        return job.done

    # -- the worker thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        waiting: dict[tuple[str, int], list[_Job]] = defaultdict(list)
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
                with self._changing:
                    model = self._model(batch[0].adapter)
                for jobs in [batch] if self._rows > 1 else [[job] for job in batch]:
                    self._decode(model, jobs)
            except BaseException as error:  # noqa: BLE001 - handed to the callers, who raise it
                for job in batch:
                    if not job.done.done():
                        job.done.set_exception(error)

    @staticmethod
    def _admit(waiting: dict[tuple[str, int], list[_Job]], job: _Job) -> None:
        waiting[job.adapter, job.bucket].append(job)

    def _model(self, adapter: str) -> Any:
        if adapter in self._models:
            return self._models[adapter]
        with LOADING:
            return self._load(adapter)

    def _load(self, adapter: str) -> Any:
        import torch
        from transformers import AttentionInterface, AutoModelForCausalLM
        from transformers.masking_utils import AttentionMaskInterface, eager_mask
        from transformers.utils import logging as transformers_logging

        if "" not in self._models:
            transformers_logging.disable_progress_bar()
            cuda = torch.cuda.is_available()
            if not cuda:
                AttentionInterface.register(_ATTENTION, _grouped_attention)
                AttentionMaskInterface.register(_ATTENTION, eager_mask)
            self._models[""] = AutoModelForCausalLM.from_pretrained(
                self.base.path, dtype=getattr(torch, self.precision), attn_implementation="sdpa" if cuda else _ATTENTION
            ).to("cuda" if cuda else "cpu").eval()  # fmt: skip
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
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        sizes = range(_ROWS, -(-self.batch_size // _ROWS) * _ROWS + 1, _ROWS)
        return steady_threads(model, sizes, [_BUCKET, 2 * _BUCKET, 3 * _BUCKET], cores, _grouped_attention) > 0

    def _decode(self, model: Any, batch: list[_Job]) -> None:
        import torch

        rows = list(batch)
        rows += [_filler(rows[0]) for _ in range(-len(rows) % self._rows)]
        width = batch[0].bucket
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        ids = torch.tensor([[pad] * (width - len(job.ids)) + job.ids for job in rows], device=model.device)
        mask = torch.tensor([[0] * (width - len(job.ids)) + [1] * len(job.ids) for job in rows], device=model.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        end = self.tokenizer.eos_token_id
        with torch.inference_mode():
            logits, cache = _read_prompts(model, ids, mask, positions, self._rows)
            while True:
                chosen = _choose(logits, rows)
                going: list[int] = []
                for index, (job, token) in enumerate(zip(rows, chosen, strict=True)):
                    if job.done.done():
                        going.append(index)  # a filler, or a row kept for company
                    elif token == end:
                        job.done.set_result((job.written, "stop"))
                    else:
                        job.written.append(token)
                        if len(job.written) >= job.max_tokens:
                            job.done.set_result((job.written, "length"))
                        else:
                            going.append(index)
                unfinished = [i for i in going if not rows[i].done.done()]
                if not unfinished:
                    return
                company = [i for i in range(len(rows)) if i not in unfinished][: -len(unfinished) % self._rows]
                keep = sorted(unfinished + company)
                if len(keep) < len(rows):
                    index = torch.tensor(keep, device=model.device)
                    cache.batch_select_indices(index)
                    mask, positions = mask[index], positions[index]
                    rows, chosen = [rows[i] for i in keep], [chosen[i] for i in keep]
                ids = torch.tensor(chosen, device=model.device)[:, None]
                mask = torch.cat([mask, torch.ones_like(mask[:, :1])], 1)
                positions = positions[:, -1:] + 1
                logits = model(
                    input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache,
                    use_cache=True, logits_to_keep=1,
                ).logits[:, -1]  # fmt: skip


def _read_prompts(model: Any, ids: Any, mask: Any, positions: Any, at_once: int) -> tuple[Any, Any]:
    """The logits after each prompt, and one cache for all of them; read `at_once` rows at a time."""
    import torch
    from transformers import DynamicCache

    logits, parts = [], []
    for start in range(0, len(ids), at_once):
        some = slice(start, start + at_once)
        parts.append(DynamicCache(config=model.config))
        out = model(
            input_ids=ids[some], attention_mask=mask[some], position_ids=positions[some], past_key_values=parts[-1],
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        logits.append(out.logits[:, -1])
    whole = DynamicCache(config=model.config)
    for number in range(len(parts[0].layers)):
        layers = [part.layers[number] for part in parts]
        whole.update(torch.cat([x.keys for x in layers]), torch.cat([x.values for x in layers]), number)
    return torch.cat(logits), whole


def _grouped_attention(
    module: Any, query: Any, key: Any, value: Any, attention_mask: Any, scaling: float, **kwargs: Any
) -> tuple[Any, None]:
    """Attention in which query heads that share keys are one matrix product.

    On a CPU, torch 2.13's fused kernel takes half of a bfloat16 decoding step, and the plain implementation copies
    the keys once a head; this is 1.3 to 1.5 times as fast as the plain one (64 rows, 200 tokens).

    Args:
        query: (rows, heads, tokens, width).
        key: (rows, key heads, all tokens, width), and so is `value`.
        attention_mask: Added to the scores: (rows, 1, tokens, all tokens).
    """
    import torch

    rows, heads, tokens, width = query.shape
    groups = key.shape[1]
    shared = query.reshape(rows, groups, heads // groups * tokens, width)
    scores = torch.matmul(shared, key.transpose(-1, -2)).mul_(scaling).view(rows, groups, -1, tokens, key.shape[2])
    if attention_mask is not None:
        scores = scores + attention_mask[:, :, None, :, : key.shape[2]]
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = torch.matmul(weights.view(rows, groups, -1, key.shape[2]), value)
    return mixed.view(rows, heads, tokens, width).transpose(1, 2).contiguous(), None


def _filler(job: _Job) -> _Job:
    done: Future[tuple[list[int], str]] = Future()
    done.set_result(([], "stop"))
    return _Job(job.ids, job.adapter, job.max_tokens, 0.0, 1.0, (), random.Random(0), done)


def _choose(logits: Any, rows: list[_Job]) -> list[int]:
    """The next token of every row: the likeliest, or one drawn by inverse CDF with the row's own random numbers."""
    import torch

    chosen: list[int] = logits.argmax(-1).tolist()
    for index, job in enumerate(rows):
        if job.temperature <= 0:
            continue
        probabilities = torch.softmax(logits[index].float() / job.temperature, -1)
        ordered, tokens = probabilities.sort(descending=True, stable=True)
        cumulative = ordered.cumsum(-1)
        within = int((cumulative < job.top_p).sum()) + 1 if job.top_p < 1 else len(tokens)
        draw = job.rng.random() * float(cumulative[min(within, len(tokens)) - 1])
        chosen[index] = int(tokens[min(int((cumulative < draw).sum()), len(tokens) - 1)])
    return chosen


def finetuned_folder() -> Path:
    """Where `lm.finetune` keeps its adapters, to be found by name in a later process."""
    return cache_folder() / "finetuned"


def find_finetuned(name: str, add: Callable[[Path], str], folder: Path | None = None) -> bool:
    """Look for an adapter that `lm.finetune` trained in an earlier process; an LM from a file has its name alone.

    Args:
        name: The name it is served under.
        add: Makes an adapter known and gives its name.
        folder: Where it is looked for; `finetuned_folder` by default.
    """
    for manifest in sorted((folder or finetuned_folder()).glob(f"*/{MANIFEST}")):
        with contextlib.suppress(DivconError):  # of another base, or damaged: not the one that is wanted
            if add(manifest.parent) == name:
                return True
    return False


def shared_model(base: Base, wanted: WantedPrecision = "auto") -> EmbeddedModel:
    """The one engine of this process for a base and a precision: one copy of its weights, one queue, its adapters."""
    return _engine_of(base, precision(wanted))


@functools.cache
def _engine_of(base: Base, precision: Precision) -> EmbeddedModel:
    return EmbeddedModel(base, precision=precision)


class EmbeddedBackend:
    """Answers requests with an `EmbeddedModel`, by the base or one of its adapters."""

    def __init__(self, model: EmbeddedModel, adapter: str) -> None:
        self.model = model
        self.adapter = adapter

    def __deepcopy__(self, memo: dict[int, Any]) -> EmbeddedBackend:
        return self

    def complete(self, request: Request, rollout: int) -> Response:
        job = self._job(request, rollout)
        written, reason = self.model.submit(job).result()
        return self._response(job, written, reason, request)

    async def acomplete(self, request: Request, rollout: int) -> Response:
        job = await asyncio.to_thread(self._job, request, rollout)
        written, reason = await asyncio.wrap_future(self.model.submit(job))
        return self._response(job, written, reason, request)

    def _job(self, request: Request, rollout: int) -> _Job:
        config = request.config
        ids = self.model.encode(_messages(request))
        limit = config.max_tokens or self.model.max_tokens
        room = self.model.context_length - len(ids)
        if room < 1:
            raise ContextWindowExceededError(
                message=f"The prompt has {len(ids)} tokens, more than {self.model.base.id} can read. Shorten it.",
                model=request.model,
            )
        seed = hashlib.sha256(f"{config.seed}/{rollout}/{self.adapter}/{ids}".encode()).digest()
        return _Job(
            ids=ids,
            adapter=self.adapter,
            max_tokens=min(limit, room),
            temperature=config.temperature or 0.0,
            top_p=config.top_p if config.top_p is not None else 1.0,
            stop=config.stop,
            rng=random.Random(seed),
        )

    def _response(self, job: _Job, written: list[int], reason: str, request: Request) -> Response:
        text = self.model.tokenizer.decode(written, skip_special_tokens=True)
        for stop in job.stop:
            if (at := text.find(stop)) >= 0:
                text, reason = text[:at], "stop"
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant([TextPart(text)]),
            finish_reason=reason,
            usage=Usage(input_tokens=len(job.ids), output_tokens=len(written) + (reason == "stop")),
        )


def _messages(request: Request) -> list[dict[str, str]]:
    messages = []
    if request.system is not None:
        system = request.system
        text = system if isinstance(system, str) else "".join(part.text for part in system)
        messages.append({"role": "system", "content": text})
    for message in request.messages:
        if message.text is None:
            raise LMInvalidRequestError("The embedded engine reads text only.", model=request.model)
        messages.append({"role": message.role, "content": message.text})
    return messages
