"""The worst element once more: against its own size and a typical row, too."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from twinrun.numerics.detail import masked
from twinrun.numerics.lift import lift, measured_in, width
from twinrun.numerics.meter import CHUNK, Slices, row_length

# Rows smaller than this share of a typical one are measured against that share.
TYPICAL_SHARE = 0.1


def worst_own(slices: Slices, shape: tuple[int, ...], a: torch.dtype, b: torch.dtype) -> float:
    """The largest ``|a-b|`` over the largest of the row's RMS, the element, a tenth of a typical row.

    An element is rounded relative to its own size, and a row that nearly cancels carries the
    rounding of the terms that made it. Elements that are not finite on both sides are left out. A row
    longer than 512 Ki elements counts as several.
    """
    row = min(row_length(shape), 4 * CHUNK)
    parts = max(width(a), width(b))
    wide = measured_in(a, b)
    to = torch.float64 if wide == torch.int64 else wide
    typical, worst = _Typical(), 0.0
    for one, two in slices():
        flat_a, flat_b = one.contiguous().reshape(-1), two.contiguous().reshape(-1)
        for start, stop in _chunks(flat_a.numel(), row):
            pair = lift(flat_a[start:stop], to), lift(flat_b[start:stop], to)
            worst = max(worst, _worst(*pair, min(row, stop - start) * parts, typical))
    return worst


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


def _worst(one: torch.Tensor, two: torch.Tensor, cols: int, typical: _Typical) -> float:
    fine = torch.isfinite(one) & torch.isfinite(two)
    one, two = (side.double() for side in masked(one, two, fine))
    own = torch.maximum(one.abs(), two.abs())
    if float(own.amax()) > 1e300:
        one, two, own = one / 4, two / 4, own / 4  # a ratio: a difference must not overflow
    norms = (torch.linalg.vector_norm(side.view(-1, cols), dim=-1) for side in (one, two))
    scale = torch.maximum(*norms).div_(cols**0.5)
    typical.add(scale)
    scale.clamp_(min=TYPICAL_SHARE * typical.value)
    apart = (one - two).abs_().view(-1, cols)
    ratio = apart / torch.maximum(scale.unsqueeze(1), own.view(-1, cols))
    return float(ratio.nan_to_num_(nan=0.0).max())


def _chunks(count: int, row: int) -> Iterable[tuple[int, int]]:
    """Ranges of whole rows of at most a chunk where a row fits, then what is left over."""
    step = max(1, CHUNK // row) * row
    whole = count // row * row
    for start in range(0, whole, step):
        yield start, min(start + step, whole)
    if whole < count:
        yield whole, count
