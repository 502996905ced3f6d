"""Each rank's own tensor against what the other run has in its place."""

from __future__ import annotations

import torch

from twinrun.comparison.alignment import Side
from twinrun.comparison.assemble import as_integers, boxes
from twinrun.comparison.logical import Logical
from twinrun.comparison.painting import SLICE, Painter
from twinrun.comparison.picture import RankPicture
from twinrun.comparison.result import SideName
from twinrun.layout import Cell, Group, Piece

RANKS = 64
"""Most ranks that are drawn."""
_BINS = (16, 24)


def rank_pictures(
    one: Side, two: Side, at: int, side: SideName
) -> tuple[tuple[RankPicture, ...], tuple[str, ...]]:
    """A picture for each rank of `side` in data group `at`, and what is left out.

    None where that side is one rank, or where the two sides name their dims in other orders.
    """
    own, other = (two, one) if side == "target" else (one, two)
    if own.placement is None or len(own.held.records) < 2:
        return (), ()
    group, whole = own.placement.groups[at], other.groups[at]
    if group.shape != whole.shape:
        return (), ("ranks are not drawn one by one: the sides order their dims differently",)
    ranks = group.ranks[:RANKS]
    cells = {rank: cell for cell in group.cells for rank in cell.ranks}
    drawn = tuple(_of_rank(own, group, cells[rank], rank, whole, side) for rank in ranks)
    left = len(group.ranks) - len(ranks)
    return drawn, (f"the first {RANKS} ranks are drawn, {left} are not",) if left else ()


def _of_rank(
    own: Side, group: Group, cell: Cell, rank: int, whole: Logical, side: SideName
) -> RankPicture:
    mine = own.held.shards[rank].fetch()
    theirs = _there(cell.pieces, tuple(mine.shape), whole)
    pair = (theirs, mine) if side == "target" else (mine, theirs)
    painter = Painter(tuple(mine.shape), pair[0].dtype, pair[1].dtype, _BINS)
    for box in boxes(tuple(mine.shape), SLICE):
        painter.add(box, *(one[box.slices] if box.shape else one for one in pair))
    held = _parts(cell.pieces, group.shape)
    return RankPicture(rank, held, painter.relative_l2, cell.pending, painter.heat)


def _there(pieces: tuple[Piece, ...], shape: tuple[int, ...], whole: Logical) -> torch.Tensor:
    """The other run's values where this rank's lie, in this rank's own order."""
    if len(pieces) == 1 and pieces[0].local.shape == shape:
        return whole.read(pieces[0].logical)
    parts = [(piece.local, whole.read(piece.logical)) for piece in pieces]
    out = torch.zeros(shape, dtype=whole.dtype)
    bits = as_integers(out)
    for local, values in parts:
        bits[local.slices] = as_integers(values)
    return out


def _parts(pieces: tuple[Piece, ...], shape: tuple[int, ...]) -> str:
    """The held part in index notation, ``[:, :, 64:128]``; ``all`` where it is everything."""
    if len(pieces) == 1 and pieces[0].logical.shape == shape:
        return "all"
    told = [_index(piece, shape) for piece in pieces[:2]]
    return " and ".join(told) + (f" and {len(pieces) - 2} more" if len(pieces) > 2 else "")


def _index(piece: Piece, shape: tuple[int, ...]) -> str:
    box = piece.logical
    along = zip(box.starts, box.stops, shape, strict=True)
    return f"[{', '.join(':' if (a, b) == (0, n) else f'{a}:{b}' for a, b, n in along)}]"
