"""Stored elements lifted to the type they are measured in, losing nothing."""

from __future__ import annotations

import torch

_WIDE_FLOATS = (torch.float32, torch.float64)
_INTEGERS = (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip
_FOUR_BITS = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def measured_in(first: torch.dtype, second: torch.dtype) -> torch.dtype:
    """float32, float64 or int64: the type in which a pair is measured, no narrower than either."""
    kinds = {_target(first), _target(second)}
    if len(kinds) == 1:
        return kinds.pop()
    return torch.float64 if kinds != {torch.float32} else torch.float32


def lift(tensor: torch.Tensor, to: torch.dtype) -> torch.Tensor:
    """Values of `tensor` in `to`, flat and contiguous; a view where nothing changes.

    Complex elements become two neighbours, packed four-bit floats become two elements, and types
    without arithmetic (sub-byte integers) become their bytes. uint64 is shifted by 2**63 when lifted
    to int64, which keeps order and differences.
    """
    flat = tensor.contiguous().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat.resolve_conj()).reshape(-1)
    elif flat.dtype == torch.float4_e2m1fn_x2:
        flat = _unpack(flat.view(torch.uint8))
    elif not flat.dtype.is_floating_point and flat.dtype not in _INTEGERS:
        flat = flat.view(torch.uint8)
    if flat.dtype == torch.uint64:
        return _from_uint64(flat.view(torch.int64), to)
    return flat if flat.dtype == to else flat.to(to)


def width(dtype: torch.dtype) -> int:
    """How many measured elements one stored element becomes."""
    return 2 if dtype.is_complex or dtype == torch.float4_e2m1fn_x2 else 1


def _target(dtype: torch.dtype) -> torch.dtype:
    if dtype in (torch.float64, torch.complex128):
        return torch.float64
    if dtype.is_floating_point or dtype.is_complex:
        return torch.float32
    return torch.int64


def _unpack(packed: torch.Tensor) -> torch.Tensor:
    halves = torch.stack((packed & 0xF, packed >> 4), dim=-1).reshape(-1).long()
    values = _FOUR_BITS[halves & 7]
    return torch.where(halves > 7, -values, values)


def _from_uint64(bits: torch.Tensor, to: torch.dtype) -> torch.Tensor:
    if to == torch.int64:
        return bits ^ torch.iinfo(torch.int64).min
    return torch.where(bits < 0, bits.to(to) + 2.0**64, bits.to(to))
