"""Whether ranks that should hold the same bits do."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from twinrun.comparison.assemble import INTEGERS, as_integers, boxes
from twinrun.comparison.shards import Fetch
from twinrun.layout import Box, Group, Piece, Placement
from twinrun.numerics.bits import same_bits
from twinrun.numerics.lift import lift, width

# Differences are measured in float64 with several copies of a slice alive, so slices are smaller.
_REPLICA_BYTES = 8 << 20

Number = float | int | bool | complex


@dataclass(frozen=True, slots=True)
class ReplicaDifference:
    """Two ranks that should be equal and are not, the first of the group against another.

    ``differing`` of ``elements`` have other bits. ``index`` is that of the worst element in the
    logical tensor, ``values`` and ``bits`` (hex) are both ranks' there, and ``max_abs`` is how far
    apart they lie: inf for a NaN or Inf on one side only, 0 where only the sign of a zero or a NaN's
    payload differs. ``reason`` is ``dtype`` or ``shape`` when these differ, and then nothing else is
    measured.
    """

    ranks: tuple[int, int]
    elements: int
    differing: int
    index: tuple[int, ...] = ()
    values: tuple[Number | str, Number | str] = ("", "")
    bits: tuple[str, str] = ("", "")
    max_abs: float = 0.0
    reason: str = ""


@dataclass(slots=True)
class _Worst:
    distance: float = -1.0
    index: tuple[int, ...] = ()


def check_replicas(
    placed: Group | Placement, fetch: Fetch, limit_bytes: int = _REPLICA_BYTES
) -> list[ReplicaDifference]:
    """Every rank that differs from the first of its replicas, in rank order; [] when all agree.

    Memory stays within a few times ``limit_bytes``; NaNs with equal bits are equal.
    """
    groups = (placed,) if isinstance(placed, Group) else placed.groups
    return [
        found
        for group in groups
        for cell in group.cells
        for first, *others in cell.addends
        for other in others
        if (found := _difference(first, other, cell.pieces, fetch, limit_bytes)) is not None
    ]


def _difference(
    first: int, other: int, pieces: tuple[Piece, ...], fetch: Fetch, limit_bytes: int
) -> ReplicaDifference | None:
    a, b = fetch(first), fetch(other)
    ranks, elements = (first, other), a.numel()
    if a.dtype != b.dtype:
        return ReplicaDifference(ranks, elements, elements, reason="dtype")
    if a.shape != b.shape:
        return ReplicaDifference(ranks, elements, elements, reason="shape")
    a, b, worst, differing = _measurable(a), _measurable(b), _Worst(), 0
    for box in boxes(tuple(a.shape), max(1, limit_bytes // a.element_size())):
        one, two = (a[box.slices], b[box.slices]) if box.shape else (a, b)
        if not same_bits(one, two):
            differing += _look_closer(one, two, box, worst)
    if not differing:
        return None
    return _described(ranks, a, b, worst, differing, _logical(worst.index, pieces))


def _measurable(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself, or its bytes where torch can do nothing with the dtype."""
    known = tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype in INTEGERS
    return tensor if known else as_integers(tensor)


def _look_closer(a: torch.Tensor, b: torch.Tensor, box: Box, worst: _Worst) -> int:
    """Count elements with other bits in one slice, and keep the farthest pair of all slices."""
    unequal = (as_integers(a) != as_integers(b)).reshape(-1)
    if a.dtype == torch.complex128:  # compared as numbers above: -0.0 and NaNs need their bits
        unequal = (_halves(a) != _halves(b)).any(-1)
    away = torch.where(unequal, _distances(a, b), -1.0)
    distance, flat = away.max(0)
    if float(distance) > worst.distance:
        worst.distance = float(distance)
        inside = torch.unravel_index(flat, a.shape) if a.dim() else ()
        worst.index = tuple(int(i) + s for i, s in zip(inside, box.starts, strict=True))
    return int(unequal.sum())


def _halves(tensor: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(tensor.resolve_conj()).contiguous().view(torch.int64).reshape(-1, 2)


def _distances(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """|a-b| for each element as float64; inf where one side alone is NaN or infinite."""
    one, two = lift(a, torch.float64), lift(b, torch.float64)
    both_nan = one.isnan() & two.isnan()
    away = torch.where((one == two) | both_nan, 0.0, (one - two).abs()).nan_to_num_(nan=math.inf)
    return away.view(-1, width(a.dtype)).amax(-1)


def _logical(index: tuple[int, ...], pieces: tuple[Piece, ...]) -> tuple[int, ...]:
    """The logical index of a local one."""
    here = Box(index, tuple(i + 1 for i in index))
    piece = next(piece for piece in pieces if piece.local.contains(here))
    return piece.to_logical(here).starts


def _described(
    ranks: tuple[int, int],
    a: torch.Tensor,
    b: torch.Tensor,
    worst: _Worst,
    differing: int,
    index: tuple[int, ...],
) -> ReplicaDifference:
    one, two = a[worst.index], b[worst.index]
    values = (_number(one), _number(two))
    exact = all(isinstance(v, int) for v in values)
    apart = float(abs(int(values[0]) - int(values[1]))) if exact else worst.distance  # type: ignore[arg-type]
    return ReplicaDifference(
        ranks, a.numel(), differing, index, values, (_hex(one), _hex(two)), apart
    )


def _number(element: torch.Tensor) -> Number | str:
    return _hex(element) if element.dtype == torch.float4_e2m1fn_x2 else element.item()


def _hex(element: torch.Tensor) -> str:
    """The element's bits, most significant first."""
    raw = element.resolve_conj().reshape(1).contiguous().view(torch.uint8).tolist()
    return "0x" + bytes(reversed(raw)).hex()
