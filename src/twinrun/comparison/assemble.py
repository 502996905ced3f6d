"""The logical tensor from what the ranks hold, slice by slice, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

import torch

from twinrun.comparison.shards import Fetch
from twinrun.errors import LayoutError
from twinrun.layout import Box, Cell, Group, Piece, Placement

SLICE_BYTES = 32 << 20
"""Bytes of one slice unless the caller says otherwise: a few caches' worth, far below a tensor."""

INTEGERS = (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64,
    torch.uint16, torch.uint32, torch.uint64,
)  # fmt: skip
"""Whole-number dtypes that torch can add and compare; the sub-byte ones it cannot."""

_INTEGER_BY_BYTES = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def assemble(placed: Group | Placement, fetch: Fetch) -> torch.Tensor:
    """The whole logical tensor at once; a view of a rank's own tensor where one rank holds it all."""
    group = _only(placed)
    return read(group, Box.whole(group.shape), fetch)


def slices(
    placed: Group | Placement, fetch: Fetch, limit_bytes: int = SLICE_BYTES
) -> Iterator[tuple[Box, torch.Tensor]]:
    """The logical tensor in order, as boxes of at most ``limit_bytes`` with their values.

    A slice that lies within one rank's piece is a view of what ``fetch`` returned; others are new
    tensors. Values keep their dtype, except pending sums (see `read`). An empty tensor is one
    empty slice. LayoutError for a Placement of several groups.
    """
    group = _only(placed)
    for box in boxes(group.shape, limit_bytes // itemsize(group, fetch)):
        yield box, read(group, box, fetch)


def boxes(shape: tuple[int, ...], elements: int) -> Iterator[Box]:
    """Boxes of at most ``elements`` (at least one element) that tile ``shape`` in row-major order."""
    if not prod(shape) or not shape:
        yield Box.whole(shape)
        return
    at = next(
        d for d in range(len(shape)) if prod(shape[d + 1 :]) <= elements or d + 1 == len(shape)
    )
    rows = max(1, elements // prod(shape[at + 1 :]))
    for outer in product(*(range(n) for n in shape[:at])):
        for start in range(0, shape[at], rows):
            yield Box(
                (*outer, start, *([0] * (len(shape) - at - 1))),
                (*(i + 1 for i in outer), min(start + rows, shape[at]), *shape[at + 1 :]),
            )


def read(group: Group, box: Box, fetch: Fetch) -> torch.Tensor:
    """The values of one box of the logical tensor.

    A view where one rank's piece holds all of the box. Pending sums are added in rank order of the
    addends, in float32 (float64 for float64, complex64 and complex128 likewise, int64 for integers
    and bools) and are returned in that type. LayoutError when ranks hold different dtypes, or
    another shape than the group was placed with.
    """
    parts = [
        (cell, piece, common)
        for cell in group.cells
        for piece in cell.pieces
        if (common := piece.logical.intersect(box)) is not None
    ]
    if len(parts) == 1 and parts[0][2] == box:
        return _value(*parts[0], fetch)
    if not parts:
        return torch.empty(box.shape, dtype=_first(group, fetch).dtype)
    return _gathered(parts, box, fetch)


def itemsize(group: Group, fetch: Fetch) -> int:
    """Bytes of one element of the logical tensor."""
    first = _first(group, fetch)
    return summed_in(first.dtype).itemsize if group.cells[0].pending else first.element_size()


def summed_in(dtype: torch.dtype) -> torch.dtype:
    """The type in which a pending sum of ``dtype`` is added; LayoutError where it has no sums."""
    if dtype in (torch.float64, torch.complex128):
        return dtype
    if dtype.is_complex:
        return torch.complex64
    if dtype.is_floating_point and dtype != torch.float4_e2m1fn_x2:
        return torch.float32
    if dtype in INTEGERS:
        return torch.int64
    raise LayoutError(
        f"a pending sum of {str(dtype).removeprefix('torch.')} values cannot be carried out",
        expected="floats, complex numbers, integers or bools",
        do="record the tensor after the sum",
    )


def as_integers(tensor: torch.Tensor) -> torch.Tensor:
    """The same elements as integers of their size, a view; complex128 keeps its type.

    Copying and bit tests work on integers for every dtype, NaN payloads and signs included.
    """
    tensor = tensor.resolve_conj().resolve_neg()
    integer = _INTEGER_BY_BYTES.get(tensor.element_size())
    return tensor.view(integer) if integer is not None else tensor


def _only(placed: Group | Placement) -> Group:
    return placed if isinstance(placed, Group) else placed.group


def _first(group: Group, fetch: Fetch) -> torch.Tensor:
    return fetch(group.cells[0].addends[0][0])


def _gathered(parts: list[tuple[Cell, Piece, Box]], box: Box, fetch: Fetch) -> torch.Tensor:
    cell, piece, common = parts[0]
    value = _value(cell, piece, common, fetch)
    dtype, bits = value.dtype, as_integers(value)
    out = torch.empty(box.shape, dtype=bits.dtype)
    out[common.relative_to(box).slices] = bits
    for other, piece, common in parts[1:]:
        value = _value(other, piece, common, fetch)
        if value.dtype != dtype:
            raise _dtypes_differ(cell.ranks[0], dtype, other.ranks[0], value.dtype)
        out[common.relative_to(box).slices] = as_integers(value)
    return out.view(dtype)


def _value(cell: Cell, piece: Piece, common: Box, fetch: Fetch) -> torch.Tensor:
    local = piece.to_local(common)
    if not cell.pending:
        return _local(cell.addends[0][0], local, fetch)
    first, *others = (ranks[0] for ranks in cell.addends)
    start = _local(first, local, fetch)
    total = start.to(summed_in(start.dtype), copy=True)
    for rank in others:
        addend = _local(rank, local, fetch)
        if addend.dtype != start.dtype:
            raise _dtypes_differ(first, start.dtype, rank, addend.dtype)
        total += addend.to(total.dtype)
    return total


def _local(rank: int, box: Box, fetch: Fetch) -> torch.Tensor:
    tensor = fetch(rank)
    if tensor.dim() == len(box.shape):
        part = tensor[box.slices] if box.shape else tensor
        if tuple(part.shape) == box.shape:
            return part
    raise LayoutError(
        f"rank {rank} holds a tensor of shape {list(tensor.shape)}, which lacks box {box}",
        expected="the shape with which the tensor was placed",
    )


def _dtypes_differ(one: int, first: torch.dtype, other: int, second: torch.dtype) -> LayoutError:
    return LayoutError(
        f"ranks {one} and {other} hold parts of one tensor in different dtypes",
        seen=f"{first} on rank {one}, {second} on rank {other}",
        expected="one dtype for every part",
        do="see why the program casts on one rank only",
    )
