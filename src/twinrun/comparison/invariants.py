"""What is broken inside one run, whatever the other one did."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from twinrun.comparison.outcome import Outcome
from twinrun.comparison.points import Point, Points
from twinrun.comparison.replicas import ReplicaDifference
from twinrun.comparison.result import Invariant, SideName

# Of one kind of tensor on one side so many broken points are listed; the rest is counted.
_LISTED = 10


def find_invariants(
    outcomes: Sequence[Outcome], baseline: Points, target: Points
) -> tuple[Invariant, ...]:
    """Replicas that differ, the first NaN or Inf of each side, taps silent on some ranks."""
    found: list[Invariant] = []
    sides: tuple[tuple[SideName, int, Points], ...] = (
        ("baseline", 0, baseline),
        ("target", 1, target),
    )
    for side, at, points in sides:
        found += _replicas(outcomes, side, at, points)
        found += _nonfinite(outcomes, side, at, points)
        found += _silent(side, points)
    return tuple(found)


def _replicas(
    outcomes: Iterable[Outcome], side: SideName, at: int, points: Points
) -> Iterable[Invariant]:
    told: dict[str, int] = defaultdict(int)
    last: dict[str, Invariant] = {}
    for outcome in outcomes:
        point = _point(outcome, at)
        for broken in outcome.broken:
            if broken.side != side or point is None or not broken.differences:
                continue
            record = points.first(point)
            kind = f"{record.kind} of a parameter" if record.role == "parameter" else record.kind
            told[kind] += 1
            last[kind] = _broken(side, record.step, record.name, broken.differences)
            if told[kind] <= _LISTED:
                yield last[kind]
    for kind, count in told.items():
        if count > _LISTED:
            one = last[kind]
            text = f"{count - _LISTED} more points of this kind ({kind}) differ between replicas"
            yield Invariant("replicas", side, one.step, one.name, one.ranks, text)


def _broken(
    side: SideName, step: int, name: str, differences: Sequence[ReplicaDifference]
) -> Invariant:
    worst = max(differences, key=lambda found: found.max_abs)
    ranks = tuple(sorted({rank for found in differences for rank in found.ranks}))
    return Invariant("replicas", side, step, name, ranks, _told(worst), worst.max_abs)


def _told(found: ReplicaDifference) -> str:
    one, two = found.ranks
    if found.reason:
        return f"ranks {one} and {two} should hold the same tensor, but the {found.reason} differs"
    return (
        f"ranks {one} and {two} should hold the same values: {found.differing:,} of "
        f"{found.elements:,} elements differ, the worst at {list(found.index)} "
        f"({_short(found.values[0])} against {_short(found.values[1])})"
    )


def _short(value: object) -> str:
    """Seven digits tell two float32 values apart; other types are whole."""
    return f"{value:.7g}" if isinstance(value, float) else str(value)


def _nonfinite(
    outcomes: Iterable[Outcome], side: SideName, at: int, points: Points
) -> Iterable[Invariant]:
    """The first point with a NaN, or with an Inf that the other run lacks (masks hold them alike)."""
    for outcome in outcomes:
        point = _point(outcome, at)
        unlike = outcome.nonfinite[at] and (outcome.one_sided or not _point(outcome, 1 - at))
        if point is None or not (outcome.nans[at] or unlike):
            continue
        record = points.first(point)
        if not outcome.nans[at] and record.role == "input":
            continue
        count, what = outcome.nans[at], "NaN"
        if not count:
            count, what = outcome.nonfinite[at], "Inf"
        text = f"first {what}: {count:,} elements"
        yield Invariant("nonfinite", side, record.step, record.name, point.ranks, text)
        return


def _silent(side: SideName, points: Points) -> Iterable[Invariant]:
    """Modules that ran on some ranks only, although what encloses them ran on all.

    Numbered modules below a numbered block (experts) may run on any subset of ranks.
    """
    ranks_of: dict[str, set[int]] = defaultdict(set)
    for point in points:
        record = points.first(point)
        if record.role == "output" and record.kind == "activation":
            ranks_of[record.module].update(point.ranks)
    for module, ranks in ranks_of.items():
        parent = _nearest(module, ranks_of)
        if parent is None or _numbered_below(module):
            continue
        missing = ranks_of[parent] - ranks
        if missing:
            text = (
                f"no output on ranks {_listed(missing)}, although {parent or 'the root'} ran there "
                f"and this module ran on ranks {_listed(ranks)}"
            )
            yield Invariant("silent", side, 0, f"{module}:output", tuple(sorted(missing)), text)


def _nearest(module: str, known: dict[str, set[int]]) -> str | None:
    while module:
        module = module.rpartition(".")[0]
        if module in known:
            return module
    return None


def _numbered_below(module: str) -> bool:
    return sum(part.isdecimal() for part in module.split(".")) > 1


def _point(outcome: Outcome, at: int) -> Point | None:
    points = (outcome.pair.baseline, outcome.pair.target)[at]
    return points[0] if points else None


def _listed(ranks: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(ranks)))
