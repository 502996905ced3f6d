"""Statistics of host tensors for the log, in one pass over pieces that lie in one thread's cache."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from twinrun.grafting.memory import BLOCK_ELEMENTS, blocks

_TRUSTED = (1e-15, 1e15)
"""Between these a norm in float32 has lost nothing to overflow or underflow."""


def abs_max(tensor: torch.Tensor) -> float:
    """The largest magnitude, 0 for an empty tensor, NaN where one is inside."""
    largest = 0.0
    for part in _pieces(tensor):
        largest = _larger(largest, _abs_max(part))
    return largest


def replaced(before: torch.Tensor, after: torch.Tensor) -> tuple[float, float, float]:
    """(abs-max before, abs-max after, relative L2 distance ``|a-b| / max(|a|, |b|)``) of one shape."""
    largest, largest_after = 0.0, 0.0
    aa = bb = dd = 0.0
    scratch: torch.Tensor | None = None
    for a, b in zip(_pieces(before), _pieces(after), strict=True):
        largest = _larger(largest, _abs_max(a))
        largest_after = _larger(largest_after, _abs_max(b))
        wide = a if a.dtype == b.dtype else a.to(b.dtype)
        if scratch is None or scratch.dtype != b.dtype:
            scratch = torch.empty(BLOCK_ELEMENTS, dtype=b.dtype)
        aa += _square(a)
        bb += _square(b)
        dd += _square(torch.sub(wide, b, out=scratch[: b.numel()].view(b.shape)))
    scale = max(aa, bb)
    return largest, largest_after, math.sqrt(dd / scale) if scale else 0.0


def _larger(largest: float, found: float) -> float:
    return largest if largest != largest or largest >= found else found


def _abs_max(part: torch.Tensor) -> float:
    if part.is_complex():
        return float(part.abs().amax())
    # Two passes in the cache: aminmax takes twice as long as both.
    return float(torch.maximum(part.amax(), -part.amin()))


def _square(part: torch.Tensor) -> float:
    found = float(torch.linalg.vector_norm(part))
    if not _TRUSTED[0] < found < _TRUSTED[1]:
        wide = torch.complex128 if part.is_complex() else torch.float64
        found = float(torch.linalg.vector_norm(part, dtype=wide))
    return found * found


def _pieces(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Pieces that one thread handles in its cache, in a type that can be reckoned with."""
    exact = tensor.dtype.itemsize >= 8 or not (tensor.is_floating_point() or tensor.is_complex())
    wide = tensor.dtype if tensor.is_complex() else torch.float64 if exact else torch.float32
    for index, _ in blocks(tuple(tensor.shape)):
        yield tensor[index].to(wide)
