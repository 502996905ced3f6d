"""How one dim is cut over the axes on it: from the ranks' own sizes to logical index ranges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from twinrun.errors import LayoutError
from twinrun.layout.dims import Modifier

Ranges = tuple[tuple[int, int], ...]
"""Logical ranges (start, stop) in the order in which they lie in the local dim."""

Sizes = Mapping[tuple[int, ...], int]
"""Local size for each combination of coordinates on the dim's axes, outermost first."""


class CutDim:
    """The logical size of a dim, and the ranges of it that each combination of coordinates holds."""

    def __init__(
        self,
        modifiers: tuple[Modifier, ...],
        sizes: dict[tuple[int, ...], int],
        packed: tuple[int, ...],
    ) -> None:
        self._modifiers = modifiers
        self._lengths = _lengths(modifiers, sizes)
        self.size = self._lengths[()]
        self.ranges: dict[tuple[int, ...], Ranges] = {}
        self._assign((), ((0, self.size),), packed)

    def _assign(self, prefix: tuple[int, ...], held: Ranges, packed: tuple[int, ...]) -> None:
        depth = len(prefix)
        if depth == len(self._modifiers):
            self.ranges[prefix] = join(held)
            return
        for child, part in enumerate(self._parts(prefix, held, packed)):
            self._assign((*prefix, child), part, ())

    def _parts(
        self, prefix: tuple[int, ...], held: Ranges, packed: tuple[int, ...]
    ) -> list[Ranges]:
        modifier = self._modifiers[len(prefix)]
        lengths = _child_lengths(self._lengths, prefix)
        if modifier.partial and not modifier.zigzag:
            return [held] * len(lengths)
        if packed:
            parts = _packed_parts(packed, self._lengths[prefix], len(lengths), modifier.zigzag)
        elif modifier.partial:
            parts = zigzag_parts(even(self._lengths[prefix], len(lengths)))
        elif modifier.zigzag:
            parts = zigzag_parts(lengths)
        else:
            parts = natural_parts(lengths)
        if modifier.partial:
            return [tuple(r for part in parts for r in take(held, part))] * len(lengths)
        _check_lengths(parts, lengths, modifier)
        return [take(held, part) for part in parts]


def natural_parts(lengths: Sequence[int]) -> list[Ranges]:
    """One range after the other."""
    starts = [0]
    for length in lengths:
        starts.append(starts[-1] + length)
    return [((start, stop),) for start, stop in pairwise(starts)]


def zigzag_parts(lengths: Sequence[int]) -> list[Ranges]:
    """Coordinate i of n holds chunks i and 2n-1-i; the first of the two takes an odd element.

    That is how ``tensor_split`` into 2n chunks falls out, so padded and unpadded lengths agree.
    """
    first = [length - length // 2 for length in lengths]
    second = [length // 2 for length in lengths]
    chunks = [part[0] for part in natural_parts([*first, *reversed(second)])]
    return [(chunk, chunks[-1 - i]) for i, chunk in enumerate(chunks[: len(lengths)])]


def even(total: int, count: int) -> list[int]:
    """Sizes that zigzag gives ``count`` coordinates when nothing but the total is known."""
    chunk, rest = divmod(total, 2 * count)
    sizes = [chunk + (i < rest) for i in range(2 * count)]
    return [sizes[i] + sizes[-1 - i] for i in range(count)]


def take(held: Ranges, wanted: Ranges) -> Ranges:
    """The logical ranges at local offsets ``wanted`` of a dim that holds ``held``."""
    found: list[tuple[int, int]] = []
    for start, stop in wanted:
        at = 0
        for low, high in held:
            a, b = max(start, at), min(stop, at + high - low)
            if a < b:
                found.append((low + a - at, low + b - at))
            at += high - low
    return tuple(found)


def join(ranges: Ranges) -> Ranges:
    """Neighbouring ranges as one, empty ones left out."""
    joined: list[tuple[int, int]] = []
    for start, stop in ranges:
        if start == stop:
            continue
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


def _lengths(modifiers: tuple[Modifier, ...], sizes: Sizes) -> dict[tuple[int, ...], int]:
    """The size under each prefix of coordinates: leaves as given, sums or common sizes above."""
    lengths = dict(sizes)
    for depth in range(len(modifiers) - 1, -1, -1):
        for prefix in sorted({key[:depth] for key in sizes}):
            below = _child_lengths(lengths, prefix)
            lengths[prefix] = (
                _common(below, modifiers[depth]) if modifiers[depth].partial else sum(below)
            )
    return lengths


def _child_lengths(lengths: Mapping[tuple[int, ...], int], prefix: tuple[int, ...]) -> list[int]:
    below: list[int] = []
    while (length := lengths.get((*prefix, len(below)))) is not None:
        below.append(length)
    return below


def _common(lengths: list[int], modifier: Modifier) -> int:
    if len(set(lengths)) > 1:
        raise LayoutError(
            f"the addends of a sum over {modifier.axis} have different sizes",
            seen=f"sizes {lengths} at {modifier.axis}=0 to {len(lengths) - 1}",
            expected="one size for every addend",
            do=f"take ':partial' away if {modifier.axis} splits this dim",
        )
    return lengths[0]


def _packed_parts(packed: tuple[int, ...], total: int, count: int, zigzag: bool) -> list[Ranges]:
    unit = 2 * count if zigzag else count
    if sum(packed) != total or any(length % unit for length in packed):
        raise LayoutError(
            f"packed sequences do not fit {count} ranks",
            seen=f"lengths {'+'.join(map(str, packed))} on a dim of {total}",
            expected=f"lengths that sum to {total}, each a multiple of {unit}",
            do="give the padded lengths, as the program cut them",
        )
    parts: list[list[tuple[int, int]]] = [[] for _ in range(count)]
    start = 0
    for length in packed:
        lengths = [length // count] * count
        cuts = zigzag_parts(lengths) if zigzag else natural_parts(lengths)
        for part, ranges in zip(parts, cuts, strict=True):
            part += [(start + a, start + b) for a, b in ranges]
        start += length
    return [tuple(part) for part in parts]


def _check_lengths(parts: list[Ranges], lengths: list[int], modifier: Modifier) -> None:
    made = [sum(b - a for a, b in part) for part in parts]
    if made != lengths:
        raise LayoutError(
            f"packed sequences give axis {modifier.axis} other sizes than its ranks have",
            seen=f"ranks hold {lengths}",
            expected=f"{made}",
            do="give the padded lengths, as the program cut them",
        )
