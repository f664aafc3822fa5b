"""Run divcon with the embedded engine's decoding steps replayed as a CUDA graph, on a GPU.

Usage: python benchmarks/real/on_gpu.py experiment FILE ...   (the arguments of `divcon`)
       python benchmarks/real/on_gpu.py SCRIPT.py ...         (a script and its arguments)

A step of a small model is hundreds of short kernels, and a slow processor needs ten times as long to start them as the
GPU to run them. Here a step of Llama's and Qwen2's architecture is written out once, captured as a graph, and replayed.
Weights, prompts and precision are the engine's own. Greedy replies are those of the engine up to rounding; a sampled
reply is drawn from the same distribution with the request's own random numbers, but by another order of the tokens.
"""

from __future__ import annotations

import runpy
import sys
from typing import Any

import torch
from torch.nn.functional import linear, silu

from divcon.distill.serving.embedded import _decoding, _model
from divcon.distill.serving.embedded._decoding import Job

ROWS = 128
EVERY = 16  # steps between two looks at which replies have ended
LENGTHS = 128  # a cache holds a multiple of so many tokens


class Steps:
    """The decoding steps of one model for a number of rows and a length of the cache.

    Args:
        model: A Llama or Qwen2 model of transformers.
        rows: The number of rows.
        length: The tokens that the cache holds.
        buffers: The keys and values by layer: (rows, key heads, length, width) each; models of one shape share them.
    """

    def __init__(self, model: Any, rows: int, length: int, buffers: list[tuple[Any, Any]]) -> None:
        config, device = model.config, model.device
        self.model, self.rows, self.length, self.buffers = model, rows, length, buffers
        self.heads, self.groups = config.num_attention_heads, config.num_key_value_heads
        self.width = getattr(config, "head_dim", None) or config.hidden_size // self.heads
        places = torch.arange(config.max_position_embeddings, device=device)[None]
        cos, sin = model.model.rotary_emb(torch.zeros(1, 1, dtype=model.dtype, device=device), places)
        self.cos, self.sin = cos[0], sin[0]
        whole = {"device": device, "dtype": torch.long}
        self.ids, self.positions = torch.zeros(rows, **whole), torch.zeros(rows, **whole)
        self.slot, self.number = torch.zeros(1, **whole), torch.zeros(1, **whole)
        self.hidden = torch.zeros(rows, length, device=device, dtype=torch.float32)  # added to the scores
        self.written = torch.zeros(rows, length, **whole)
        self.heat = torch.ones(rows, 1, device=device)
        self.sampled = torch.zeros(rows, device=device, dtype=torch.bool)
        self.draws = torch.zeros(rows, length, device=device)
        self.samples = False
        self._graphs: dict[bool, Any] = {}

    def step(self) -> None:
        """Write one more token of every row."""
        model = self.model
        state = model.model.embed_tokens.weight[self.ids]
        cos, sin = self.cos[self.positions][:, None], self.sin[self.positions][:, None]
        self.hidden.index_fill_(1, self.slot, 0.0)
        for layer, (keys, values) in zip(model.model.layers, self.buffers, strict=True):
            state = state + self._attended(layer, _normed(state, layer.input_layernorm), keys, values, cos, sin)
            inner, mlp = _normed(state, layer.post_attention_layernorm), layer.mlp
            gated = silu(linear(inner, mlp.gate_proj.weight)) * linear(inner, mlp.up_proj.weight)
            state = state + linear(gated, mlp.down_proj.weight)
        self.choose(linear(_normed(state, model.model.norm), model.lm_head.weight))
        self.positions += 1
        self.slot += 1

    def choose(self, logits: Any) -> None:
        """Take the next token of every row: the likeliest, or one drawn by inverse CDF."""
        chosen = logits.argmax(-1)
        if self.samples:
            cumulative = torch.softmax(logits.float() / self.heat, -1).cumsum(-1)
            draws = self.draws.index_select(1, self.number) * cumulative[:, -1:]
            drawn = (cumulative < draws).sum(-1).clamp(max=logits.shape[-1] - 1)
            chosen = torch.where(self.sampled, drawn, chosen)
        self.ids.copy_(chosen)
        self.written.index_copy_(1, self.number, chosen[:, None])
        self.number += 1

    def _attended(self, layer: Any, inner: Any, keys: Any, values: Any, cos: Any, sin: Any) -> Any:
        attention = layer.self_attn

        def projected(part: Any, heads: int) -> Any:
            return linear(inner, part.weight, part.bias).view(self.rows, heads, self.width)

        query = _rotated(projected(attention.q_proj, self.heads), cos, sin)
        key = _rotated(projected(attention.k_proj, self.groups), cos, sin)
        keys.index_copy_(2, self.slot, key[:, :, None])
        values.index_copy_(2, self.slot, projected(attention.v_proj, self.groups)[:, :, None])
        shared = query.view(self.rows, self.groups, self.heads // self.groups, self.width)
        scores = torch.matmul(shared, keys.transpose(-1, -2)).float() * self.width**-0.5
        weights = torch.softmax(scores + self.hidden[:, None, None], -1).to(values.dtype)
        mixed = torch.matmul(weights, values).reshape(self.rows, self.heads * self.width)
        return linear(mixed, attention.o_proj.weight)

    def replay(self) -> None:
        """A step by its graph, which is captured with the first one; on a CPU, the step itself."""
        if not self.ids.is_cuda:
            return self.step()
        if self.samples not in self._graphs:
            self._graphs[self.samples] = self._captured()
        self._graphs[self.samples].replay()

    def _captured(self) -> Any:
        counters = (self.ids, self.positions, self.slot, self.number, self.written, self.hidden)
        before = [one.clone() for one in counters]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self.step()  # warms up; what it wrote at its slot is written again
        torch.cuda.current_stream().wait_stream(side)
        for one, value in zip(counters, before, strict=True):
            one.copy_(value)
        graph = torch.cuda.CUDAGraph()
        # Other threads of this process start kernels too, which another mode would take for a mistake.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            self.step()
        return graph


def _normed(state: Any, norm: Any) -> Any:
    wide = state.float()
    return norm.weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon)).to(
        state.dtype
    )


def _rotated(x: Any, cos: Any, sin: Any) -> Any:
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin


_steps: dict[tuple[int, int, int], Steps] = {}
_buffers: dict[tuple[Any, ...], list[tuple[Any, Any]]] = {}


def _steps_of(model: Any, rows: int, length: int) -> Steps:
    key = (id(model), rows, length)
    if key not in _steps:
        config = model.config
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_hidden_layers, rows, config.num_key_value_heads, length, width)
        if shape not in _buffers:
            new = {"device": model.device, "dtype": model.dtype}
            _buffers[shape] = [(torch.zeros(shape[1:], **new), torch.zeros(shape[1:], **new)) for _ in range(shape[0])]
        _steps[key] = Steps(model, rows, length, _buffers[shape])
    return _steps[key]


def decode(model: Any, tokenizer: Any, batch: list[Job], multiple: int, at_once: int) -> None:
    """In place of the engine's `decode`: the prompts are read by transformers, the steps replayed."""
    for start in range(0, len(batch), ROWS):
        _decode(model, tokenizer, batch[start : start + ROWS], at_once)


@torch.inference_mode()
def _decode(model: Any, tokenizer: Any, batch: list[Job], at_once: int) -> None:
    width, most = max(job.bucket for job in batch), max(job.max_tokens for job in batch)
    length = -(-(width + most) // LENGTHS) * LENGTHS
    rows = list(batch)
    rows += [_decoding._filler(batch[0]) for _ in range(ROWS - len(rows))]
    pad = tokenizer.pad_token_id or 0
    ids = torch.tensor([[pad] * (width - len(job.ids)) + job.ids for job in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(job.ids)) + [1] * len(job.ids) for job in rows], device=model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits, cache = _decoding._read_prompts(model, ids, mask, positions, max(8, at_once // width))
    steps = _steps_of(model, ROWS, length)
    for layer, (keys, values) in zip(cache.layers, steps.buffers, strict=True):
        keys[:, :, :width], values[:, :, :width] = layer.keys, layer.values
        keys[:, :, width:], values[:, :, width:] = 0, 0
    del cache
    steps.hidden.fill_(-1e9)
    steps.hidden[:, :width].masked_fill_(mask == 1, 0.0)
    steps.positions.copy_(positions[:, -1] + 1)
    steps.slot.fill_(width)
    steps.number.fill_(0)
    steps.samples = any(job.temperature > 0 for job in rows)
    if steps.samples:
        steps.sampled.copy_(torch.tensor([job.temperature > 0 for job in rows]))
        steps.heat.copy_(torch.tensor([[job.temperature or 1.0] for job in rows]))
        drawn = [[job.rng.random() if job.temperature > 0 else 0.0 for _ in range(most)] for job in rows]
        steps.draws[:, :most].copy_(torch.tensor(drawn))
    ends = _decoding._ends(model, tokenizer)
    steps.choose(logits)
    read = 0
    while not all(job.done.done() for job in rows):
        for _ in range(min(EVERY, most - int(steps.number))):
            steps.replay()
        upto = int(steps.number)
        for job, tokens in zip(rows, steps.written[:, read:upto].tolist(), strict=True):
            for token in tokens:
                if job.done.done() or not job.goes_on(token, ends, tokenizer):
                    break
        read = upto


def main() -> None:
    _model.decode = decode
    _model._BATCH_ON_GPU = 4 * ROWS
    if len(sys.argv) > 1 and sys.argv[1].endswith(".py"):
        del sys.argv[0]
        runpy.run_path(sys.argv[0], run_name="__main__")
        return
    from divcon.cli import main as divcon

    sys.exit(divcon())


if __name__ == "__main__":
    main()
