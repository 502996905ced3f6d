"""Who sends which box to whom, so that one layout's tensor arrives in another layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter

from twinrun.errors import LayoutError
from twinrun.layout.box import Box, Piece
from twinrun.layout.placement import Cell, Group, Placement


@dataclass(frozen=True, slots=True)
class Route:
    """One box on its way to one receiver.

    ``source``: where the box lies in the sender's own tensor; ``wanted``: where it goes in the
    receiver's. ``adds``: empty, or the ranks whose values at ``source`` are to be added up in this
    order (``sender`` is the first of them). ``sender`` None: nothing travels, the receiver fills
    ``wanted`` with zeros (it holds a further addend of a sum that is pending on its side).
    """

    sender: int | None
    receiver: int
    source: Box
    wanted: Box
    adds: tuple[int, ...] = ()


def routes(source: Placement, wanted: Placement) -> tuple[Route, ...]:
    """The plan that brings ``source``'s tensor into ``wanted``'s layout, ordered by receiver.

    Every element that a receiver holds is the target of exactly one route. Of several replicas the
    one with the receiver's own rank number sends, else the nearest by position. A sum pending on
    both sides with as many addends stays pending; otherwise it is carried out on the way (``adds``)
    and a sum pending on the wanted side gets the value as its first addend and zeros as the rest.
    Raises LayoutError when the two are not the same logical tensors.
    """
    return _routes(source.groups, wanted.groups)


@lru_cache(maxsize=512)
def _routes(source: tuple[Group, ...], wanted: tuple[Group, ...]) -> tuple[Route, ...]:
    pairs = _pair_groups(source, wanted)
    return tuple(route for pair in pairs for route in _group_routes(*pair))


def _pair_groups(source: Sequence[Group], wanted: Sequence[Group]) -> list[tuple[Group, Group]]:
    """Groups by data coordinates; one group on each side is a pair whatever the coordinates."""
    if len(source) == len(wanted) == 1:
        pairs = [(source[0], wanted[0])]
    else:
        by_data = {_coordinates(group): group for group in source}
        missing = [g for g in wanted if _coordinates(g) not in by_data]
        if missing or len(source) != len(wanted):
            raise LayoutError(
                "the two sides hold different samples",
                seen=f"{len(source)} on the sending side, {len(wanted)} on the receiving side",
                expected="the same data coordinates on both sides",
                do="name the data axis in the dims (for instance 'b[dp]') if it splits one tensor",
            )
        pairs = [(by_data[_coordinates(g)], g) for g in wanted]
    for have, want in pairs:
        if have.shape != want.shape:
            raise LayoutError(
                f"a tensor of shape {list(have.shape)} cannot be sent into shape {list(want.shape)}",
                seen=f"held by ranks {list(have.ranks)}, wanted by ranks {list(want.ranks)}",
                expected="one logical shape on both sides",
                do="compare the dims texts of the two sides",
            )
    return pairs


def _coordinates(group: Group) -> tuple[int, ...]:
    return tuple(coordinate for _, coordinate in group.data)


def _group_routes(source: Group, wanted: Group) -> Iterator[Route]:
    receivers = sorted(
        (
            (rank, addend, cell)
            for cell in wanted.cells
            for addend, ranks in enumerate(cell.addends)
            for rank in ranks
        ),
        key=itemgetter(0),
    )
    positions = {rank: at / len(wanted.ranks) for at, rank in enumerate(wanted.ranks)}
    for rank, addend, cell in receivers:
        for piece in cell.pieces:
            for other in source.cells:
                yield from _piece_routes(
                    other,
                    source,
                    piece,
                    _Receiver(rank, positions[rank], addend, len(cell.addends)),
                )


@dataclass(frozen=True, slots=True)
class _Receiver:
    rank: int
    position: float
    addend: int
    addends: int


def _piece_routes(cell: Cell, source: Group, piece: Piece, to: _Receiver) -> Iterator[Route]:
    for held in cell.pieces:
        box = held.logical.intersect(piece.logical)
        if box is not None:
            sender, adds = _senders(cell, source, to)
            yield Route(sender, to.rank, held.to_local(box), piece.to_local(box), adds)


def _senders(cell: Cell, source: Group, to: _Receiver) -> tuple[int | None, tuple[int, ...]]:
    """The sender for one receiver, and the ranks to add up when a sum is carried out."""
    nearest = [_nearest(ranks, source, to) for ranks in cell.addends]
    if len(nearest) == to.addends:
        return nearest[to.addend], ()
    if to.addend > 0:
        return None, ()
    return nearest[0], tuple(nearest) if cell.pending else ()


def _nearest(ranks: tuple[int, ...], source: Group, to: _Receiver) -> int:
    if to.rank in ranks:
        return to.rank
    return min(
        ranks, key=lambda r: (abs(source.ranks.index(r) / len(source.ranks) - to.position), r)
    )
