"""Walks a pair of tensors chunk by chunk and keeps the sums and the worst elements."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch

from twinrun.numerics.bits import same_bits
from twinrun.numerics.chunk import careful_part, equal_integers, equal_part, exact_part, fast_part
from twinrun.numerics.lift import lift, measured_in, width
from twinrun.numerics.tally import Part, Peak, Spot, Tally, item, unravel

Slices = Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]
"""Called once for each pass: consecutive slices of both tensors in row-major order."""

# 128 Ki float32 elements: two operands and a scratch fill 1.5 MiB, within a 2 MiB L2 cache.
CHUNK = 1 << 17
# A row shorter than this says little about its own size: rows are taken together up to here.
LEAST_ROW = 64
# A double squared stays a normal number between these; outside, the pair is measured again, scaled.
_SAFE_SQUARES = (1e-250, 1e300)


def row_length(shape: tuple[int, ...]) -> int:
    """Elements of one row: the last dim, or as many of them as reach 64 elements."""
    last = max(1, shape[-1]) if shape else 1
    return last * math.ceil(LEAST_ROW / last) if last < LEAST_ROW else last


class Meter:
    """Measures one pair; `add` consecutive slices of both sides, then `finish`."""

    def __init__(
        self, shape: tuple[int, ...], a: torch.dtype, b: torch.dtype, exponent: int = 0
    ) -> None:
        self.elements = math.prod(shape)
        self.bits_equal = a == b
        self.exponent = exponent
        self.tally = Tally()
        self.max_abs = Peak()
        self.worst = Peak()
        self._shape = shape
        self._type = measured_in(a, b)
        self._width = max(width(a), width(b))
        self._row = row_length(shape)
        self._long = self._row > 4 * CHUNK
        self._offset = 0
        self._open = _OpenRow()
        self._buffer = torch.empty(0)

    @property
    def out_of_range(self) -> bool:
        """Whether squares left the range of a double, so that the sums cannot be trusted."""
        if self.exponent or self._type != torch.float64:
            return False
        low, high = _SAFE_SQUARES
        norms = max(self.tally.aa, self.tally.bb)
        finite = math.isfinite(norms) and norms < high and math.isfinite(self.tally.dd)
        return not finite or (norms < low and self.tally.largest > 0)

    @property
    def rescue_exponent(self) -> int:
        """The power of two that brings the largest element near 1."""
        return math.frexp(self.tally.largest)[1] or 1

    def add(self, a: torch.Tensor, b: torch.Tensor) -> None:
        """Take the next slice of both sides; same shape on both."""
        flat_a, flat_b = a.contiguous().reshape(-1), b.contiguous().reshape(-1)
        start = 0
        while start < flat_a.numel():
            stop = start + self._next(flat_a.numel() - start)
            self._chunk(flat_a[start:stop], flat_b[start:stop])
            start = stop

    def finish(self) -> None:
        """Close the row that is still open, if any."""
        if self._open.length:
            self._close_row()

    def _next(self, left: int) -> int:
        """Elements of the next chunk: whole rows, the piece of a long row, or what is left over."""
        if self._long:
            return min(CHUNK, left, self._row - self._offset % self._row)
        return min(max(1, CHUNK // self._row), left // self._row) * self._row or left

    def _chunk(self, a: torch.Tensor, b: torch.Tensor) -> None:
        stored = a.numel()
        same = same_bits(a, b)
        self.bits_equal &= same
        cols = min(self._row, stored) * self._width
        part = self._part(a, b, cols, same)
        self.tally.add(part)
        spot = None if same else self._locate(a, b, part, cols)
        self._offset += stored
        if self._long:
            self._open.add(part, cols, spot)
            if self._offset % self._row == 0:
                self._close_row()

    def _part(self, a: torch.Tensor, b: torch.Tensor, cols: int, same: bool) -> Part:
        if self._type == torch.int64 and same:
            return equal_integers(lift(a, torch.float64))
        if self._type == torch.int64:
            both = (lift(a, torch.float64), lift(b, torch.float64))
            return exact_part(*both, lift(a, torch.int64), lift(b, torch.int64), cols)
        one = lift(a, self._type)
        two = one if same else lift(b, self._type)
        if self._type == torch.float64:
            return careful_part(one, two, cols, self.exponent)
        if same:
            return equal_part(one)
        if self._buffer.numel() < one.numel():
            self._buffer = torch.empty(one.numel())
        return fast_part(one, two, cols, self._buffer) or careful_part(one, two, cols, 0)

    def _locate(self, a: torch.Tensor, b: torch.Tensor, part: Part, cols: int) -> Spot | None:
        """Note the chunk's largest difference; of a long row's piece, return it."""
        assert part.peak is not None and part.row_aa is not None and part.row_bb is not None
        found, row = part.peak.max(0)
        top = float(found)
        spot = self._spot(a, b, int(row), cols, top) if self.max_abs.beaten_by(top) else None
        if spot is not None:
            self.max_abs.take(spot)
        if self._long:
            return spot or (self._spot(a, b, 0, cols, top) if top else None)
        scale = torch.maximum(part.row_aa, part.row_bb).div_(cols).sqrt_()
        ratio, row = torch.where(part.peak > 0, part.peak / scale, 0.0).max(0)
        if self.worst.beaten_by(float(ratio)):
            self.worst.take(self._spot(a, b, int(row), cols, float(ratio)))
        return None

    def _spot(self, a: torch.Tensor, b: torch.Tensor, row: int, cols: int, value: float) -> Spot:
        stored = cols // self._width
        begin = row * stored
        of_a, of_b = a[begin : begin + stored], b[begin : begin + stored]
        at = _farthest(of_a, of_b, self._type) // self._width
        index = unravel(self._offset + begin + at, self._shape)
        return Spot(value, index, item(of_a, at), item(of_b, at))

    def _close_row(self) -> None:
        row, self._open = self._open, _OpenRow()
        scale = math.sqrt(max(row.aa, row.bb) / row.length)
        if row.spot is not None and row.spot.value > 0:
            ratio = row.spot.value / scale if scale else math.inf
            if self.worst.beaten_by(ratio):
                self.worst.take(Spot(ratio, row.spot.index, row.spot.a, row.spot.b))


class _OpenRow:
    """A row longer than a chunk, as far as it has come."""

    def __init__(self) -> None:
        self.aa = 0.0
        self.bb = 0.0
        self.length = 0
        self.spot: Spot | None = None

    def add(self, part: Part, length: int, spot: Spot | None = None) -> None:
        self.aa += part.aa
        self.bb += part.bb
        self.length += length
        if spot is not None and (self.spot is None or spot.value > self.spot.value):
            self.spot = spot


def _farthest(a: torch.Tensor, b: torch.Tensor, to: torch.dtype) -> int:
    """Offset, in measured elements, of the largest finite difference."""
    one, two = lift(a, to), lift(b, to)
    if to == torch.int64:
        one, two = lift(a, torch.float64), lift(b, torch.float64)
    halves = (one.double() / 2).sub_(two.double() / 2).abs_()  # halved: no overflow at 1e308
    return int(halves.nan_to_num_(nan=-1.0, posinf=-1.0).argmax())
