"""Index ranges: a box of a tensor, and a piece that ties a local box to a logical one."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from twinrun.errors import LayoutError


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """A half-open index range on every dim; no dims at all is the one element of a 0-dim tensor."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]

    def __post_init__(self) -> None:
        sound = len(self.starts) == len(self.stops)
        if not sound or any(a < 0 or b < a for a, b in zip(self.starts, self.stops, strict=False)):
            raise LayoutError(f"no box from {self.starts} to {self.stops}")

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Box:
        """The box that covers a tensor of ``shape``."""
        return cls((0,) * len(shape), tuple(shape))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(b - a for a, b in zip(self.starts, self.stops, strict=True))

    def covers(self, shape: tuple[int, ...]) -> bool:
        """Whether it is all of a tensor of ``shape``."""
        return self.stops == shape and not any(self.starts)

    @property
    def volume(self) -> int:
        """How many elements lie in it."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """What to index a tensor with to get this box."""
        return tuple(slice(a, b) for a, b in zip(self.starts, self.stops, strict=True))

    def intersect(self, other: Box) -> Box | None:
        """The elements in both, or None where there are none."""
        starts = tuple(map(max, self.starts, other.starts))
        stops = tuple(map(min, self.stops, other.stops))
        if any(a >= b for a, b in zip(starts, stops, strict=True)):
            return None
        return Box(starts, stops)

    def contains(self, other: Box) -> bool:
        """Whether every element of ``other`` lies in this box."""
        return all(a <= b for a, b in zip(self.starts, other.starts, strict=True)) and all(
            a >= b for a, b in zip(self.stops, other.stops, strict=True)
        )

    def shift(self, offsets: tuple[int, ...]) -> Box:
        """The same box, moved by ``offsets``."""
        return Box(
            tuple(a + o for a, o in zip(self.starts, offsets, strict=True)),
            tuple(b + o for b, o in zip(self.stops, offsets, strict=True)),
        )

    def relative_to(self, other: Box) -> Box:
        """This box with ``other``'s first element as the origin."""
        return self.shift(tuple(-a for a in other.starts))

    def __str__(self) -> str:
        ranges = (f"{a}:{b}" for a, b in zip(self.starts, self.stops, strict=True))
        return f"[{', '.join(ranges)}]"


@dataclass(frozen=True, slots=True, order=True)
class Piece:
    """One box of a rank's own tensor and the box of the logical tensor that it is."""

    local: Box
    logical: Box

    def to_local(self, box: Box) -> Box:
        """Where ``box``, which lies in ``logical``, is in the rank's own tensor."""
        return box.relative_to(self.logical).shift(self.local.starts)

    def to_logical(self, box: Box) -> Box:
        """Where ``box``, which lies in ``local``, is in the logical tensor."""
        return box.relative_to(self.local).shift(self.logical.starts)
