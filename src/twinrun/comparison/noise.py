"""How far the baseline lies from other runs known to be right, point by point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twinrun.comparison.alignment import Held, Misfit, align
from twinrun.comparison.layouts import Layouts
from twinrun.comparison.logical import slices
from twinrun.comparison.points import Point, Points
from twinrun.errors import TwinrunError
from twinrun.numerics.distance import measure
from twinrun.numerics.noise import Noise, Source, observed


@dataclass(frozen=True, slots=True)
class GoodRun:
    """A run known to be right beside the baseline; ``perturbed`` at its inputs or not."""

    points: Points
    path: str
    perturbed: bool

    @property
    def kind(self) -> Source:
        """As `numerics.noise` calls it."""
        return "perturbed" if self.perturbed else "run"


class NoiseMeter:
    """Measures on demand. Where it cannot, or both runs hold the same bits, there is no noise."""

    def __init__(self, baseline: Points, runs: Sequence[GoodRun], layouts: Layouts) -> None:
        self._baseline = baseline
        self._runs = runs
        self._layouts = layouts
        self._counts = [_Count() for _ in runs]

    def noise(self, points: Sequence[Point]) -> list[Noise]:
        """What each kind of run allows at these points together: its largest distance, at each twice."""
        seen: dict[Source, list[tuple[float, float]]] = {}
        for run, count in zip(self._runs, self._counts, strict=True):
            found = [self._distance(point, run, count) for point in points]
            known = [one for one in found if one is not None]
            if known and len(known) == len(found):
                seen.setdefault(run.kind, []).append(max(known))
        measured = (observed(kind, distances) for kind, distances in seen.items())
        return [one for one in measured if one is not None]

    def _distance(self, point: Point, run: GoodRun, count: _Count) -> tuple[float, float] | None:
        """The distance at this point, the largest over its data groups."""
        count.asked += 1
        partner = run.points.get(point.key)
        if partner is None:
            count.missing += 1
            return None
        sides = (self._held(point, self._baseline), self._held(partner, run.points))
        try:
            found = self._measured(*sides)
        except (Misfit, TwinrunError):
            count.unfit += 1
            return None
        finally:
            for held in sides:
                held.release()
        count.equal += found[0] == 0.0
        return found

    @property
    def problems(self) -> list[str]:
        """What the reader must know of the noise runs."""
        told = []
        for run, count in zip(self._runs, self._counts, strict=True):
            name = "the noise run" if len(self._runs) == 1 else f"the noise run {run.path}"
            told += count.problems(name)
        return told

    def _held(self, point: Point, points: Points) -> Held:
        return Held(points.view, points.records(point), self._layouts)

    def _measured(self, one: Held, two: Held) -> tuple[float, float]:
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
        return l2, worst


@dataclass(slots=True)
class _Count:
    """Points of one noise run: asked for, not there, equal bit for bit, and not to be measured."""

    asked: int = 0
    missing: int = 0
    equal: int = 0
    unfit: int = 0

    def problems(self, name: str) -> list[str]:
        told = []
        if self.asked and self.equal == self.asked:
            told.append(
                f"{name} holds the same bits as the baseline everywhere, so it measures nothing: "
                "record one whose sums run in another order (another batch, number of ranks or threads)"
            )
        if self.missing:
            told.append(f"{self.missing} of {self.asked} points are not in {name}")
        if self.unfit:
            told.append(f"{self.unfit} of {self.asked} points of {name} cannot be measured")
        return told
