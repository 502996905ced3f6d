"""The noise floor: how far two right results may lie apart, from four sources that are never mixed.

A **shadow** (a module once more, one precision up) bounds what one module adds to inputs that are
right; a second **run** known to be right, and a run **perturbed** by one unit in the last place, bound
what has accumulated by a point; the **first-order** formula bounds either.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from twinrun.numerics.floor import Allowance, measured

Source = Literal["shadow", "run", "perturbed", "first-order"]
Bound = Literal["isolated", "accumulated"]

BOUNDS: dict[Source, frozenset[Bound]] = {
    "shadow": frozenset({"isolated"}),
    "run": frozenset({"accumulated"}),
    "perturbed": frozenset({"accumulated"}),
    "first-order": frozenset({"isolated", "accumulated"}),
}
"""What each source may bound."""

_WORDS: dict[Source, tuple[str, str]] = {
    "shadow": ("the distance to the shadow", "the largest distance to {} shadows"),
    "run": ("the second good run's distance", "the largest distance of {} good runs"),
    "perturbed": ("the perturbed run's growth", "the largest growth of {} perturbed runs"),
    "first-order": ("", ""),
}


@dataclass(frozen=True, slots=True)
class Noise:
    """What one source allows: a relative L2 and a worst element, as `numerics.distance` measures them.

    ``kind`` is the source, ``bounds`` what it may bound, ``why`` how it came about.
    """

    l2: float
    worst: float
    kind: Source
    bounds: frozenset[Bound]
    why: str

    @property
    def is_measured(self) -> bool:
        """Whether values were held side by side for it."""
        return self.kind != "first-order"


def observed(kind: Source, distances: Iterable[tuple[float, float]]) -> Noise | None:
    """What distances (relative L2, worst element) of results that are all right allow: twice the largest.

    None where there are none, or all hold the same bits: then nothing was measured. For shadows these
    are the distances of the baseline's and the target's output each to its own.
    """
    found = list(distances)
    l2 = max((one for one, _ in found), default=0.0)
    if not l2 > 0:
        return None
    allowed = measured(l2, max(worst for _, worst in found))
    words = _WORDS[kind][0] if len(found) == 1 else _WORDS[kind][1].format(len(found))
    return Noise(allowed.l2, allowed.worst, kind, BOUNDS[kind], f"twice {words} ({l2:.2g})")


def estimated(allowed: Allowance, why: str) -> Noise:
    """The first-order formula's floor."""
    return Noise(allowed.l2, allowed.worst, "first-order", BOUNDS["first-order"], why)


def floor_for(sources: Iterable[Noise | None], wanted: Bound) -> Noise | None:
    """The floor of an ``isolated`` or ``accumulated`` error: measured where it was, else first-order.

    The larger where several measured it, because each is a sample of what right runs do. A source
    that may not bound what is wanted is not used. None: the floor cannot be known, and a difference is
    undecided.
    """
    fit = [one for one in sources if one is not None and wanted in one.bounds]
    known = [one for one in fit if one.is_measured] or fit
    return max(known, key=lambda one: one.l2, default=None)
