"""How far the baseline lies from its second good run, point by point."""

from __future__ import annotations

from twinrun.comparison.alignment import Held, Misfit, align
from twinrun.comparison.layouts import Layouts
from twinrun.comparison.logical import slices
from twinrun.comparison.measure import Noise
from twinrun.comparison.points import Point, Points
from twinrun.errors import TwinrunError
from twinrun.numerics.distance import measure


class NoiseMeter:
    """Measures on demand. Where it cannot, or both runs hold the same bits, there is no noise."""

    def __init__(self, baseline: Points, again: Points, layouts: Layouts) -> None:
        self._baseline = baseline
        self._again = again
        self._layouts = layouts
        self._asked = self._missing = self._equal = self._unfit = 0

    def noise(self, point: Point) -> Noise | None:
        """The distance at this point, the largest over its data groups."""
        self._asked += 1
        partner = self._again.get(point.key)
        if partner is None:
            self._missing += 1
            return None
        sides = (self._held(point, self._baseline), self._held(partner, self._again))
        try:
            found = self._measured(*sides)
        except (Misfit, TwinrunError):
            self._unfit += 1
            return None
        finally:
            for held in sides:
                held.release()
        self._equal += found is not None and found.l2 == 0.0
        return found

    @property
    def problems(self) -> list[str]:
        """What the reader must know of the noise run."""
        told = []
        if self._asked and self._equal == self._asked:
            told.append(
                "the noise run holds the same bits as the baseline everywhere, so it measures nothing: "
                "record one whose sums run in another order (another batch, number of ranks or threads)"
            )
        if self._missing:
            told.append(f"{self._missing} of {self._asked} points are not in the noise run")
        if self._unfit:
            told.append(
                f"{self._unfit} of {self._asked} points of the noise run cannot be measured"
            )
        return told

    def _held(self, point: Point, points: Points) -> Held:
        return Held(points.view, points.records(point), self._layouts)

    def _measured(self, one: Held, two: Held) -> Noise | None:
        if not all(record.has_payload for held in (one, two) for record in held.records):
            raise Misfit("unreadable", "no values", "statistics only")
        sides = align(one, two)
        l2 = worst = 0.0
        for a, b in zip(sides[0].groups, sides[1].groups, strict=False):
            if a.shape != b.shape:
                raise Misfit("differs", "shape", "the noise run has another shape")
            found = measure(lambda a=a, b=b: slices(a, b), a.shape, a.dtype, b.dtype)  # type: ignore[misc]
            l2 = max(l2, found.relative_l2)
            worst = max(worst, found.worst.value if found.worst is not None else 0.0)
        return Noise(l2, worst)
