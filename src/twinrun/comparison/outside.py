"""A pair that is read again: both sides aligned, and judged without some of its rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from twinrun.comparison.alignment import Held, align
from twinrun.comparison.choices import rows_of, without
from twinrun.comparison.layouts import Layouts
from twinrun.comparison.logical import Logical, slices
from twinrun.comparison.outcome import Outcome
from twinrun.comparison.points import Points
from twinrun.comparison.reach import NOWHERE, Reach
from twinrun.comparison.result import Measured
from twinrun.comparison.verdict import judge
from twinrun.numerics.distance import Distance, measure
from twinrun.numerics.dtypes import coarser
from twinrun.numerics.own_size import worst_own


@dataclass
class Both:
    """Both sides of a pair, a logical tensor for each data group; mappings are dropped at the end.

    Raises Misfit where their layouts do not meet.
    """

    outcome: Outcome
    runs: tuple[Points, Points]
    layouts: Layouts
    groups: list[tuple[Logical, Logical]] = field(default_factory=list)
    _held: list[Held] = field(default_factory=list)

    def __enter__(self) -> Both:
        sides = (self.outcome.pair.baseline[0], self.outcome.pair.target[0])
        for points, point in zip(self.runs, sides, strict=True):
            self._held.append(Held(points.view, points.records(point), self.layouts))
        try:
            one, two = align(*self._held)
            self.groups = list(zip(one.groups, two.groups, strict=False))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for held in self._held:
            held.release()


def outside(
    outcome: Outcome, both: Both, rows: Sequence[torch.Tensor]
) -> tuple[Measured, Reach] | None:
    """The verdict and distance of a pair without these rows of each group; None where rows do not match."""
    floor = outcome.floor
    fitting = len(rows) == len(both.groups) and all(
        a.shape == b.shape and rows_of(a.shape) == one.numel()
        for (a, b), one in zip(both.groups, rows, strict=False)
    )
    if floor is None or not fitting:
        return None
    reach, ratio = NOWHERE, -math.inf
    verdict: Measured = "equal"
    for (a, b), one in zip(both.groups, rows, strict=True):
        pair = _Without(a, b, one)
        found = pair.distance()
        said = judge(found, floor, coarser(a.stored, b.stored), pair.worst_own)
        reach = reach.larger(Reach(found.relative_l2, found.worst.value if found.worst else 0.0))
        if said.ratio > ratio:
            verdict, ratio = said.measured, said.ratio
    return verdict, reach


class _Without:
    def __init__(self, a: Logical, b: Logical, rows: torch.Tensor) -> None:
        self._pair = (without(a, rows), without(b, rows))
        self._shape, self._types = a.shape, (a.dtype, b.dtype)

    def distance(self) -> Distance:
        return measure(lambda: slices(*self._pair), self._shape, *self._types)

    def worst_own(self) -> float:
        return worst_own(lambda: slices(*self._pair), self._shape, *self._types)
