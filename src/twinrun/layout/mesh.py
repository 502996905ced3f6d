"""Where a rank stands: a coordinate and a size on each named axis."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from twinrun.errors import LayoutError

AXIS_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COORDINATE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=([0-9]{1,18})/([0-9]{1,18})")
_AXIS_SIZE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=([0-9]{1,18})")

WORLD = "world"
"""The axis that ranks stand on when nothing tells their coordinates."""


class Mesh(Mapping[str, tuple[int, int]]):
    """Coordinates of one rank: axis -> (coordinate, size); immutable and hashable.

    Equality looks at the axes, not at the order in which they are listed.
    Raises LayoutError for a name that is no identifier or a coordinate outside its axis.
    """

    __slots__ = ("_axes", "_hash")

    def __init__(self, axes: Mapping[str, tuple[int, int]] | None = None) -> None:
        self._axes = {axis: (int(c), int(n)) for axis, (c, n) in (axes or {}).items()}
        for axis, (coordinate, size) in self._axes.items():
            _check_coordinate(axis, coordinate, size)
        self._hash = hash(frozenset(self._axes.items()))

    @classmethod
    def of(cls, **axes: tuple[int, int]) -> Mesh:
        """Mesh.of(tp=(1, 4)) is the second of four ranks on axis tp."""
        return cls(axes)

    @classmethod
    def at(cls, rank: int, sizes: Mapping[str, int]) -> Mesh:
        """The mesh of ``rank`` in a full grid; axes outermost first, the last varies fastest."""
        total = grid_size(sizes)
        if not 0 <= rank < total:
            raise LayoutError(
                f"rank {rank} is outside a mesh of {total} ranks",
                seen=" ".join(f"{axis}={size}" for axis, size in sizes.items()),
                expected=f"a rank from 0 to {total - 1}",
                do="name axes whose sizes multiply to the number of ranks",
            )
        axes: dict[str, tuple[int, int]] = {}
        for axis, size in reversed(list(sizes.items())):
            rank, coordinate = divmod(rank, size)
            axes[axis] = (coordinate, size)
        return cls(dict(reversed(list(axes.items()))))

    @classmethod
    def parse(cls, text: str) -> Mesh:
        """Read ``tp=1/4 pp=0/2`` (commas may stand for spaces); the empty text has no axes."""
        axes: dict[str, tuple[int, int]] = {}
        for word in text.replace(",", " ").split():
            match = _COORDINATE.fullmatch(word)
            if match is None:
                raise _bad_word("mesh", text, word, "axis=coordinate/size, e.g. tp=1/4")
            _refuse_twice(match[1], axes, text)
            axes[match[1]] = (int(match[2]), int(match[3]))
        return cls(axes)

    def __getitem__(self, axis: str) -> tuple[int, int]:
        return self._axes[axis]

    def __iter__(self) -> Iterator[str]:
        return iter(self._axes)

    def __len__(self) -> int:
        return len(self._axes)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mesh) and self._axes == other._axes

    def __str__(self) -> str:
        return " ".join(f"{axis}={c}/{n}" for axis, (c, n) in self._axes.items())

    def __repr__(self) -> str:
        return f"Mesh({str(self)!r})"

    def __reduce__(self) -> tuple[type[Mesh], tuple[dict[str, tuple[int, int]]]]:
        return Mesh, (dict(self._axes),)

    def coordinate(self, axis: str) -> int:
        """The coordinate on ``axis``; 0 where this mesh does not have it."""
        return self._axes.get(axis, (0, 1))[0]


def parse_axes(text: str) -> dict[str, int]:
    """Read ``dp=2,tp=4`` into axis -> size, outermost first; LayoutError names the bad word."""
    sizes: dict[str, int] = {}
    for word in text.replace(",", " ").split():
        match = _AXIS_SIZE.fullmatch(word)
        if match is None or int(match[2]) < 1:
            raise _bad_word("axes", text, word, "axis=size, e.g. tp=4, with a size of at least 1")
        _refuse_twice(match[1], sizes, text)
        sizes[match[1]] = int(match[2])
    return sizes


def grid_size(sizes: Mapping[str, int]) -> int:
    """How many ranks a full grid of these axes has."""
    total = 1
    for size in sizes.values():
        total *= size
    return total


def _check_coordinate(axis: str, coordinate: int, size: int) -> None:
    if AXIS_NAME.fullmatch(axis) is None:
        raise LayoutError(
            f"{axis!r} is no axis name",
            expected="letters, digits and underscores, not starting with a digit",
        )
    if not 0 <= coordinate < size:
        raise LayoutError(
            f"coordinate {coordinate} lies outside axis {axis!r} of size {size}",
            seen=f"{axis}={coordinate}/{size}",
            expected="0 <= coordinate < size",
        )


def _refuse_twice(axis: str, known: Mapping[str, object], text: str) -> None:
    if axis in known:
        raise LayoutError(f"axis {axis!r} is named twice", seen=text, do="name each axis once")


def _bad_word(what: str, text: str, word: str, expected: str) -> LayoutError:
    return LayoutError(f"{what} {text!r} does not parse at {word!r}", seen=word, expected=expected)
