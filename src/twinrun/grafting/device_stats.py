"""Statistics of a value for the log, where the value lies: one wait for a device, whatever its size."""

from __future__ import annotations

import math

import torch

from twinrun.grafting import host_stats
from twinrun.grafting.memory import on_host, settled
from twinrun.grafting.packing import pieces


def abs_max(tensor: torch.Tensor) -> float:
    """The largest magnitude, 0 for an empty tensor, NaN where one is inside."""
    if tensor.is_cpu:
        return host_stats.abs_max(tensor)
    if tensor.numel() == 0:
        return 0.0
    found = [_wide(p).abs().max().to(torch.float64) for p in pieces(tensor, tensor.element_size())]
    return float(torch.stack(found).max())


def replaced(before: torch.Tensor, after: torch.Tensor) -> dict[str, float]:
    """``before_abs_max``, ``after_abs_max`` and ``moved`` (relative L2) of two tensors of one shape."""
    before, after = settled(before), settled(after)
    if before.device != after.device:
        before, after = on_host(before), on_host(after)
    if before.is_cpu:
        found = host_stats.replaced(before, after)
    else:
        found = abs_max(before), abs_max(after), _moved(before, after)
    return dict(zip(("before_abs_max", "after_abs_max", "moved"), found, strict=True))


def _moved(before: torch.Tensor, after: torch.Tensor) -> float:
    if before.numel() == 0:
        return 0.0
    rows = []
    size = before.element_size()
    for a, b in zip(pieces(before, size), pieces(after, size), strict=True):
        wide, other = _wide(a), _wide(b)
        rows.append(torch.stack([_square(wide), _square(other), _square(wide - other)]))
    aa, bb, dd = torch.stack(rows).sum(0).tolist()
    scale = max(aa, bb)
    return math.sqrt(dd / scale) if scale else 0.0


def _square(part: torch.Tensor) -> torch.Tensor:
    kind = torch.complex128 if part.is_complex() else torch.float64
    norm: torch.Tensor = torch.linalg.vector_norm(part, dtype=kind).to(torch.float64)
    return norm.square()


def _wide(part: torch.Tensor) -> torch.Tensor:
    if part.is_complex():
        return part
    exact = part.dtype.itemsize >= 8 or not part.is_floating_point()
    return part.to(torch.float64 if exact else torch.float32)
