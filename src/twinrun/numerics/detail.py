"""The dearer measures, for pairs above their floor: max relative, ULPs, worst by its own size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from twinrun.numerics.lift import lift, measured_in, width
from twinrun.numerics.meter import CHUNK, Slices, row_length
from twinrun.numerics.tally import Peak, Spot, item, unravel
from twinrun.numerics.ulp import BOUNDS, BUCKETS, bucket_counts, ulp_type

# Rows smaller than this share of a typical one are measured against that share.
TYPICAL_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Detail:
    """Measures over the elements that are finite on both sides.

    ``max_relative`` is the largest ``|a-b| / max(|a|, |b|)``. ``ulp`` counts elements by distance in
    units in the last place of the coarser dtype: (upper bound, elements), bounds 0, 1, 2, 4, ...;
    None for exact and packed types. ``worst_own`` is the largest ``|a-b|`` over the largest of the
    row's RMS, the element itself, and a tenth of a typical row: an element is rounded relative to
    its own size, and a row that nearly cancels carries the rounding of the terms that made it.
    """

    max_relative: Spot | None
    ulp: tuple[tuple[int, int], ...] | None
    worst_own: float


def detail(slices: Slices, shape: tuple[int, ...], a: torch.dtype, b: torch.dtype) -> Detail:
    """Measure in one more pass over the slices of a pair."""
    walk = _Walk(shape, a, b)
    for one, two in slices():
        walk.add(one, two)
    return walk.found()


def worst_own(slices: Slices, shape: tuple[int, ...], a: torch.dtype, b: torch.dtype) -> float:
    """`Detail.worst_own` alone: decides whether a worst element is only as wrong as it is large."""
    walk = _Walk(shape, a, b, everything=False)
    for one, two in slices():
        walk.add(one, two)
    return walk.worst_own


class _Typical:
    """The geometric mean of the rows' RMS so far: a few huge or vanishing rows hardly move it."""

    def __init__(self) -> None:
        self._logs = 0.0
        self._rows = 0

    def add(self, scale: torch.Tensor) -> None:
        kept = scale[scale > 0]
        self._logs += float(kept.log().sum())
        self._rows += kept.numel()

    @property
    def value(self) -> float:
        return math.exp(self._logs / self._rows) if self._rows else 0.0


class _Walk:
    def __init__(
        self, shape: tuple[int, ...], a: torch.dtype, b: torch.dtype, everything: bool = True
    ) -> None:
        self.worst_own = 0.0
        self._everything = everything
        self._typical = _Typical()
        self._relative = Peak()
        self._counts = torch.zeros(BUCKETS, dtype=torch.int64)
        self._units = ulp_type(a, b)
        self._shape = shape
        # A row longer than a chunk counts as several: its RMS is that of 128 Ki elements or more.
        self._row = min(row_length(shape), 4 * CHUNK)
        self._width = max(width(a), width(b))
        wide = measured_in(a, b)
        self._type = torch.float64 if wide == torch.int64 else wide
        self._offset = 0

    def add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        flat_a, flat_b = a.contiguous().reshape(-1), b.contiguous().reshape(-1)
        for start, stop in _chunks(flat_a.numel(), self._row):
            self._chunk(flat_a[start:stop], flat_b[start:stop], self._offset + start)
        self._offset += flat_a.numel()

    def found(self) -> Detail:
        ulp = None
        if self._units is not None:
            counts = zip(BOUNDS, self._counts.tolist(), strict=True)
            ulp = tuple((bound, n) for bound, n in counts if n)
        return Detail(self._relative.spot, ulp, self.worst_own)

    def _chunk(self, a: torch.Tensor, b: torch.Tensor, offset: int) -> None:
        one, two = lift(a, self._type), lift(b, self._type)
        fine = torch.isfinite(one) & torch.isfinite(two)
        one, two = torch.where(fine, one, 0.0).double(), torch.where(fine, two, 0.0).double()
        if float(torch.maximum(one.abs().amax(), two.abs().amax())) > 1e300:
            one, two = (
                one / 4,
                two / 4,
            )  # every measure here is a ratio; a difference must not overflow
        cols = min(self._row, a.numel()) * self._width
        apart, own = (one - two).abs_(), torch.maximum(one.abs(), two.abs())
        self._worst(apart, own, one, two, cols)
        if not self._everything:
            return
        ratio = torch.where(apart > 0, apart / own, 0.0)
        at = int(ratio.argmax())
        if self._relative.beaten_by(value := float(ratio[at])):
            at //= self._width
            index = unravel(offset + at, self._shape)
            self._relative.take(Spot(value, index, item(a, at), item(b, at)))
        if self._units is not None:
            self._counts += bucket_counts(a, b, self._units)

    def _worst(
        self,
        apart: torch.Tensor,
        own: torch.Tensor,
        one: torch.Tensor,
        two: torch.Tensor,
        cols: int,
    ) -> None:
        norms = (torch.linalg.vector_norm(side.view(-1, cols), dim=-1) for side in (one, two))
        scale = torch.maximum(*norms).div_(cols**0.5)
        self._typical.add(scale)
        scale.clamp_(min=TYPICAL_SHARE * self._typical.value)
        ratio = apart.view(-1, cols) / torch.maximum(scale.unsqueeze(1), own.view(-1, cols))
        self.worst_own = max(self.worst_own, float(ratio.nan_to_num_(nan=0.0).max()))


def _chunks(count: int, row: int) -> Iterable[tuple[int, int]]:
    """Ranges of whole rows of at most a chunk where a row fits, then what is left over."""
    step = max(1, CHUNK // row) * row
    whole = count // row * row
    for start in range(0, whole, step):
        yield start, min(start + step, whole)
    if whole < count:
        yield whole, count
