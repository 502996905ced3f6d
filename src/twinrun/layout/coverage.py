"""Refusing shards that cannot tile one tensor: gaps, twins, axes and sizes that disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from twinrun.errors import LayoutError
from twinrun.layout.dims import Dims, Modifier
from twinrun.layout.mesh import Mesh

Held = tuple[tuple[int, Mesh, tuple[int, ...]], ...]
"""(rank, mesh, local shape) for each rank, ascending by rank."""


def check_axes(dims: Dims, data: Sequence[str], held: Held, name: str) -> None:
    """Each axis that matters is known to every rank, with one size, or to none at all."""
    for axis in (*dims.named_axes, *data):
        first, first_mesh, _ = held[0]
        for rank, mesh, _ in held[1:]:
            if (axis in mesh) != (axis in first_mesh) or (
                axis in mesh and mesh[axis][1] != first_mesh[axis][1]
            ):
                raise LayoutError(
                    f"ranks {first} and {rank} disagree on axis {axis!r}{_of(name)}",
                    seen=f"rank {first} at {_at(first_mesh)}, rank {rank} at {_at(mesh)}",
                    expected=f"axis {axis!r} with one size on every rank, as dims {str(dims)!r} use it",
                    do="name the coordinates of every rank (--mesh)",
                )


def refuse_twins(dims: Dims, held: Held, name: str) -> None:
    """No two ranks stand at the same coordinates: nothing would say how they differ."""
    known: dict[Mesh, tuple[int, tuple[int, ...]]] = {}
    for rank, mesh, shape in held:
        if mesh in known:
            other, other_shape = known[mesh]
            raise LayoutError(
                f"ranks {other} and {rank} claim the same box{_of(name)}",
                seen=f"both at {_at(mesh)}, holding {list(other_shape)} and {list(shape)}",
                expected="coordinates that tell the two apart",
                do="name the missing axis (--mesh), for instance --mesh dp=2,tp=2",
            )
        known[mesh] = (rank, shape)
    _refuse_unknown_axes(dims, held, name)


def _refuse_unknown_axes(dims: Dims, held: Held, name: str) -> None:
    """An axis that no rank has is of size 1, unless ``world`` is all that is known of the ranks."""
    missing = [axis for axis in dims.named_axes if axis not in held[0][1]]
    if missing and len(held) > 1 and all(list(mesh) == ["world"] for _, mesh, _ in held):
        raise LayoutError(
            f"ranks {held[0][0]} and {held[1][0]} claim the same box{_of(name)}",
            seen=f"dims {str(dims)!r} on {len(held)} ranks whose coordinates are unknown",
            expected=f"a coordinate on axis {missing[0]!r} for each rank",
            do=f"name the axes, for instance --mesh {missing[0]}={len(held)}",
        )


def share_parts(dims: Dims, held: Held, name: str) -> Held:
    """``held`` with neighbours that a ``repeat`` declares to share a part moved to one coordinate."""
    repeats = {m.axis: m.repeat for dim in dims for m in dim.modifiers if m.repeat > 1}
    if not repeats:
        return held
    moved = []
    for rank, mesh, shape in held:
        axes = dict(mesh)
        for axis in repeats.keys() & axes.keys():
            (at, size), count = axes[axis], repeats[axis]
            if size % count:
                raise LayoutError(
                    f"axis {axis!r} of size {size} has no whole number of {count} neighbours{_of(name)}",
                    seen=f"dims {str(dims)!r}, rank {rank} at {_at(mesh)}",
                    expected=f"a repeat that divides {size}",
                )
            axes[axis] = (at // count, size // count)
        moved.append((rank, Mesh(axes), shape))
    return tuple(moved)


def check_cells(
    dims: Dims, held: Held, sizes: Mapping[str, int], data: tuple[tuple[str, int], ...], name: str
) -> None:
    """Every combination of coordinates on the axes that the text names is held by some rank."""
    axes = list(sizes)
    found = {tuple(mesh.coordinate(axis) for axis in axes): rank for rank, mesh, _ in held}
    if len(found) == prod(sizes.values()):
        return
    missing = _first_missing(sizes, set(found))
    where = " ".join(f"{axis}={at}/{sizes[axis]}" for axis, at in zip(axes, missing, strict=True))
    raise LayoutError(
        f"no rank holds {where}{_of(name)}, which dims {str(dims)!r} need: a gap",
        seen=", ".join(f"rank {rank} at {_at(mesh)}" for rank, mesh, _ in held[:8])
        + (", ..." if len(held) > 8 else ""),
        expected=f"{prod(sizes.values())} different places"
        + (f" for {' '.join(f'{a}={c}' for a, c in data)}" if data else ""),
        do="record the tensor on every rank that holds a part of it",
    )


def _first_missing(sizes: Mapping[str, int], found: set[tuple[int, ...]]) -> tuple[int, ...]:
    """The first place that nobody holds; among len(found) + 1 places there must be one."""
    for rank in range(len(found) + 1):
        place = tuple(at for at, _ in Mesh.at(rank, sizes).values())
        if place not in found:
            return place
    raise AssertionError("more places are held than there are")


def common_sizes(
    dims: Dims, at: int, modifiers: tuple[Modifier, ...], held: Held, name: str
) -> dict[tuple[int, ...], int]:
    """Local size of dim ``at`` for each place on its axes; ranks at one place must agree."""
    sizes: dict[tuple[int, ...], tuple[int, int]] = {}
    for rank, mesh, shape in held:
        place = tuple(mesh.coordinate(m.axis) for m in modifiers)
        other, size = sizes.setdefault(place, (rank, shape[at]))
        if size != shape[at]:
            where = " ".join(f"{m.axis}={c}" for m, c in zip(modifiers, place, strict=True))
            raise LayoutError(
                f"ranks {other} and {rank} claim the same box{_of(name)}, but their sizes differ",
                seen=f"dim {dims.dims[at].name!r} is {size} on rank {other} and {shape[at]} on rank {rank}",
                expected=f"one size for {where}" if where else "one size: no axis splits this dim",
                do=f"say which axis splits {dims.dims[at].name!r}, for instance '{dims.dims[at].name}[tp]'",
            )
    return {place: size for place, (_, size) in sizes.items()}


def _of(name: str) -> str:
    return f" of {name!r}" if name else ""


def _at(mesh: Mesh) -> str:
    return str(mesh) or "no coordinates"
