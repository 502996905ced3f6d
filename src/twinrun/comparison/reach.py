"""How far a point's two sides lie apart, and whether that alone is what is said of it."""

from __future__ import annotations

from dataclasses import dataclass

from twinrun.comparison.outcome import Outcome
from twinrun.numerics.dtypes import format_of


@dataclass(frozen=True, slots=True)
class Reach:
    """A distance by both measures."""

    l2: float
    worst: float

    def larger(self, other: Reach) -> Reach:
        """The larger of each measure."""
        return Reach(max(self.l2, other.l2), max(self.worst, other.worst))

    def within(self, other: Reach, times: float) -> bool:
        """Whether both measures are at most so many times the other's."""
        return self.l2 <= times * other.l2 and self.worst <= times * other.worst


NOWHERE = Reach(0.0, 0.0)


def reach_of(outcome: Outcome) -> Reach:
    """A point's own distance; `NOWHERE` where it was not measured."""
    measures = outcome.measures
    if measures is None:
        return NOWHERE
    return Reach(measures.relative_l2, measures.worst.value if measures.worst else 0.0)


def is_plain(outcome: Outcome) -> bool:
    """Held as two tensors of one shape, without a map's transforms or replicas that disagree."""
    pair = outcome.pair
    single = len(pair.baseline) == len(pair.target) == 1
    named = pair.rule is None or pair.rule.renames
    whole = not outcome.broken and outcome.summed is None
    return single and named and whole and outcome.measures is not None


def differs_by_distance(outcome: Outcome) -> bool:
    """Whether it differs, and by nothing else than distance."""
    by_distance = outcome.reason in ("", "dtype") and not outcome.one_sided
    return outcome.final == "differs" and by_distance and is_plain(outcome)


def is_float(outcome: Outcome) -> bool:
    """Whether its values have a floor."""
    return not format_of(outcome.record.dtype).exact


def is_index(outcome: Outcome) -> bool:
    """Whether it may be what a module chose: whole numbers in rows, given back by a call."""
    record = outcome.record
    whole = record.dtype in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
    return record.role == "output" and whole and bool(record.shape)
