"""Where a process is in its run: which outermost module was entered, how often, how many steps."""

from __future__ import annotations

import itertools

from twinrun.recorder.steps import Steps

NO_ROOT = -1
"""The root of a record that was made before any outermost module was entered."""


class Clock:
    """Counts calls of roots, ``tr.step()`` calls and observations; decides on ``--steps``.

    Until the first ``tr.step()`` nobody knows whether there will be one, so calls are counted; what
    was left out by that count is remembered in ``left_out``.
    """

    def __init__(self, steps: Steps) -> None:
        self.root = NO_ROOT
        self.mark = 0
        self.left_out = 0
        self._calls: dict[int, int] = {}
        self._steps = steps
        self._ticks = itertools.count()
        self.choosing = bool(steps.ranges)

    def enter(self, root: int) -> None:
        """The next call of ``root`` begins."""
        self.root = root
        self._calls[root] = self._calls.get(root, -1) + 1

    def call_of(self, root: int) -> int:
        """Which call of ``root`` goes on, or went on last; 0 before the first."""
        return self._calls.get(root, 0)

    @property
    def step(self) -> int:
        """The current step, as far as it can be told while the run goes on."""
        return self.mark or self._calls.get(self.root, 0)

    def takes(self, call: int) -> bool:
        """Whether ``--steps`` takes a record of this call."""
        taken = (self.mark or call) in self._steps
        if not taken and not self.mark:
            self.left_out += 1
        return taken

    def tick(self) -> int:
        """The next value of the one order counter."""
        return next(self._ticks)
