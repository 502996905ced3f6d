"""Who sends which box to whom, so that one layout's tensor arrives in another layout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

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
    senders = _Senders(source)
    receivers = sorted(
        _Receiver(rank, addend, len(cell.addends), at)
        for at, cell in enumerate(wanted.cells)
        for addend, ranks in enumerate(cell.addends)
        for rank in ranks
    )
    meeting = {at: list(senders.meeting(cell)) for at, cell in enumerate(wanted.cells)}
    for position, to in enumerate(receivers):
        for cell, held, box, goes in meeting[to.cell]:
            sender, adds = senders.choose(cell, to, position / len(receivers))
            yield Route(sender, to.rank, held.to_local(box), goes.to_local(box), adds)


@dataclass(frozen=True, slots=True, order=True)
class _Receiver:
    rank: int
    addend: int
    addends: int
    cell: int


_Meeting = tuple[Cell, Piece, Box, Piece]
"""A source cell, its piece, the logical box common with a wanted piece, and that piece."""


class _Senders:
    """The sending side of one group, its pieces by where they begin on the most divided dim."""

    def __init__(self, group: Group) -> None:
        self._positions = {rank: at / len(group.ranks) for at, rank in enumerate(group.ranks)}
        ranges = [
            {_range(piece, dim) for cell in group.cells for piece in cell.pieces}
            for dim in range(len(group.shape))
        ]
        self._dim = max(range(len(ranges)), key=lambda dim: len(ranges[dim]), default=None)
        self._held: dict[tuple[int, int], list[tuple[Cell, Piece]]] = {}
        for cell in group.cells:
            for piece in cell.pieces:
                self._held.setdefault(_range(piece, self._dim), []).append((cell, piece))

    def meeting(self, wanted: Cell) -> Iterator[_Meeting]:
        """What each piece of a wanted cell shares with the pieces held here."""
        for goes in wanted.pieces:
            start, stop = _range(goes, self._dim)
            near = (held for (a, b), held in self._held.items() if a < stop and start < b)
            for cell, piece in chain.from_iterable(near):
                box = piece.logical.intersect(goes.logical)
                if box is not None:
                    yield cell, piece, box, goes

    def choose(
        self, cell: Cell, to: _Receiver, position: float
    ) -> tuple[int | None, tuple[int, ...]]:
        """The sender for one receiver, and the ranks to add up when a sum is carried out."""
        nearest = tuple(self._nearest(ranks, to.rank, position) for ranks in cell.addends)
        if len(nearest) == to.addends:
            return nearest[to.addend], ()
        if to.addend > 0:
            return None, ()
        return nearest[0], nearest if cell.pending else ()

    def _nearest(self, ranks: tuple[int, ...], receiver: int, position: float) -> int:
        if receiver in ranks:
            return receiver
        return min(ranks, key=lambda rank: (abs(self._positions[rank] - position), rank))


def _range(piece: Piece, dim: int | None) -> tuple[int, int]:
    """The logical range on ``dim``; a 0-dim piece lies in one range."""
    if dim is None:
        return 0, 1
    return piece.logical.starts[dim], piece.logical.stops[dim]
