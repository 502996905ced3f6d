"""Which points a point was computed from, which the same call gave, and which enclose it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from twinrun.comparison.flow import Flow
from twinrun.comparison.outcome import Outcome
from twinrun.comparison.points import Points

Call = tuple[int, int, int]
"""Process, root, and the tick at which the module was entered."""


def call_of(outcome: Outcome) -> Call:
    """The module call that recorded this point, in the baseline."""
    record = outcome.record
    return record.process, record.root, record.begun


class Kin:
    """The recorded data flow between a comparison's points."""

    def __init__(self, outcomes: Sequence[Outcome], runs: tuple[Points, Points]) -> None:
        self._runs = runs
        self._flow = Flow(runs[0].view)
        self._by_member: dict[int, Outcome] = {}
        self._by_number: tuple[dict[tuple[int, int], Outcome], ...] = ({}, {})
        self._outputs: dict[Call, list[Outcome]] = defaultdict(list)
        self._by_process: dict[int, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            self._enter(outcome)

    def _enter(self, outcome: Outcome) -> None:
        for side, points in enumerate((outcome.pair.baseline, outcome.pair.target)):
            for at in (at for point in points for at in point.members):
                record = self._runs[side].view.records[at]
                self._by_number[side][record.process, record.number] = outcome
                if side == 0:
                    self._by_member[at] = outcome
        if outcome.pair.baseline:
            self._by_process[outcome.record.process].append(outcome)
        if outcome.pair.baseline and outcome.record.role == "output":
            self._outputs[call_of(outcome)].append(outcome)

    def outputs(self, call: Call) -> list[Outcome]:
        """What a call gave back."""
        return self._outputs.get(call, [])

    def siblings(self, outcome: Outcome) -> list[Outcome]:
        """The other outputs of its call."""
        return [one for one in self.outputs(call_of(outcome)) if one is not outcome]

    def inside(self, call: Call) -> list[Outcome]:
        """Points that were recorded while this call ran, without its own; its outputs are recorded."""
        end = max(one.record.order for one in self._outputs[call])
        return [
            one
            for one in self._by_process[call[0]]
            if one.record.begun > call[2] and one.record.order < end
        ]

    def around(self, outcome: Outcome) -> list[Outcome]:
        """The outputs of the nearest recorded module around it."""
        at = outcome.pair.baseline[0].members[0]
        found = (self._by_member.get(one) for one in sorted(self._flow.enclosing(at)))
        return [one for one in found if one is not None]

    def same(self, outcome: Outcome) -> list[Outcome]:
        """Earlier points of the very same value, in both runs."""
        of_target = {id(one) for one in self._behind(outcome, 1, parents=False)}
        return [one for one in self._behind(outcome, 0, parents=False) if id(one) in of_target]

    def makers(self, outcome: Outcome) -> list[Outcome]:
        """What the baseline computed it from, or had as the same value before."""
        return self._behind(outcome, 0, parents=True)

    def _behind(self, outcome: Outcome, side: int, *, parents: bool) -> list[Outcome]:
        points = (outcome.pair.baseline, outcome.pair.target)[side]
        if not points:
            return []
        record = self._runs[side].first(points[0])
        numbers = (*record.sources, *(record.parents if parents else ()))
        found = (self._by_number[side].get((record.process, number)) for number in numbers)
        return [one for one in found if one is not None and one is not outcome]
