"""Distances in units in the last place: how many representable values lie between two."""

from __future__ import annotations

import torch

from twinrun.numerics.dtypes import coarser
from twinrun.numerics.lift import lift

# By bit length of the distance: 0, 1, 2 to 3, 4 to 7, ...; no two 64-bit floats are 2**64 apart.
BUCKETS = 65
BOUNDS = tuple((1 << length) - 1 for length in range(BUCKETS))
_PARTS = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}
_NARROW = {1: torch.int8, 2: torch.int16, 4: torch.int32}


def ulp_type(a: torch.dtype, b: torch.dtype) -> torch.dtype | None:
    """The type whose units are counted: the coarser of the two; None for exact and packed types."""
    form = coarser(str(a).removeprefix("torch."), str(b).removeprefix("torch."))
    if form.exact or form.name == "float4_e2m1fn_x2":
        return None
    found = getattr(torch, _PARTS.get(form.name, form.name))
    assert isinstance(found, torch.dtype)
    return found


def bucket_counts(a: torch.Tensor, b: torch.Tensor, units: torch.dtype) -> torch.Tensor:
    """[BUCKETS] int64: elements by the bit length of their distance.

    `a`, `b`: finite floats of one shape, of any type that converts to `units`.
    """
    one, two = (_parts(side).to(units) for side in (a, b))
    lengths = _lengths_of_doubles(one, two) if units == torch.float64 else _lengths(one, two)
    return torch.bincount(lengths, minlength=BUCKETS)


def _parts(values: torch.Tensor) -> torch.Tensor:
    if values.is_complex():
        return torch.view_as_real(values.resolve_conj()).reshape(-1)
    return values.reshape(-1) if values.dtype.is_floating_point else lift(values, torch.float64)


def _lengths(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Bit lengths of the distances of floats of up to 32 bits, in int32 throughout.

    The distance of a positive and a negative float may need 32 bits: it wraps to a negative number.
    """
    first, second = _ladder(one), _ladder(two)
    apart = torch.maximum(first, second).sub_(torch.minimum(first, second))
    wrapped = apart < 0
    # A float32 holds 24 bits: of longer distances the low bits go, which leaves the length alone.
    apart = torch.where(apart < 1 << 24, apart, apart & ~0xFF)
    exponent = (apart.float().view(torch.int32) >> 23).sub_(126)
    return torch.where(wrapped, 32, exponent.clamp_(min=0))


def _ladder(values: torch.Tensor) -> torch.Tensor:
    """int32 that orders like the floats and steps by 1 between neighbours; both zeros are 0."""
    size = values.element_size()
    bits = values.view(_NARROW[size]).int()
    negative = bits >> 31
    most = (1 << (8 * size - 1)) - 1
    return (bits ^ (negative & most) if size == 4 else (bits & most) ^ negative).sub_(negative)


def _lengths_of_doubles(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    least = torch.iinfo(torch.int64).min
    first, second = (torch.where((b := v.view(torch.int64)) < 0, least - b, b) for v in (one, two))
    apart = torch.maximum(first, second) - torch.minimum(first, second)
    high, low = (torch.frexp(half.double())[1] for half in (apart >> 32, apart & 0xFFFFFFFF))
    return torch.where(apart < 0, 64, torch.where(high > 0, high + 32, low)).long()
