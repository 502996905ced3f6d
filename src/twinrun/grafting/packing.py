"""Tensors of any strides laid one after the other into a stretch of device memory."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from math import prod

import torch

from twinrun.errors import PeerError, UnavailableError
from twinrun.grafting.reference import CHUNK_BYTES
from twinrun.layout.box import Box

_WIDE = (torch.complex128, torch.int64, torch.int32)
_LEAST_WIDE_BYTES = 1 << 20
"""Below this a copy costs its launch."""


class NoRoom(UnavailableError):
    """A payload cannot be put on a device; the host takes it."""


def pieces(tensor: torch.Tensor, itemsize: int) -> Iterator[torch.Tensor]:
    """``tensor`` in row-major order, in parts of about CHUNK_BYTES of ``itemsize`` bytes an element."""
    if tensor.numel() * itemsize <= CHUNK_BYTES:
        yield tensor
        return
    shape = tuple(tensor.shape)
    dim = next((at for at, size in enumerate(shape) if size > 1), 0)
    rows = max(1, CHUNK_BYTES // (prod(shape[dim + 1 :]) * itemsize))
    for at in range(0, shape[dim], rows):
        yield tensor.narrow(dim, at, min(rows, shape[dim] - at))


class Flat:
    """A stretch of memory, seen as tensors of any type and shape without a copy."""

    def __init__(self, raw: torch.Tensor) -> None:
        self.raw = raw
        self.address = raw.data_ptr()
        self.nbytes = raw.numel()
        self._typed: dict[torch.dtype, torch.Tensor] = {}

    def view(self, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor | None:
        """A contiguous view from ``offset`` on, None where that is not aligned for ``dtype``."""
        whole = self._typed.get(dtype)
        if whole is None:
            usable = self.nbytes - self.nbytes % dtype.itemsize
            if self.raw.data_ptr() % dtype.itemsize:
                return None
            whole = self._typed[dtype] = self.raw[:usable].view(dtype)
        at, odd = divmod(offset, dtype.itemsize)
        return None if odd else whole.as_strided(shape, contiguous(shape), at)

    def copied(self, offset: int, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
        """The same from any offset, in memory of its own."""
        nbytes = prod(shape) * dtype.itemsize
        return self.raw[offset : offset + nbytes].clone().view(dtype).view(shape)


@lru_cache(maxsize=4096)
def contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a row-major tensor."""
    return tuple(prod(shape[dim + 1 :]) for dim in range(len(shape)))


def pack(flat: Flat, offset: int, piece: torch.Tensor) -> None:
    """Copy ``piece`` to the bytes of ``flat`` from ``offset`` on, in row-major order."""
    there = flat.view(offset, piece.dtype, tuple(piece.shape))
    if there is not None:
        move(there, piece)
        return
    raw = piece.contiguous().reshape(-1).view(torch.uint8)
    flat.raw[offset : offset + raw.numel()].copy_(raw)


def place(flat: Flat, offset: int, shape: tuple[int, ...], box: Box, tensor: torch.Tensor) -> None:
    """Copy ``tensor`` to where ``box`` lies in a row-major tensor of ``shape`` from ``offset`` on."""
    whole = flat.view(offset, tensor.dtype, shape)
    if whole is None:
        raise PeerError("the receiver offers room at an address that its own dtype forbids")
    move(whole[box.slices], tensor)


def move(there: torch.Tensor, source: torch.Tensor) -> None:
    """Copy ``source`` to ``there``, of the same shape and dtype; in words as wide as both have their rows."""
    if source.nbytes >= _LEAST_WIDE_BYTES and source.device == there.device:
        for wide in _WIDE:
            if wide.itemsize <= source.element_size():
                break
            if _in_words(there, wide.itemsize) and _in_words(source, wide.itemsize):
                there, source = there.view(wide), source.view(wide)
                break
    there.copy_(source)


def _in_words(tensor: torch.Tensor, nbytes: int) -> bool:
    """Whether every row begins and ends at a multiple of ``nbytes``."""
    size, steps = tensor.element_size(), tensor.stride()
    return (
        steps[-1] == 1
        and tensor.shape[-1] * size % nbytes == 0
        and tensor.data_ptr() % nbytes == 0
        and tensor.storage_offset() * size % nbytes == 0
        and not any(step * size % nbytes for step in steps[:-1])
    )
