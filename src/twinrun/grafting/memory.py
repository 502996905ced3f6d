"""Host memory of tensors: contiguous runs, small rectangular blocks, copies by memmove."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import lru_cache
from math import prod

import torch

BLOCK_ELEMENTS = 32767
"""Copies of fewer than 32,768 elements stay on the calling thread; larger ones wake torch's pool,
and the pools of two processes on one machine fight each other."""

memmove = ctypes.memmove
"""memmove(to_address, from_address, bytes); runs without the interpreter's lock."""

Run = tuple[int, int, object]
"""(address, bytes, what keeps the memory alive)"""


@lru_cache(maxsize=4096)
def blocks(
    shape: tuple[int, ...], most: int = BLOCK_ELEMENTS
) -> tuple[tuple[tuple[slice, ...], int], ...]:
    """(index, elements) of rectangular blocks that follow each other in row-major order.

    Each holds at most ``most`` elements; together they cover ``shape`` once.
    """
    if prod(shape) == 0:
        return ()
    dim, inner = len(shape), 1
    while dim > 0 and inner * shape[dim - 1] <= most:
        dim -= 1
        inner *= shape[dim]
    if dim == 0:
        return (((slice(None),) * len(shape), inner),)
    step = max(1, most // inner)
    split = range(0, shape[dim - 1], step)
    tail = (slice(None),) * (len(shape) - dim)
    return tuple(
        (
            (*outer, slice(start, min(start + step, shape[dim - 1])), *tail),
            (min(start + step, shape[dim - 1]) - start) * inner,
        )
        for outer in _outer_indices(shape[: dim - 1])
        for start in split
    )


def _outer_indices(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    if not shape:
        yield ()
        return
    for at in range(shape[0]):
        for rest in _outer_indices(shape[1:]):
            yield (slice(at, at + 1), *rest)


def runs(tensor: torch.Tensor) -> Iterator[Run]:
    """The bytes of ``tensor`` in row-major order as contiguous runs of host memory.

    A run is valid until the next one is asked for: strided tensors pass through one small buffer.
    """
    size = tensor.element_size()
    if tensor.numel() == 0:
        return
    if tensor.is_contiguous():
        yield tensor.data_ptr(), tensor.numel() * size, tensor
        return
    scratch = torch.empty(min(BLOCK_ELEMENTS, tensor.numel()), dtype=tensor.dtype)
    address = scratch.data_ptr()
    for index, count in blocks(tuple(tensor.shape)):
        part = tensor[index]
        scratch[:count].view(part.shape).copy_(part)
        yield address, count * size, scratch


def settled(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` detached, on its own device, without pending conjugation or negation; shared if it can be."""
    plain = tensor.detach()
    if plain.is_conj():
        plain = plain.resolve_conj()
    if plain.is_neg():
        plain = plain.resolve_neg()
    return plain


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """``settled``, in host memory.

    A device tensor is copied in the order of the current stream; only that stream is waited for.
    """
    plain = settled(tensor)
    return plain if plain.is_cpu else plain.contiguous().to("cpu")


def snapshot(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy in host memory, made by memmove where the tensor lies there."""
    if not tensor.is_cpu:
        return on_host(tensor)
    copy = torch.empty(tensor.shape, dtype=tensor.dtype)
    address = copy.data_ptr()
    for source, nbytes, _ in runs(tensor):
        memmove(address, source, nbytes)
        address += nbytes
    return copy


def fill(tensor: torch.Tensor, source: torch.Tensor) -> None:
    """Overwrite ``tensor`` with ``source`` (same shape); in host memory block by block."""
    if not (tensor.is_cpu and source.is_cpu):
        tensor.copy_(source)
        return
    if tensor.is_contiguous() and source.is_contiguous() and tensor.dtype == source.dtype:
        memmove(tensor.data_ptr(), source.data_ptr(), tensor.numel() * tensor.element_size())
        return
    for index, _ in blocks(tuple(tensor.shape)):
        tensor[index].copy_(source[index])
