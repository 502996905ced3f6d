"""Whether a difference would have shown in a point that was computed from it.

A branch that is off by a tenth moves a residual stream fifty times its size by 2e-3, which is less
than bfloat16's noise there: that the stream agrees says nothing of the branch. Agreement is
evidence only where the difference, had it gone on, would stand out.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import torch

from twinrun.comparison.outcome import Outcome
from twinrun.comparison.points import Points

Call = tuple[int, int, int]


class Visibility:
    """What the sizes of a comparison's points allow to be seen."""

    def __init__(self, outcomes: Sequence[Outcome], baseline: Points) -> None:
        self._view = baseline.view
        self._inputs: dict[Call, list[Outcome]] = defaultdict(list)
        self._norms: dict[int, float] = {}
        for outcome in outcomes:
            if outcome.record.role == "input":
                self._inputs[_call(outcome)].append(outcome)

    def shows(self, difference: Outcome, consumer: Outcome) -> bool:
        """Whether ``difference``, passed on undiminished, would lie above K floors at ``consumer``.

        The consumer's scale is the largest norm among itself and the inputs of the call that gave
        it, because a module may normalise what it adds up. Same bits prove that nothing went on.
        """
        if consumer.measured == "equal":
            return True
        scale = max(map(self._norm, [consumer, *self._inputs[_call(consumer)]]))
        if consumer.floor is None or not 0.0 < scale < math.inf:
            return False
        moved = (
            difference.measures.relative_l2 * self._norm(difference) if difference.measures else 0.0
        )
        return moved > consumer.floor.k * consumer.floor.l2 * scale

    def _norm(self, outcome: Outcome) -> float:
        """The larger side's norm; read anew where equal bits left it unmeasured."""
        measures = outcome.measures
        if measures is not None and measures.norms and max(measures.norms):
            return max(measures.norms)
        if outcome.measured != "equal":
            return 0.0
        if id(outcome) not in self._norms:
            self._norms[id(outcome)] = self._read(outcome)
        return self._norms[id(outcome)]

    def _read(self, outcome: Outcome) -> float:
        """The norm over all ranks of the baseline; replicas count each, which only asks for more."""
        squares = 0.0
        for point in outcome.pair.baseline:
            for at in point.members:
                record = self._view.records[at]
                if record.has_payload:
                    squares += _square(self._view.tensor(record))
                    self._view.release(record)
        return math.sqrt(squares)


def _call(outcome: Outcome) -> Call:
    record = outcome.record
    return record.process, record.root, record.begun


def _square(values: torch.Tensor) -> float:
    """The sum of squares; 0 for types that no sum of floats holds."""
    if not (values.is_floating_point() or values.is_complex()):
        return 0.0
    flat = values.reshape(-1)
    parts = (
        torch.linalg.vector_norm(p.to(torch.complex64 if p.is_complex() else torch.float32))
        for p in torch.split(flat, 1 << 20)
    )
    return math.fsum(float(part) ** 2 for part in parts)
