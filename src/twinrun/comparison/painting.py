"""Goes through one pair of tensors and keeps what its picture needs; memory is that of one slice."""

from __future__ import annotations

import math
from functools import cache

import torch

from twinrun.comparison.picture import Element, Heat, Histogram
from twinrun.comparison.result import Scalar
from twinrun.layout import Box
from twinrun.numerics.lift import lift, measured_in, width
from twinrun.numerics.meter import row_length
from twinrun.numerics.tally import unravel

LOWEST, HIGHEST, PER_DECADE = -12, 6, 4
SLICE = 1 << 17
"""Elements of one slice: what is computed from it stays in the cache."""
BINS = 64
"""Most bins of a map along either direction."""
WORST = 10
"""How many worst elements are kept."""

# Exponent and six bits of the mantissa: bins are cut within 1.6 % of where they should be.
_SHIFT = 17
_LARGEST = 1e36
_KEYS = (int(torch.tensor(_LARGEST).view(torch.int32)) >> _SHIFT) + 1

_Found = tuple[float, int, Scalar, Scalar]


class Painter:
    """Takes slices of a pair of one shape, in any order, each with its box."""

    def __init__(
        self, shape: tuple[int, ...], a: torch.dtype, b: torch.dtype, bins: tuple[int, int] = (BINS, BINS)
    ) -> None:  # fmt: skip
        self._shape = shape
        self._type = measured_in(a, b)
        self._width = max(width(a), width(b))
        self.columns = max(1, shape[-1] if shape else 1)
        self.rows = max(1, math.prod(shape) // self.columns)
        size = min(self.rows, bins[0]), min(self.columns, bins[1])
        self._heat = torch.zeros(size, dtype=torch.float64)
        self._counts = torch.zeros(_KEYS, dtype=torch.int64)
        self._zeros = self._nonfinite = self.looked_at = 0
        self._squares = [0.0, 0.0, 0.0]
        self._worst: list[_Found] = []

    def add(self, box: Box, a: torch.Tensor, b: torch.Tensor) -> None:
        """Take the values of one box; it holds whole rows, or a part of one row."""
        if not box.volume:
            return
        columns = box.shape[-1] if box.shape else 1
        error = self._errors(a, b, columns)
        self.looked_at += box.volume
        start = _flat(box.starts, self._shape)
        self._map(error, start // self.columns, start % self.columns)
        self._count(error)
        self._keep(error, start, a, b)

    @property
    def relative_l2(self) -> float:
        """``|a-b| / max(|a|, |b|)`` of what was looked at."""
        largest = max(self._squares[0], self._squares[1])
        return math.sqrt(self._squares[2] / largest) if largest else 0.0

    @property
    def histogram(self) -> Histogram:
        """The errors so far."""
        counts = [0] * ((HIGHEST - LOWEST) * PER_DECADE)
        bin_of = _bins_of_keys()
        for key in self._counts.nonzero().flatten().tolist():
            counts[bin_of[key]] += int(self._counts[key])
        return Histogram(LOWEST, PER_DECADE, tuple(counts), self._zeros, self._nonfinite)

    @property
    def heat(self) -> Heat:
        """The map so far."""
        return Heat(self.rows, self.columns, tuple(map(tuple, self._heat.tolist())))

    @property
    def worst(self) -> tuple[Element, ...]:
        """The elements with the largest errors, the largest first."""
        return tuple(
            Element(unravel(at, self._shape), one, two, error)
            for error, at, one, two in self._worst
        )

    def _errors(self, a: torch.Tensor, b: torch.Tensor, columns: int) -> torch.Tensor:
        """``|a-b|`` over the row's RMS, infinite where one side alone is not finite. [rows, columns]"""
        stored = lift(a, self._type), lift(b, self._type)
        one, two = stored[0].double(), stored[1].double()
        away = (one - two).abs_()
        if self._type == torch.int64:  # neighbours that a double does not tell apart still differ
            away = torch.maximum(away, (stored[0] != stored[1]).double())
        endless = None
        if not math.isfinite(float(away.sum())):
            away.masked_fill_((one == two) | (one.isnan() & two.isnan()), 0.0)
            endless = ~away.isfinite()
            away.masked_fill_(endless, 0.0)
            one, two = (side.where(side.isfinite(), 0.0) for side in (one, two))
        self._squares[2] += float(torch.dot(away, away))
        cells = columns * self._width
        scale = torch.maximum(self._mean_square(one, cells, 0), self._mean_square(two, cells, 1))
        away = away.view(-1, cells).div_(scale.sqrt_().clamp_(min=5e-324))
        if endless is not None:
            away.masked_fill_(endless.view(-1, cells), math.inf)
        return away.view(-1, columns, self._width).amax(-1) if self._width > 1 else away

    def _mean_square(self, values: torch.Tensor, cells: int, side: int) -> torch.Tensor:
        """Mean square of each row, of short rows together with their neighbours. [rows, 1]"""
        rows: torch.Tensor = torch.linalg.vector_norm(values.view(-1, cells), dim=1).square_()
        self._squares[side] += float(rows.sum())
        together = row_length((cells,)) // cells
        if together > 1:
            left = -rows.numel() % together
            grouped = torch.nn.functional.pad(rows, (0, left)).view(-1, together).sum(1)
            members = torch.full_like(grouped, together)
            members[-1] -= left
            rows = (grouped / members).repeat_interleave(together)[: rows.numel()]
        return rows.div_(cells).unsqueeze_(1)

    def _map(self, error: torch.Tensor, row: int, column: int) -> None:
        high, wide = self._heat.shape
        down, across = (
            _bins(row, error.shape[0], self.rows, high),
            _bins(column, error.shape[1], self.columns, wide),
        )
        narrow = torch.stack([error[:, a:b].amax(1) for _, a, b in across], 1)
        found = torch.stack([narrow[a:b].amax(0) for _, a, b in down])
        part = self._heat[down[0][0] : down[-1][0] + 1, across[0][0] : across[-1][0] + 1]
        torch.maximum(part, found, out=part)

    def _count(self, error: torch.Tensor) -> None:
        # A float32's leading bits rise with its value: no logarithm of every element is taken.
        flat = error.reshape(-1)
        top = float(flat.amax())
        endless = int(flat.isinf().sum()) if math.isinf(top) else 0
        bits = flat.float().clamp_(max=_LARGEST).view(torch.int32) >> _SHIFT
        counts = torch.bincount(bits, minlength=_KEYS)
        counts[-1] -= endless
        zeros = flat.numel() - int(flat.count_nonzero())
        counts[0] -= zeros
        self._counts += counts
        self._zeros, self._nonfinite = self._zeros + zeros, self._nonfinite + endless

    def _keep(self, error: torch.Tensor, start: int, a: torch.Tensor, b: torch.Tensor) -> None:
        least = self._worst[-1][0] if len(self._worst) == WORST else 0.0
        flat = error.reshape(-1)
        if not float(flat.amax()) > least:
            return
        found, at = flat.topk(min(WORST, flat.numel()))
        kept = [(e, i) for e, i in zip(found.tolist(), at.tolist(), strict=True) if e > least]
        if kept:
            one, two = a.reshape(-1), b.reshape(-1)
            self._worst += [(e, start + i, _item(one, i), _item(two, i)) for e, i in kept]
            self._worst.sort(key=lambda held: (-held[0], held[1]))
            del self._worst[WORST:]


@cache
def _bins_of_keys() -> tuple[int, ...]:
    """The bin of each key's smallest value."""
    values = (torch.arange(_KEYS, dtype=torch.int32) << _SHIFT).view(torch.float32).tolist()
    last = (HIGHEST - LOWEST) * PER_DECADE - 1
    exact = (math.floor((math.log10(v) - LOWEST) * PER_DECADE) if v > 0 else 0 for v in values)
    return tuple(min(max(at, 0), last) for at in exact)


def _bins(start: int, length: int, whole: int, bins: int) -> list[tuple[int, int, int]]:
    """(bin, begin, end) of each bin that ``start .. start + length`` of ``whole`` falls into."""
    held = range(start * bins // whole, (start + length - 1) * bins // whole + 1)
    begins = [max(0, -(-at * whole // bins) - start) for at in held]
    return list(zip(held, begins, [*begins[1:], length], strict=True))


def _flat(index: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """Row-major offset of an index."""
    at = 0
    for i, n in zip(index, shape, strict=True):
        at = at * n + i
    return at


def _item(flat: torch.Tensor, at: int) -> Scalar:
    element = flat[at : at + 1]
    if element.is_complex():
        return str(element.item()).strip("()")
    try:
        value: Scalar = element.item()
    except (RuntimeError, TypeError, NotImplementedError):
        return ", ".join(map(str, lift(element, torch.float64).tolist()))
    return value
