"""Where two runs part: what held the same bits before carries no rounding into what follows."""

from __future__ import annotations

from dataclasses import replace

from twinrun.comparison.depth import Way
from twinrun.comparison.outcome import Outcome
from twinrun.numerics.floor import PER_BLOCK


class Parting:
    """Counts depth from where the runs part, in the step in which they do.

    A block that they part in counts whole: its roundings are not told apart. Later steps count
    from their start, because state that is not recorded (a cache) may carry a difference over.
    """

    def __init__(self) -> None:
        self._base = 0
        self._step: int | None = None
        self._parted = False

    def since(self, way: Way, step: int) -> Way:
        """The way with the depth that lies after what was bit-identical."""
        base = self._base if step == self._step else 0
        return replace(way, depth=way.depth - base) if 0 < base <= way.depth else way

    def pass_by(self, outcome: Outcome, way: Way, step: int) -> None:
        """Take in one point, in execution order, with its whole way."""
        if self._parted:
            return
        if outcome.measured != "equal":
            self._parted = True
            return
        if step != self._step:
            self._step, self._base = step, 0
        self._base = max(self._base, way.depth - PER_BLOCK)
