"""One cache-sized chunk of a pair: float32 sums where they hold, float64 where they do not."""

from __future__ import annotations

import math

import torch

from twinrun.numerics.tally import Part

# A float32 sum of squares below this has lost small terms to underflow: (1e-15)**2.
_LEAST_SQUARE = 1e-30
_LEAST_NORM = 1e-15


def equal_part(a: torch.Tensor) -> Part:
    """A chunk whose two sides hold the same float32 bits; `a`: [elements]."""
    square = float(torch.dot(a, a))
    if _LEAST_SQUARE < square < math.inf or _all_zero(a):
        return Part(square, square, square)
    return careful_part(a, a, a.numel(), 0)


def fast_part(a: torch.Tensor, b: torch.Tensor, cols: int, buffer: torch.Tensor) -> Part | None:
    """Sums in float32, or None where float32 does not hold them. `a`, `b`: [elements] float32.

    `buffer` is a scratch of at least as many elements. Six reductions and three elementwise
    passes over memory that the first of them has brought into the cache.
    """
    delta = buffer[: a.numel()]
    torch.sub(a, b, out=delta)
    delta.abs_()
    peak = delta.view(-1, cols).amax(-1)
    dd, ab = float(torch.dot(delta, delta)), float(torch.dot(a, b))
    norm_a = torch.linalg.vector_norm(a.view(-1, cols), dim=-1)
    norm_b = torch.linalg.vector_norm(b.view(-1, cols), dim=-1)
    differing = int(torch.sign(delta, out=delta).sum())
    row_aa, row_bb = norm_a.double().square_(), norm_b.double().square_()
    aa, bb = float(row_aa.sum()), float(row_bb.sum())
    if not math.isfinite(dd + ab + aa + bb) or _underflows(peak, dd, norm_a, norm_b):
        return None
    return Part(aa, bb, ab, dd, differing, peak.double(), row_aa, row_bb)


def careful_part(a: torch.Tensor, b: torch.Tensor, cols: int, exponent: int) -> Part:
    """Sums in float64 over what is finite on both sides; both sides scaled by 2**-exponent."""
    a, b = a.double(), b.double()
    fine_a, fine_b = torch.isfinite(a), torch.isfinite(b)
    fine = fine_a & fine_b
    nan_a, nan_b = torch.isnan(a), torch.isnan(b)
    apart = (a != b) & ~(nan_a & nan_b)
    loose = apart & ~fine
    part = _sums(_scaled(a, fine, exponent), _scaled(b, fine, exponent), cols)
    part.differing = int(apart.sum())
    part.nan = (int((nan_a & ~nan_b).sum()), int((nan_b & ~nan_a).sum()))
    part.inf = (int((loose & torch.isinf(a)).sum()), int((loose & torch.isinf(b)).sum()))
    part.nans = (int(nan_a.sum()), int(nan_b.sum()))
    part.nonfinite = (int((~fine_a).sum()), int((~fine_b).sum()))
    return part


def exact_part(
    a: torch.Tensor, b: torch.Tensor, exact_a: torch.Tensor, exact_b: torch.Tensor, cols: int
) -> Part:
    """Integers: `a`, `b` are their float64 values, `exact_a`, `exact_b` int64 with exact differences."""
    delta = exact_a - exact_b
    wrapped = ((exact_a ^ exact_b) & (exact_a ^ delta)) < 0
    away = torch.where(wrapped, exact_a.double() - exact_b.double(), delta.double())
    part = _sums(a, b, cols, away)
    part.differing = int((delta != 0).sum())
    return part


def equal_integers(values: torch.Tensor) -> Part:
    """A chunk of the same integers on both sides, given as float64."""
    square = float(torch.dot(values, values))
    return Part(square, square, square)


def _sums(a: torch.Tensor, b: torch.Tensor, cols: int, delta: torch.Tensor | None = None) -> Part:
    delta = (a - b if delta is None else delta).abs_()
    row_aa = torch.linalg.vector_norm(a.view(-1, cols), dim=-1).square_()
    row_bb = torch.linalg.vector_norm(b.view(-1, cols), dim=-1).square_()
    return Part(
        aa=float(row_aa.sum()),
        bb=float(row_bb.sum()),
        ab=float(torch.dot(a, b)),
        dd=float(torch.dot(delta, delta)),
        peak=delta.view(-1, cols).amax(-1),
        row_aa=row_aa,
        row_bb=row_bb,
        largest=float(torch.maximum(a.abs().amax(), b.abs().amax())),
    )


def _scaled(values: torch.Tensor, fine: torch.Tensor, exponent: int) -> torch.Tensor:
    kept = torch.where(fine, values, 0.0)
    if not exponent:
        return kept
    half = exponent // 2  # 2**-exponent itself may be no double; two halves always are
    return kept.mul_(2.0**-half).mul_(2.0 ** -(exponent - half))


def _underflows(peak: torch.Tensor, dd: float, *norms: torch.Tensor) -> bool:
    largest = float(peak.max())
    if largest and (largest < _LEAST_NORM or dd < _LEAST_SQUARE):
        return True
    small = torch.maximum(*norms) < _LEAST_NORM
    return bool((small & (peak > 0)).any())


def _all_zero(values: torch.Tensor) -> bool:
    return float(values.amax()) == 0.0 == float(values.amin())
