"""Steady: the most threads with which a row's bits don't depend on the rows beside it.

A product of matrices shares its rows among threads, and a share of few rows, or an odd one, takes a kernel that adds
in another order: on two cores without bfloat16 instructions the rows of a batch of 9 differ from those of a batch of 8
in the last bit, and by where they stand in it. Which numbers of threads and rows are safe is the library's affair, so
it is tried out: every product of a step, in every size it may have, on one row repeated. The order of a sum doesn't
depend on its values, so a sum that cancels to the noise of that order shows any other one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

# Lengths of a cache at which attention is tried: whole buckets, and what comes between them as replies grow.
_LENGTHS = (65, 97, 128, 147, 191, 200, 251, 320)

# What was found in this process, by all that it depends on: a base may be loaded again and again.
_FOUND: dict[tuple[Any, ...], int] = {}


def steady_threads(model: Any, sizes: Sequence[int], most: int, attention: Any) -> int:
    """The most threads, up to `most`, with which a row comes out alike in a batch of any of these sizes.

    Sets torch's number of threads, which is the process', to what it returns.

    Args:
        model: A transformers model on the CPU, in the precision it computes in.
        sizes: The rows that a step of decoding may have.
        most: Threads that there are cores for.
        attention: The model's attention, as transformers calls it.

    Returns:
        Their number; 0 where rows depend on each other with a single thread too, and have to be computed alone.
    """
    import torch

    tried = (_shapes(model), model.dtype, tuple(sizes), most, attention)
    if tried not in _FOUND:
        with torch.inference_mode():
            _FOUND[tried] = _most_steady(list(_works(model, attention)), sizes, most)
    torch.set_num_threads(max(1, _FOUND[tried]))
    return _FOUND[tried]


def _shapes(model: Any) -> tuple[Any, ...]:
    """What a step computes, but for the weights, which its order doesn't depend on."""
    head = tuple(model.get_output_embeddings().weight.shape)
    return (tuple(_products(model)), head, tuple(_activations(model)), _heads(model))


def _products(model: Any) -> dict[tuple[int, int], Any]:
    """A module of each shape (outputs, inputs)."""
    import torch

    return {tuple(m.weight.shape): m for m in model.modules() if isinstance(m, torch.nn.Linear)}


def _activations(model: Any) -> dict[type, Any]:
    return {type(m): m for m in model.modules() if not [*m.children(), *m.parameters(), *m.buffers()]}


def _heads(model: Any) -> tuple[int, int, int]:
    """The heads of queries, those of keys and values, and the width of each."""
    config = model.config
    heads, groups = config.num_attention_heads, config.num_key_value_heads
    return heads, groups, getattr(config, "head_dim", None) or config.hidden_size // heads


def _most_steady(works: Sequence[_Work], sizes: Sequence[int], most: int) -> int:
    import torch

    for threads in range(most, 0, -1):
        torch.set_num_threads(threads)
        if all(_is_steady(work, sizes) for work in works):
            return threads
    return 0


_Work = Callable[[int], Any]  # something computed of so many equal rows


def _is_steady(work: _Work, sizes: Sequence[int]) -> bool:
    import torch

    expected = work(sizes[0])[:1].clone()
    return all(torch.equal(found, expected.expand_as(found)) for found in map(work, sizes))


def _works(model: Any, attention: Any) -> Iterator[_Work]:
    """What a step computes."""
    import torch

    random = torch.Generator().manual_seed(0)
    head = model.get_output_embeddings()
    products = _products(model)
    for outputs, inputs in products:
        order = torch.randperm(inputs // 2, generator=random)
        weights = torch.randn(outputs, inputs // 2, generator=random)
        weight = torch.cat([weights, weights[:, order]], 1).to(model.dtype)
        row = torch.randn(1, inputs // 2, generator=random)
        row = torch.cat([row, -row[:, order]], 1).to(model.dtype)
        yield functools.partial(_product, row, weight)
    # Where a thread's share isn't a whole number of vectors, an activation computes the rest by another function.
    for activation in _activations(model).values():
        for width in {outputs for (outputs, _), module in products.items() if module is not head}:
            row = 4 * torch.randn(1, width, generator=random).to(model.dtype)
            yield functools.partial(_activated, row, activation)
    for length in _LENGTHS:
        yield functools.partial(_attended, _noise(model, length, random), attention)


def _noise(model: Any, length: int, random: Any) -> list[Any]:
    """Query, keys and values of one row whose scores, and what they mix, cancel to rounding noise."""
    import torch

    heads, groups, width = _heads(model)
    query = torch.randn(1, heads, 1, width // 2, generator=random)
    keys = torch.randn(1, groups, length, width // 2, generator=random)
    values = torch.randn(1, groups, length // 2, width, generator=random)
    values = torch.cat([values, -values, torch.zeros(1, groups, length % 2, width)], 2)
    return [part.to(model.dtype) for part in (torch.cat([query, query], -1), torch.cat([keys, -keys], -1), values)]


def _product(row: Any, weight: Any, size: int) -> Any:
    import torch

    return torch.nn.functional.linear(_rows(row, size), weight)


def _activated(row: Any, activation: Any, size: int) -> Any:
    return activation(_rows(row, size))


def _attended(parts: list[Any], attention: Any, size: int) -> Any:
    import torch

    query, keys, values = (_rows(part, size) for part in parts)
    mask = torch.zeros(size, 1, query.shape[2], keys.shape[2], dtype=query.dtype)
    return attention(None, query, keys, values, mask, scaling=query.shape[3] ** -0.5)[0]


def _rows(row: Any, size: int) -> Any:
    """`row`, of shape (1, ...), as a tensor of shape (size, ...)."""
    return row.expand(size, *row.shape[1:]).contiguous()
