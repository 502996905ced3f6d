"""Distances in units in the last place: how many representable values lie between two."""

from __future__ import annotations

import torch

from twinrun.numerics.dtypes import coarser
from twinrun.numerics.lift import lift

# Bounds 0, 1, 2, 4, ..., 2**64: no two 64-bit floats are further apart.
BUCKETS = 66
BOUNDS = (0, *(1 << power for power in range(BUCKETS - 1)))
_INTEGER_OF_SIZE = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_PARTS = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}


def ulp_type(a: torch.dtype, b: torch.dtype) -> torch.dtype | None:
    """The type whose units are counted: the coarser of the two; None for exact and packed types."""
    form = coarser(str(a).removeprefix("torch."), str(b).removeprefix("torch."))
    if form.exact or form.name == "float4_e2m1fn_x2":
        return None
    found = getattr(torch, _PARTS.get(form.name, form.name))
    assert isinstance(found, torch.dtype)
    return found


def bucket_counts(a: torch.Tensor, b: torch.Tensor, units: torch.dtype) -> torch.Tensor:
    """[BUCKETS] int64: elements whose distance is at most each bound and above the one before.

    `a`, `b`: any floats of one shape; values that are not finite on both sides are left out.
    """
    one, two = _parts(a), _parts(b)
    fine = torch.isfinite(one.float()) & torch.isfinite(two.float())
    if units == torch.float64:
        fine = torch.isfinite(one.double()) & torch.isfinite(two.double())
    first, second = _ladder(one[fine].to(units)), _ladder(two[fine].to(units))
    if units == torch.float64:
        apart = (first.double() - second.double()).abs_()
        near = apart < 2.0**52
        apart = torch.where(near, (first - second).abs().double(), apart)
    else:
        apart = (first - second).abs_().double()
    power = torch.frexp((apart - 1).clamp_(min=0))[1].long() + 1
    return torch.bincount(torch.where(apart > 0, power, 0), minlength=BUCKETS)


def _parts(values: torch.Tensor) -> torch.Tensor:
    if values.is_complex():
        return torch.view_as_real(values.resolve_conj()).reshape(-1)
    return values.reshape(-1) if values.dtype.is_floating_point else lift(values, torch.float64)


def _ladder(values: torch.Tensor) -> torch.Tensor:
    """int64 that orders like the floats and steps by 1 between neighbours; both zeros are 0."""
    size = values.element_size()
    bits = values.view(_INTEGER_OF_SIZE[size]).long()
    sign = -(1 << (8 * size - 1))
    return torch.where(bits < 0, sign - bits, bits)
