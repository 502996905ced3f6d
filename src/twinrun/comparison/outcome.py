"""What examining one pair found, before anything is known of the points around it."""

from __future__ import annotations

from dataclasses import dataclass, field

from twinrun.comparison.pairing import Pair
from twinrun.comparison.replicas import ReplicaDifference
from twinrun.comparison.result import Floor, Hint, Measured, Measures, Operand, Row, Verdict
from twinrun.recorder.record import Record


@dataclass(slots=True)
class Broken:
    """Replicas of one side that are not equal."""

    side: str
    differences: tuple[ReplicaDifference, ...]


@dataclass(slots=True)
class Outcome:
    """One row in the making. ``nans`` and ``nonfinite`` count elements as (baseline, target).

    ``summed`` holds the hint of an inferred pending sum that would make the pair agree: the
    verdict then waits for what was computed from it.
    """

    pair: Pair
    record: Record
    measured: Measured
    reason: str = ""
    baseline: Operand | None = None
    target: Operand | None = None
    measures: Measures | None = None
    floor: Floor | None = None
    ratio: float | None = None
    inferred: str = ""
    summed: Hint | None = None
    hint: Hint | None = None
    nearest: str = ""
    notes: tuple[str, ...] = ()
    broken: tuple[Broken, ...] = ()
    nans: tuple[int, int] = (0, 0)
    nonfinite: tuple[int, int] = (0, 0)
    one_sided: bool = field(default=False)
    verdict: Verdict | None = None

    @property
    def name(self) -> str:
        """The point's name."""
        return self.pair.lead.key.name

    @property
    def final(self) -> Verdict:
        """The last word so far."""
        return self.verdict or self.measured

    def row(self, position: int) -> Row:
        """The finished row."""
        key = self.pair.lead.key
        return Row(
            position=position,
            step=self.record.step,
            name=self.record.name if not self.pair.baseline else key.name,
            occurrence=key.occurrence,
            recompute=key.recompute,
            kind=self.record.kind,
            verdict=self.final,
            measured=self.measured,
            reason=self.reason,
            baseline=self.baseline,
            target=self.target,
            measures=self.measures,
            floor=self.floor,
            ratio=self.ratio,
            inferred=self.inferred,
            hint=self.hint,
            nearest=self.nearest,
            notes=self.notes,
        )
