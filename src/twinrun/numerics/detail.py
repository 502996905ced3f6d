"""The dearer measures, for pairs above their floor: max relative, and ULP distances."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from twinrun.numerics.lift import lift, measured_in, width
from twinrun.numerics.meter import CHUNK, Slices
from twinrun.numerics.tally import Peak, Spot, item, unravel
from twinrun.numerics.ulp import BOUNDS, BUCKETS, bucket_counts, ulp_type

_TINY = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class Detail:
    """Measures over the elements that are finite on both sides.

    ``max_relative`` is the largest ``|a-b| / max(|a|, |b|)``. ``ulp`` counts elements by distance in
    units in the last place of the coarser dtype: (upper bound, elements), bounds 0, 1, 3, 7, ...;
    None for exact and packed types.
    """

    max_relative: Spot | None
    ulp: tuple[tuple[int, int], ...] | None


def detail(slices: Slices, shape: tuple[int, ...], a: torch.dtype, b: torch.dtype) -> Detail:
    """Measure in one more pass over the slices of a pair."""
    walk = _Walk(shape, a, b)
    for one, two in slices():
        walk.add(one, two)
    return walk.found()


class _Walk:
    def __init__(self, shape: tuple[int, ...], a: torch.dtype, b: torch.dtype) -> None:
        self._relative = Peak()
        self._counts = torch.zeros(BUCKETS, dtype=torch.int64)
        self._units = ulp_type(a, b)
        self._shape = shape
        self._width = max(width(a), width(b))
        wide = measured_in(a, b)
        self._type = torch.float64 if wide == torch.int64 else wide
        self._offset = 0

    def add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        flat_a, flat_b = a.contiguous().reshape(-1), b.contiguous().reshape(-1)
        for start in range(0, flat_a.numel(), CHUNK):
            self._chunk(flat_a[start : start + CHUNK], flat_b[start : start + CHUNK])
            self._offset += min(CHUNK, flat_a.numel() - start)

    def found(self) -> Detail:
        if self._units is None:
            return Detail(self._relative.spot, None)
        counts = zip(BOUNDS, self._counts.tolist(), strict=True)
        return Detail(self._relative.spot, tuple((bound, n) for bound, n in counts if n))

    def _chunk(self, a: torch.Tensor, b: torch.Tensor) -> None:
        one, two = lift(a, self._type), lift(b, self._type)
        fine = None
        if not math.isfinite(float(one.sum()) + float(two.sum())):
            fine = torch.isfinite(one) & torch.isfinite(two)
        self._largest(a, b, *masked(one, two, fine))
        if self._units is not None:
            kept = (one, two) if fine is None else (one[fine], two[fine])
            self._counts += bucket_counts(*kept, self._units)

    def _largest(
        self, a: torch.Tensor, b: torch.Tensor, one: torch.Tensor, two: torch.Tensor
    ) -> None:
        """Keep the largest relative difference; values near the top of their range are scaled."""
        own = torch.maximum(one.abs(), two.abs())
        ratio = (one - two).abs_()
        if not math.isfinite(float(ratio.amax())):
            own, ratio = own / 4, (one / 4 - two / 4).abs_()
        ratio.div_(own.clamp_(min=_TINY if own.dtype == torch.float32 else 0.0))
        value = float(ratio.amax())
        if math.isnan(value):
            value = float(ratio.nan_to_num_(nan=0.0).amax())
        if self._relative.beaten_by(value):
            at = int(ratio.argmax()) // self._width
            index = unravel(self._offset + at, self._shape)
            self._relative.take(Spot(value, index, item(a, at), item(b, at)))


def masked(
    one: torch.Tensor, two: torch.Tensor, fine: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Both with zeros where `fine` does not hold."""
    if fine is None:
        return one, two
    return torch.where(fine, one, 0.0), torch.where(fine, two, 0.0)
