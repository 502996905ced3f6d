"""What a message says of device memory: a block that can be opened, and where in it a payload lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import torch

from twinrun.errors import PeerError

HANDLE_BYTES = 64
CHUNK_BYTES = 128 << 20
"""A receiver begins to copy once the first of these lies ready.

Staging takes a tenth of the time that a copy between GPUs does, and each part costs both processors
a launch: smaller parts only cost.
"""

_MOST_BYTES = 1 << 39


@dataclass(frozen=True, slots=True)
class Card:
    """How a peer opens one block of a sender's memory: a number, its size, its IPC handle."""

    block: int
    nbytes: int
    handle: bytes

    def as_json(self) -> list[Any]:
        return [self.block, self.nbytes, self.handle.hex()]

    @classmethod
    def read(cls, body: Any, who: str) -> Card:
        """A card from a message; PeerError for anything else."""
        try:
            block, nbytes, text = body
            handle = bytes.fromhex(text)
            if not _sound(block, nbytes) or nbytes == 0 or len(handle) != HANDLE_BYTES:
                raise ValueError("out of range")
        except (TypeError, ValueError) as error:
            raise PeerError(
                f"{who} described a block of memory that makes no sense: {error}",
                seen=repr(body)[:80],
            ) from None
        return cls(block, nbytes, handle)


@dataclass(frozen=True, slots=True)
class Reference:
    """Where the payload of message ``number`` lies: ``nbytes`` from ``offset`` on in a block."""

    block: int
    offset: int
    nbytes: int
    number: int

    def as_json(self) -> list[int]:
        return [self.block, self.offset, self.nbytes, self.number]

    @classmethod
    def read(cls, body: Any, who: str) -> Reference:
        """A reference from a message; PeerError for anything else."""
        if isinstance(body, list) and len(body) == 4 and _sound(*body):
            return cls(*body)
        raise PeerError(f"{who} sent a payload that lies nowhere", seen=repr(body)[:80])


def numbers(body: Any, who: str) -> tuple[int, int]:
    """(number, bytes) of a payload that waits to be asked for; PeerError for anything else."""
    if isinstance(body, list) and len(body) == 2 and _sound(*body):
        return body[0], body[1]
    raise PeerError(f"{who} sent a payload that makes no sense", seen=repr(body)[:80])


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
    """A block's bytes, seen as tensors of any type and shape without a copy."""

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


def _sound(*numbers: Any) -> bool:
    return all([type(n) is int and 0 <= n < _MOST_BYTES for n in numbers])
