"""Measures aligned pairs and says how far they may lie apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from twinrun.comparison.depth import Way
from twinrun.comparison.logical import Logical, slices
from twinrun.comparison.result import Extreme, Floor, FloorKind, Measures, Scalar
from twinrun.comparison.settings import Settings
from twinrun.comparison.verdict import K_FIRST_ORDER, K_MEASURED, Judgement, judge
from twinrun.numerics.detail import Detail, detail
from twinrun.numerics.distance import Distance, measure
from twinrun.numerics.dtypes import Format, coarser
from twinrun.numerics.floor import Allowance, first_order, spread
from twinrun.numerics.noise import Noise, floor_for
from twinrun.numerics.own_size import worst_own
from twinrun.numerics.tally import Number, Spot


@dataclass(frozen=True, slots=True)
class Assessed:
    """One pair of logical tensors, measured and judged."""

    distance: Distance
    floor: Floor
    judgement: Judgement
    detail: Detail | None = None

    @property
    def measures(self) -> Measures:
        """The numbers for the result."""
        found, more = self.distance, self.detail
        return Measures(
            elements=found.elements,
            bits_equal=found.bits_equal,
            differing=found.differing,
            relative_l2=found.relative_l2,
            worst=_extreme(found.worst),
            max_abs=_extreme(found.max_abs),
            max_relative=_extreme(more.max_relative) if more else None,
            cosine=found.cosine,
            norms=found.norms,
            nan=found.nan,
            inf=found.inf,
            ulp=more.ulp if more else None,
        )


@dataclass(frozen=True, slots=True)
class Ruler:
    """What it takes to judge pairs of one point."""

    name: str
    way: Way
    settings: Settings
    noise: Sequence[Noise] = ()

    def assess(self, a: Logical, b: Logical) -> Assessed:
        """Measure a pair of one shape; the dearer measures where it is above its floor."""
        found = self.distance(a, b)
        form = coarser(a.stored, b.stored)
        floor = self.floor(form, found.elements, _rms(found))
        pair = (lambda: slices(a, b), a.shape, a.dtype, b.dtype)
        rows = 0 if self.way.gradient or not a.shape else found.elements // max(1, a.shape[-1])
        said = judge(found, floor, form, lambda: worst_own(*pair), rows)
        more = detail(*pair) if said.measured in ("undecided", "differs") else None
        return Assessed(found, floor, said, more)

    def distance(self, a: Logical, b: Logical) -> Distance:
        """Measure a pair of one shape without judging it."""
        return measure(lambda: slices(a, b), a.shape, a.dtype, b.dtype)

    def nominal(self, a: Logical, b: Logical) -> Floor:
        """The floor of a pair that cannot be measured as it stands, for ordinary values."""
        return self.floor(coarser(a.stored, b.stored), max(a.elements, b.elements))

    def floor(self, form: Format, elements: int, rms: float = 1.0) -> Floor:
        """The floor of a pair: set, measured, or first-order. `rms` is that of the larger side."""
        k = self.settings.k_of(self.name)
        told = self.settings.floor_of(self.name)
        if told is not None:
            return _floor(spread(told, elements), k or K_MEASURED, "set", "set by glob")
        if form.exact:
            return _floor(Allowance(0.0, 0.0), 1.0, "exact", "integers and bools are exact")
        seen = floor_for(self.noise, "accumulated")
        if seen is not None:
            return Floor(seen.l2, seen.worst, k or K_MEASURED, "measured", seen.why)
        noisy = coarser(form.name, self.way.coarsest)
        allowed = first_order(
            noisy,
            depth=self.way.depth,
            reduction=self.way.reduction,
            elements=elements,
            rms=rms,
            gradient=self.way.gradient,
        )
        why = f"{noisy.name}, {self.way.depth} roundings deep, sums of {self.way.reduction}"
        return _floor(allowed, k or K_FIRST_ORDER, "first-order", why)


def worst_of(assessed: Sequence[Assessed]) -> int:
    """Position of the pair that lies furthest above its floor."""
    order = {"equal": 0, "close": 1, "undecided": 2, "differs": 3}
    keys = [(order[one.judgement.measured], one.judgement.ratio) for one in assessed]
    return max(range(len(keys)), key=lambda at: keys[at])


def _floor(allowed: Allowance, k: float, kind: FloorKind, why: str) -> Floor:
    return Floor(allowed.l2, allowed.worst, k, kind, why)


def _rms(found: Distance) -> float:
    return max(found.norms) / math.sqrt(found.elements) if found.elements else 0.0


def _extreme(spot: Spot | None) -> Extreme | None:
    if spot is None:
        return None
    return Extreme(spot.value, spot.index, _scalar(spot.a), _scalar(spot.b))


def _scalar(value: Number) -> Scalar:
    return str(value).strip("()") if isinstance(value, complex) else value
