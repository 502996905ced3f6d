"""Differences that heal: everything computed from them agrees, as the recorded data flow shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from twinrun.comparison.flow import Flow, closure
from twinrun.comparison.outcome import Outcome
from twinrun.comparison.points import Points
from twinrun.comparison.result import AGREEING
from twinrun.comparison.visibility import Visibility


def heal(outcomes: Sequence[Outcome], baseline: Points, target: Points) -> None:
    """Settle, from the last point to the first, which differences are healed.

    A difference heals if it has recorded consumers on both sides, all known and all agreeing, and
    the outputs of the nearest recorded module around it agree; consumers count only where the
    difference would have shown (`visibility`). An inferred pending sum agrees only
    if everything computed from it agrees: the whole closure of its consumers, or every later point
    of its step; else the point differs and the sum becomes its hint. Undecided points neither heal
    nor count as agreement, so that a fault which fades along the way is not taken for a healed one.
    """
    if all(one.measured != "differs" and one.summed is None for one in outcomes):
        return
    healer = _Healer(outcomes, baseline, target)
    followers: dict[int, list[bool]] = {}
    for outcome in reversed(outcomes):
        later = followers.setdefault(outcome.pair.lead.key.step, [])
        if outcome.summed is not None:
            # What takes a weight's gradient (an optimizer) is recorded nowhere: nothing shows the sum.
            last = outcome.record.role == "parameter"
            healed = not last and (healer.heals(outcome, deep=True) or later == [True])
            outcome.verdict = "healed" if healed else "differs"
            outcome.hint = outcome.summed
            outcome.reason = "partial sum"
        elif outcome.measured == "differs" and healer.heals(outcome):
            outcome.verdict = "healed"
        followers[outcome.pair.lead.key.step] = [
            outcome.final in AGREEING and later in ([], [True])
        ]


class _Healer:
    def __init__(self, outcomes: Sequence[Outcome], baseline: Points, target: Points) -> None:
        self._flows = (Flow(baseline.view), Flow(target.view))
        self._visibility = Visibility(outcomes, baseline)
        self._by_record: tuple[dict[int, list[Outcome]], dict[int, list[Outcome]]] = ({}, {})
        for outcome in outcomes:
            for side, points in enumerate((outcome.pair.baseline, outcome.pair.target)):
                for point in points:
                    for at in point.members:
                        self._by_record[side].setdefault(at, []).append(outcome)

    def heals(self, outcome: Outcome, deep: bool = False) -> bool:
        """Whether all that both runs computed from this point agrees."""
        sides = (outcome.pair.baseline, outcome.pair.target)
        return all(
            points
            and all(
                self._settled(outcome, side, at, deep) for point in points for at in point.members
            )
            for side, points in enumerate(sides)
        )

    def _settled(self, outcome: Outcome, side: int, at: int, deep: bool) -> bool:
        flow = self._flows[side]
        direct = flow.consumers(at)
        around = flow.enclosing(at)
        if not direct or not around:
            return False
        if not all(self._shows(outcome, side, one) for one in direct):
            return False
        groups: Iterator[frozenset[int] | None] = closure(flow, at) if deep else iter([direct])
        return all(
            found is not None and all(self._agrees(side, one) for one in found)
            for found in (*groups, around)
        )

    def _agrees(self, side: int, at: int) -> bool:
        told = self._by_record[side].get(at, [])
        return bool(told) and all(outcome.final in AGREEING for outcome in told)

    def _shows(self, difference: Outcome, side: int, at: int) -> bool:
        """A consumer that healed was asked the same of its own consumers."""
        told = self._by_record[side].get(at, [])
        return all(
            outcome.verdict == "healed" or self._visibility.shows(difference, outcome)
            for outcome in told
        )
