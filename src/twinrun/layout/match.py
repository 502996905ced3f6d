"""Two logical tensors whose dims have the same names, brought to one order and one shape."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from twinrun.layout.box import Box
from twinrun.layout.dims import Dims

Unit = tuple[str, ...]
"""A dim of meaning: one name, or the names of a dim that is fused alike on both sides."""


@dataclass(frozen=True, slots=True)
class View:
    """How to see a tensor: each of its dims cut into ``parts``, then permuted by ``order``.

    ``parts`` has one entry a dim: () for a squeezed one, several sizes for a fused one. A tensor
    x becomes ``x.reshape(split).permute(order)``; `hull`, `split_of` and `within` do the same for
    a box of the result without touching the rest of x.
    """

    parts: tuple[tuple[int, ...], ...]
    order: tuple[int, ...]

    @property
    def split(self) -> tuple[int, ...]:
        """The shape after cutting, before permuting."""
        return tuple(size for part in self.parts for size in part)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the result."""
        return tuple(self.split[at] for at in self.order)

    @property
    def identity(self) -> bool:
        """Whether nothing changes."""
        return self.order == tuple(range(len(self.order))) and all(len(p) == 1 for p in self.parts)

    def hull(self, box: Box) -> Box:
        """The box of the tensor as it is that holds ``box`` of the result; fused dims in whole rows."""
        starts, stops = [], []
        ranges = iter(self._before_permuting(box))
        for part in self.parts:
            first = [next(ranges) for _ in part]
            row = prod(part[1:])
            low, high = first[0] if first else (0, 1)
            starts.append(low * row)
            stops.append(high * row)
        return Box(tuple(starts), tuple(stops))

    def split_of(self, hull: Box) -> tuple[int, ...]:
        """What to reshape the values of a `hull` to before permuting them by ``order``."""
        sizes: list[int] = []
        for part, size in zip(self.parts, hull.shape, strict=True):
            if part:
                row = prod(part[1:])
                sizes += (size // row if row else part[0], *part[1:])
        return tuple(sizes)

    def within(self, box: Box) -> Box:
        """Where ``box`` lies in the values of its hull, reshaped and permuted."""
        heads = {sum(map(len, self.parts[:at])) for at, part in enumerate(self.parts) if part}
        moves = tuple(
            -start if unit in heads else 0
            for unit, start in zip(self.order, box.starts, strict=True)
        )
        return box.shift(moves)

    def _before_permuting(self, box: Box) -> list[tuple[int, int]]:
        ranges = dict(zip(self.order, zip(box.starts, box.stops, strict=True), strict=True))
        return [ranges[at] for at in range(len(self.order))]


def match(
    one: Dims, one_shape: tuple[int, ...], two: Dims, two_shape: tuple[int, ...]
) -> tuple[View, View] | None:
    """Views that give both tensors ``one``'s order of dims, without squeezed ones, fused ones cut.

    None where names alone do not say how the two correspond: other names, or a fused dim whose
    sizes neither side tells. The shapes of the two views may still differ: then so do the tensors.
    """
    fused = {dim.names for dim in one if dim.fused} & {dim.names for dim in two if dim.fused}
    first, second = _units(one, fused), _units(two, fused)
    ours, theirs = sum(first, ()), sum(second, ())
    if sorted(ours) != sorted(theirs):
        return None
    known = _sizes(second, two_shape) | _sizes(first, one_shape)
    parts = _parts(first, one_shape, known), _parts(second, two_shape, known)
    if parts[0] is None or parts[1] is None:
        return None
    order = tuple(theirs.index(unit) for unit in ours)
    return View(parts[0], tuple(range(len(ours)))), View(parts[1], order)


def _units(dims: Dims, fused: set[Unit]) -> list[tuple[Unit, ...]]:
    """The units of each dim, none for a squeezed one."""
    return [
        ()
        if dim.squeezed
        else (dim.names,)
        if dim.names in fused
        else tuple((n,) for n in dim.names)
        for dim in dims
    ]


def _sizes(units: list[tuple[Unit, ...]], shape: tuple[int, ...]) -> dict[Unit, int]:
    return {held[0]: size for held, size in zip(units, shape, strict=True) if len(held) == 1}


def _parts(
    units: list[tuple[Unit, ...]], shape: tuple[int, ...], known: dict[Unit, int]
) -> tuple[tuple[int, ...], ...] | None:
    found = []
    for held, size in zip(units, shape, strict=True):
        sizes = (size,) if len(held) == 1 else _cut(held, size, known)
        if sizes is None:
            return None
        found.append(sizes)
    return tuple(found)


def _cut(held: tuple[Unit, ...], size: int, known: dict[Unit, int]) -> tuple[int, ...] | None:
    """Sizes of the names in a fused dim; one that nobody tells follows from the others."""
    missing = [unit for unit in held if unit not in known]
    told = prod(known[unit] for unit in held if unit in known)
    if len(missing) > 1 or (missing and (told == 0 or size % told)):
        return None
    sizes = tuple(known.get(unit, size // max(told, 1)) for unit in held)
    return sizes if prod(sizes) == size or not held else None
