"""Every layout that would explain the shapes that ranks hold, by shapes alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import combinations, product
from math import prod

from twinrun.errors import LayoutError
from twinrun.layout.coverage import Held
from twinrun.layout.dims import DATA_AXES, Dim, Dims, Modifier
from twinrun.layout.mesh import Mesh
from twinrun.layout.place import on_world, place
from twinrun.layout.placement import Placement

TRIES = 4096
"""More assignments of axes to dims than this are not tried; LayoutError says so."""

Shards = Mapping[int, tuple[Mesh, tuple[int, ...]]]


def fits(
    shards: Shards,
    whole: tuple[int, ...] | None,
    *,
    data_axes: frozenset[str] = DATA_AXES,
    like: Dims | None = None,
) -> tuple[Placement, ...]:
    """All placements that make ``whole`` (any shape when None) from these local shapes.

    Each axis splits one dim in the order of ranks, or is unnamed: replicas, or other samples on
    ``data_axes``. The first is the one with the fewest axes on dims. Layouts that say the same
    in other words count once. No pending sums, no zigzag: shapes do not show them. ``like`` lends
    its dims' names. LayoutError when there is too much to try.
    """
    held = tuple((rank, mesh, tuple(shape)) for rank, (mesh, shape) in sorted(shards.items()))
    names = _names(len(held[0][2]), like) if held else ()
    return _fits(on_world(held), whole, frozenset(data_axes), names)


def pending(placement: Placement, shards: Shards, data_axes: frozenset[str]) -> Iterator[Placement]:
    """The same placement with a sum pending over one unnamed axis, over two, and so on."""
    held = on_world(tuple((rank, *shards[rank]) for rank in sorted(shards)))
    dims = placement.dims
    free = [axis for axis in _axes(held) if axis not in dims.named_axes]
    free = [axis for axis in free if axis not in dims.data_axes(data_axes)]
    seen = {placement.groups}
    for count in range(1, len(free) + 1):
        for axes in combinations(free, count):
            summed = _try(Dims(dims.dims, axes), held, data_axes)
            if summed is not None and summed.groups not in seen:
                seen.add(summed.groups)
                yield summed


def unnamed(count: int) -> Dims:
    """Dims called d0, d1, ..., on which no axis lies."""
    return Dims(tuple(Dim((f"d{at}",)) for at in range(count)))


@lru_cache(maxsize=1024)
def _fits(
    held: Held, whole: tuple[int, ...] | None, known: frozenset[str], names: tuple[Dim, ...]
) -> tuple[Placement, ...]:
    if len({len(shape) for _, _, shape in held}) != 1 or (whole and len(whole) != len(names)):
        return ()
    axes = _axes(held)
    choices = [list(_roles(axis, held, whole)) for axis in axes]
    tries = 1
    for roles in choices:
        tries *= len(roles)
    if tries > TRIES:
        raise LayoutError(
            f"{tries} layouts would have to be tried for {len(axes)} axes and {len(names)} dims",
            expected=f"at most {TRIES}",
            do="annotate the tensor, or name its dims in a layout file",
        )
    found: dict[object, Placement] = {}
    for assigned in sorted(product(*choices), key=_plainness):
        dims = _assigned(names, axes, assigned)
        if not _may_make(dims, held, whole):
            continue
        placement = _try(dims, held, known)
        if placement is not None and _makes(placement, whole):
            found.setdefault(placement.groups, placement)
    return tuple(found.values())


_Role = tuple[int, int] | None
"""The dim that an axis splits and how many neighbours share a part; None leaves it unnamed."""


def _roles(axis: str, held: Held, whole: tuple[int, ...] | None) -> Iterator[_Role]:
    yield None
    size = held[0][1][axis][1]
    if size > len(held):  # some coordinate is held by nobody
        return
    for dim, local in enumerate(held[0][2]):
        if whole is not None and all(shape[dim] == whole[dim] for _, _, shape in held):
            continue
        yield dim, 1
        if whole is not None and local and whole[dim] % local == 0:
            repeats = (r for r in range(2, size) if size % r == 0)
            yield from ((dim, r) for r in repeats)


def _plainness(roles: tuple[_Role, ...]) -> tuple[int, list[bool]]:
    """Few axes on dims before many, and axes named first before those named later."""
    unused = [role is None for role in roles]
    return len(roles) - sum(unused), unused


def _assigned(names: tuple[Dim, ...], axes: list[str], roles: tuple[_Role, ...]) -> Dims:
    """Axes come outermost first, so on one dim they keep the order of ranks."""
    on: dict[int, list[Modifier]] = {}
    for axis, role in zip(axes, roles, strict=True):
        if role is not None:
            on.setdefault(role[0], []).append(Modifier(axis, repeat=role[1]))
    return Dims(tuple(Dim(dim.names, tuple(on.get(at, ()))) for at, dim in enumerate(names)))


def _may_make(dims: Dims, held: Held, whole: tuple[int, ...] | None) -> bool:
    """Whether sizes multiply to ``whole``, which costs nothing to see where all shards are alike."""
    local, mesh = held[0][2], held[0][1]
    if whole is None or any(shape != local for _, _, shape in held):
        return True
    parts = (prod(mesh[m.axis][1] // m.repeat for m in dim.modifiers) for dim in dims)
    return all(n * count == size for n, count, size in zip(local, parts, whole, strict=True))


def _try(dims: Dims, held: Held, known: frozenset[str]) -> Placement | None:
    try:
        return place(dims, {rank: (mesh, shape) for rank, mesh, shape in held}, data_axes=known)
    except LayoutError:
        return None


def _makes(placement: Placement, whole: tuple[int, ...] | None) -> bool:
    shapes = {group.shape for group in placement.groups}
    return len(shapes) == 1 if whole is None else shapes == {whole}


def _axes(held: Held) -> list[str]:
    """Axes of more than one rank that every rank knows, the one with the largest rank step first."""
    common = [a for a in held[0][1] if held[0][1][a][1] > 1 and all(a in m for _, m, _ in held)]
    return sorted(common, key=lambda axis: -_step(axis, held))


def _step(axis: str, held: Held) -> int:
    """How far the rank number moves from coordinate 0 to the next one that is there."""
    first: dict[int, int] = {}
    for rank, mesh, _ in held:
        first.setdefault(mesh.coordinate(axis), rank)
    ordered = [first[at] for at in sorted(first)]
    return ordered[1] - ordered[0] if len(ordered) > 1 else 0


def _names(count: int, like: Dims | None) -> tuple[Dim, ...]:
    if like is None or len(like) != count:
        return unnamed(count).dims
    return tuple(Dim((f"one{at}",) if dim.squeezed else dim.names) for at, dim in enumerate(like))
