"""How far apart two tensors are: every measure of docs/verdicts.md in one pass over slices."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from twinrun.numerics.meter import Meter, Slices
from twinrun.numerics.tally import Spot


@dataclass(frozen=True, slots=True)
class Distance:
    """The numbers of one pair; symmetric up to the exchange of `a` and `b`.

    Counts are of elements. Sums run over the elements that are finite on both sides, or equal.
    ``relative_l2`` is ``|a-b| / max(|a|, |b|)``, 0 where both norms are. ``worst`` is the largest
    ``|a-b|`` over the RMS of its row (`meter.row_length`). ``nan`` and ``inf`` count (a only, b only); ``nonfinite`` all on each side,
    ``nans`` the NaNs among them.
    """

    elements: int
    bits_equal: bool
    differing: int
    relative_l2: float
    norms: tuple[float, float]
    cosine: float
    worst: Spot | None
    max_abs: Spot | None
    nan: tuple[int, int]
    inf: tuple[int, int]
    nonfinite: tuple[int, int]
    nans: tuple[int, int]

    @property
    def one_sided(self) -> bool:
        """Whether NaN or Inf stands on one side only."""
        return any(self.nan) or any(self.inf)


def measure(slices: Slices, shape: tuple[int, ...], a: torch.dtype, b: torch.dtype) -> Distance:
    """Measure a pair that is given in slices; each slice holds whole indices of the leading dim.

    Memory is that of one slice and a few buffers of a chunk. Two passes only where float64 values
    overflow or underflow when squared: the second is scaled by a power of two.
    """
    meter = Meter(shape, a, b)
    _feed(meter, slices)
    if meter.out_of_range:
        scaled = Meter(shape, a, b, exponent=meter.rescue_exponent)
        _feed(scaled, slices)
        scaled.max_abs = meter.max_abs  # needs no squares, and scaling may lose a small difference
        meter = scaled
    return _summarise(meter)


def distance(a: torch.Tensor, b: torch.Tensor) -> Distance:
    """Measure two tensors of one shape."""
    if a.shape != b.shape:
        raise ValueError(f"shapes differ: {list(a.shape)} and {list(b.shape)}")
    return measure(lambda: [(a, b)], tuple(a.shape), a.dtype, b.dtype)


def _feed(meter: Meter, slices: Slices) -> None:
    for a, b in slices():
        meter.add(a, b)
    meter.finish()


def _summarise(meter: Meter) -> Distance:
    total = meter.tally
    norms = (math.sqrt(total.aa), math.sqrt(total.bb))
    largest = max(norms)
    return Distance(
        elements=meter.elements,
        bits_equal=meter.bits_equal,
        differing=total.differing,
        relative_l2=math.sqrt(total.dd) / largest if largest else 0.0,
        norms=(_unscaled(norms[0], meter.exponent), _unscaled(norms[1], meter.exponent)),
        cosine=_cosine(total.ab, norms),
        worst=meter.worst.spot,
        max_abs=meter.max_abs.spot,
        nan=(total.nan_a, total.nan_b),
        inf=(total.inf_a, total.inf_b),
        nonfinite=(total.nonfinite_a, total.nonfinite_b),
        nans=(total.nans_a, total.nans_b),
    )


def _cosine(product: float, norms: tuple[float, float]) -> float:
    """1 for two zero tensors (they are equal), 0 where one is zero and the other is not."""
    if not all(norms):
        return 0.0 if any(norms) else 1.0
    return max(-1.0, min(1.0, product / norms[0] / norms[1]))


def _unscaled(value: float, exponent: int) -> float:
    """value * 2**exponent, infinite where no double holds it."""
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.inf
