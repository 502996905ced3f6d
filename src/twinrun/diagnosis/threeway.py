"""Baseline, target and what both would be one precision up: who is off, and by how many roundings.

The comparison against a more precise run of the same code on the same inputs is that of PyTorch's
``same()`` with its float64 reference, of MIGraphX's verifier and of AWS Neuron's debugger.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from twinrun.comparison.depth import Way
from twinrun.comparison.examine import Examiner
from twinrun.comparison.layouts import Layouts
from twinrun.comparison.measure import Ruler
from twinrun.comparison.outcome import Outcome
from twinrun.comparison.pairing import Pair
from twinrun.comparison.points import Key, Point, Points
from twinrun.comparison.settings import Settings
from twinrun.comparison.verdict import K_FIRST_ORDER
from twinrun.diagnosis.finding import Shadow, State
from twinrun.diagnosis.natives import NATIVE
from twinrun.numerics.dtypes import format_of

_LOW = 1e-4
"""Unit roundoffs above this are those of types in which rounding elsewhere is worth telling."""
_TOLD = 0.5
"""A difference of this many own roundings is no accident of the order of a sum."""


@dataclass(frozen=True)
class ThreeWay:
    """Both sides' inspections: captures that hold a module's outputs and its shadows'.

    ``baseline`` None: only the target could be run again, and its shadow stands for both.
    """

    baseline: Points | None
    target: Points
    original: Points

    def shadow(self, path: str, way: Way) -> Shadow | None:
        """The four distances at the output where the two shadows are furthest apart; None without one."""
        found = [one for at in self._outputs(path) if (one := self._at(at, way)) is not None]
        return max(found, key=_apart, default=None)

    def _outputs(self, path: str) -> list[Key]:
        return [
            point.key
            for point in self.original
            if (record := self.original.first(point)).module == path
            and record.role == "output"
            and record.kind == "activation"
            and not record.recompute
        ]

    def _at(self, key: Key, way: Way) -> Shadow | None:
        shadowed = _renamed(key, _shadow_name(key.name))
        theirs = self.target.get(shadowed)
        native = self.target.get(_renamed(key, key.name + NATIVE)) or self.target.get(key)
        if theirs is None or native is None:
            return None
        precision = self.target.first(theirs).dtype
        up = Way(way.depth, way.reduction, precision)
        own = _distance(self.target, native, self.target, theirs, way)
        mine = self.baseline.get(shadowed) if self.baseline is not None else None
        if self.baseline is None or mine is None:
            return self._one_sided(key, theirs, way, precision, own)
        plain = self.baseline.get(key)
        apart = _examined(self.baseline, mine, self.target, theirs, up)
        if apart.measures is None or apart.floor is None:
            return None
        rounding = (
            _distance(self.baseline, plain, self.baseline, mine, way) if plain is not None else None
        )
        return Shadow(precision, rounding, own, apart.measures.relative_l2, apart.floor.l2)

    def _one_sided(
        self, key: Key, theirs: Point, way: Way, precision: str, own: float | None
    ) -> Shadow | None:
        """The baseline's stored value beside the target's shadow: nothing is known of its own rounding."""
        point = self.original.get(key)
        if point is None:
            return None
        found = _examined(self.original, point, self.target, theirs, way)
        if found.measures is None or found.floor is None:
            return None
        return Shadow(precision, found.measures.relative_l2, own, None, found.floor.l2)


def settle(state: State, apart: float | None, shadow: Shadow, spread: bool, dtype: str) -> State:
    """What a module's state is once its shadows are known. ``apart``: baseline and target as stored.

    ``spread``: its weights lie over several ranks in one run and not alike in the other, so that its
    sums are rounded in other places by right.
    """
    low = format_of(dtype).roundoff > _LOW
    elsewhere = low and not spread and apart is not None and apart > _TOLD * shadow.own
    if shadow.apart is None or shadow.allowed is None:
        # One shadow tells other bits from an accident, not another function from other rounding.
        return "undecided" if elsewhere and state == "clean" else state
    if shadow.apart > K_FIRST_ORDER * shadow.allowed:
        return "differs"
    if shadow.apart > shadow.allowed:
        return "undecided"
    if elsewhere:
        return "rounds elsewhere"
    if state == "differs":
        return "rounds elsewhere"
    return "clean"


def _apart(shadow: Shadow) -> float:
    return -1.0 if shadow.times is None else shadow.times


def _shadow_name(name: str) -> str:
    module, colon, port = name.rpartition(":")
    return f"{module}{colon}shadow.{port}"


def _renamed(key: Key, name: str) -> Key:
    return replace(key, name=name)


def _examined(one: Points, a: Point, two: Points, b: Point, way: Way) -> Outcome:
    examiner = Examiner(one, two, Layouts())
    return examiner.examine(Pair((a,), (b,)), Ruler(a.key.name, way, Settings()))


def _distance(one: Points, a: Point, two: Points, b: Point, way: Way) -> float | None:
    found = _examined(one, a, two, b, way)
    return None if found.measures is None else found.measures.relative_l2
