"""Statistics of a tensor in one pass over slices, in float64, without keeping its values."""

from __future__ import annotations

import math

import torch

_SLICE = 1 << 18


class Moments:
    """Running count, sums and extremes; NaNs and infinities are counted and left out of the rest.

    ``add`` takes slices of one tensor, in any sizes; ``result`` is what the index holds. Complex
    elements count by their absolute value; integers and bools as float64.
    """

    __slots__ = ("count", "infs", "least", "mean", "most", "nans", "spread", "squares", "zeros")

    def __init__(self) -> None:
        self.count = self.zeros = self.nans = self.infs = 0
        self.mean = self.spread = self.squares = 0.0
        self.least, self.most = math.inf, -math.inf

    def add(self, values: torch.Tensor) -> None:
        """Take in every element of ``values``: [...] CPU tensor, contiguous."""
        flat = values.reshape(-1)
        for start in range(0, flat.numel(), _SLICE):
            self._slice(_widened(flat[start : start + _SLICE]))

    def _slice(self, values: torch.Tensor) -> None:
        self.count += values.numel()
        finite = torch.isfinite(values)
        if not bool(finite.all()):
            nans = int(torch.isnan(values).sum())
            self.nans += nans
            self.infs += values.numel() - int(finite.sum()) - nans
            values = values[finite]
        if values.numel():
            self._merge(values)

    def _merge(self, values: torch.Tensor) -> None:
        """Chan's pairwise update of mean and sum of squared deviations."""
        before = self.finite - values.numel()
        mean = float(values.mean())
        shift = mean - self.mean
        self.mean += shift * values.numel() / self.finite
        centred = values - mean
        self.spread += float(centred.dot(centred))
        self.spread += shift * shift * before * values.numel() / self.finite
        self.squares += float(values.dot(values))
        least, most = torch.aminmax(values)
        self.least, self.most = min(self.least, float(least)), max(self.most, float(most))
        self.zeros += values.numel() - int(torch.count_nonzero(values))

    @property
    def finite(self) -> int:
        """Elements that are neither NaN nor infinite."""
        return self.count - self.nans - self.infs

    def result(self) -> dict[str, float | int]:
        """The statistics as JSON holds them; only counts where no element is finite."""
        counts: dict[str, float | int] = {
            "count": self.count,
            "zeros": self.zeros,
            "nans": self.nans,
            "infs": self.infs,
        }
        if not self.finite:
            return counts
        measured = {
            "mean": self.mean,
            "std": math.sqrt(self.spread / self.finite),
            "min": self.least,
            "max": self.most,
            "abs_max": max(abs(self.least), abs(self.most)),
            "l2": math.sqrt(self.squares),
        }
        # A float64 sum of squares may overflow; JSON has no infinity.
        return counts | {key: value for key, value in measured.items() if math.isfinite(value)}


def _widened(values: torch.Tensor) -> torch.Tensor:
    if values.is_complex():
        return values.to(torch.complex128).abs()
    if values.dtype == torch.float64:
        return values
    return values.to(torch.float64) if values.dtype.itemsize > 1 else _from_byte(values)


def _from_byte(values: torch.Tensor) -> torch.Tensor:
    """float8 types convert to float32 everywhere, to float64 not in every torch."""
    through = torch.float32 if values.is_floating_point() else torch.float64
    return values.to(through).to(torch.float64)
