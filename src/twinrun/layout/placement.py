"""Which rank holds which box of which logical tensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from twinrun.errors import LayoutError
from twinrun.layout.box import Piece
from twinrun.layout.dims import Dims


@dataclass(frozen=True, slots=True)
class Cell:
    """The pieces that several ranks hold alike.

    ``addends``: for each value whose sum is the tensor here, the ranks that hold it (replicas of
    each other); one entry when no sum is pending. Ranks and addends are in rank order.
    """

    pieces: tuple[Piece, ...]
    addends: tuple[tuple[int, ...], ...]

    @property
    def pending(self) -> bool:
        return len(self.addends) > 1

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(sorted(rank for holders in self.addends for rank in holders))


@dataclass(frozen=True)
class Group:
    """One logical tensor: its data coordinates, shape, and cells whose pieces tile it exactly."""

    data: tuple[tuple[str, int], ...]
    shape: tuple[int, ...]
    cells: tuple[Cell, ...]

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """Every rank that holds a part, ascending."""
        return tuple(sorted(rank for cell in self.cells for rank in cell.ranks))

    @cached_property
    def pieces(self) -> dict[int, tuple[Piece, ...]]:
        return {rank: cell.pieces for cell in self.cells for rank in cell.ranks}


@dataclass(frozen=True)
class Placement:
    """How ranks hold a tensor: one group for each data coordinate, in the order of coordinates."""

    dims: Dims
    groups: tuple[Group, ...]

    @property
    def group(self) -> Group:
        """The only group; LayoutError when the ranks hold different samples."""
        if len(self.groups) == 1:
            return self.groups[0]
        held = ", ".join(_data_text(group) for group in self.groups)
        raise LayoutError(
            f"these ranks hold {len(self.groups)} tensors of different samples, not one",
            seen=held,
            do="take them one by one (placement.groups), or name the data axis, for instance 'b[dp]'",
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The logical shape; LayoutError when the ranks hold different samples."""
        return self.group.shape

    @cached_property
    def pieces(self) -> dict[int, tuple[Piece, ...]]:
        """rank -> its pieces; empty where a rank's own tensor has no elements."""
        return {rank: held for group in self.groups for rank, held in group.pieces.items()}

    @cached_property
    def replicas(self) -> tuple[tuple[int, ...], ...]:
        """Groups of two or more ranks whose tensors should be the same bits."""
        cells = (cell for group in self.groups for cell in group.cells)
        return tuple(ranks for cell in cells for ranks in cell.addends if len(ranks) > 1)

    @cached_property
    def partial(self) -> tuple[tuple[int, ...], ...]:
        """Groups of ranks whose values add up to the tensor, in the order of addition."""
        cells = (cell for group in self.groups for cell in group.cells if cell.pending)
        return tuple(sums for cell in cells for sums in zip(*cell.addends, strict=False))


def _data_text(group: Group) -> str:
    return " ".join(f"{axis}={at}" for axis, at in group.data) + f": {list(group.shape)}"
