"""From a dims text and what each rank holds to boxes of the logical tensor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import lru_cache
from itertools import accumulate, product

from twinrun.errors import DimsError, LayoutError
from twinrun.layout.box import Box, Piece
from twinrun.layout.coverage import (
    Held,
    check_axes,
    check_cells,
    common_sizes,
    refuse_twins,
    share_parts,
)
from twinrun.layout.dims import DATA_AXES, Dims, Modifier
from twinrun.layout.intervals import CutDim, Ranges
from twinrun.layout.mesh import WORLD, Mesh
from twinrun.layout.placement import Cell, Group, Placement


def place(
    dims: Dims,
    shards: Mapping[int, tuple[Mesh, tuple[int, ...]]],
    *,
    data_axes: frozenset[str] = DATA_AXES,
    name: str = "",
) -> Placement:
    """Lay the tensors that ``shards`` (rank -> mesh, local shape) describe out as ``dims`` says.

    Sizes come from the local shapes, so shards may be uneven. Ranks that differ only on axes the
    text does not name are replicas, except on ``data_axes``, where they hold other samples: give
    an empty set for parameters. Raises DimsError when the text does not fit a shape, LayoutError
    when the shards do not tile one tensor.
    """
    held = tuple((rank, mesh, tuple(shape)) for rank, (mesh, shape) in sorted(shards.items()))
    try:
        return _place(dims, held, frozenset(data_axes), "")
    except (DimsError, LayoutError):
        if not name:
            raise
    return _place(
        dims, held, frozenset(data_axes), name
    )  # the name is for the error, not a cache key


@lru_cache(maxsize=2048)
def _place(dims: Dims, held: Held, known: frozenset[str], name: str) -> Placement:
    if not held:
        raise LayoutError("no rank holds this tensor", expected="at least one shard")
    for rank, _, shape in held:
        dims.check(shape, name=name, where=f"rank {rank}")
    held = on_world(held)
    data = sorted(dims.data_axes(known))
    check_axes(dims, data, held, name)
    refuse_twins(dims, held, name)
    held = share_parts(dims, held, name)
    groups: dict[tuple[tuple[str, int], ...], list[tuple[int, Mesh, tuple[int, ...]]]] = (
        defaultdict(list)
    )
    for rank, mesh, shape in held:
        groups[tuple((axis, mesh.coordinate(axis)) for axis in data if axis in mesh)].append(
            (rank, mesh, shape)
        )
    return Placement(
        dims, tuple(_group(dims, key, tuple(groups[key]), name) for key in sorted(groups))
    )


def on_world(held: Held) -> Held:
    """Ranks that know no axis stand on ``world``, in rank order."""
    if len(held) == 1 or any(len(mesh) for _, mesh, _ in held):
        return held
    return tuple(
        (rank, Mesh({WORLD: (at, len(held))}), shape) for at, (rank, _, shape) in enumerate(held)
    )


def _group(dims: Dims, data: tuple[tuple[str, int], ...], held: Held, name: str) -> Group:
    first = held[0][1]
    sizes = {a: first[a][1] for a in dims.named_axes if a in first and first[a][1] > 1}
    on_dims = [tuple(m for m in dim.modifiers if m.axis in sizes) for dim in dims]
    summed = [axis for axis in dims.partial if axis in sizes]
    check_cells(dims, held, sizes, data, name)
    cuts = [_cut_dim(dims, at, modifiers, held, name) for at, modifiers in enumerate(on_dims)]
    cells: dict[tuple[tuple[int, ...], ...], dict[tuple[int, ...], list[int]]] = {}
    for rank, mesh, _ in held:
        key = tuple(_splitting(modifiers, mesh) for modifiers in on_dims)
        addend = tuple(mesh.coordinate(axis) for axis in summed)
        cells.setdefault(key, {}).setdefault(addend, []).append(rank)
    made = tuple(
        Cell(
            _pieces([c.ranges[at] for c, at in zip(cuts, key, strict=True)]),
            tuple(sorted(tuple(ranks) for ranks in addends.values())),
        )
        for key, addends in sorted(cells.items())
    )
    return Group(data, tuple(c.size for c in cuts), made)


def _cut_dim(dims: Dims, at: int, modifiers: tuple[Modifier, ...], held: Held, name: str) -> CutDim:
    sizes = common_sizes(dims, at, modifiers, held, name)
    return CutDim(modifiers, sizes, dims.packed_lengths(dims.dims[at]))


def _splitting(modifiers: tuple[Modifier, ...], mesh: Mesh) -> tuple[int, ...]:
    """Coordinates on the axes that split the dim; 0 for a pending sum, which changes no range."""
    return tuple(0 if m.partial else mesh.coordinate(m.axis) for m in modifiers)


def _pieces(ranges: list[Ranges]) -> tuple[Piece, ...]:
    """Every combination of one range from each dim, with where it lies locally."""
    along = [_with_offsets(held) for held in ranges]
    pieces = []
    for choice in product(*along):
        local = Box(tuple(o for o, _, _ in choice), tuple(o + b - a for o, a, b in choice))
        pieces.append(
            Piece(local, Box(tuple(a for _, a, _ in choice), tuple(b for _, _, b in choice)))
        )
    return tuple(pieces)


def _with_offsets(held: Ranges) -> list[tuple[int, int, int]]:
    offsets = accumulate((b - a for a, b in held), initial=0)
    return [(offset, a, b) for offset, (a, b) in zip(offsets, held, strict=False)]
