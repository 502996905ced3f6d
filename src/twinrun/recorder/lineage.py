"""Where a value comes from, as the recorder writes it down: flow, and the thread's place in the model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from twinrun.recorder.flow import UNKNOWN, Flow, is_traced
from twinrun.recorder.scene import Scene

LISTED = 512


class Lineage:
    """The recorder's tracer: ``sources`` and ``parents`` of a tensor that is about to be recorded."""

    def __init__(self, flow: Flow, scene: Scene) -> None:
        self._flow = flow
        self._scene = scene

    def trace(self, tensor: torch.Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What this very value was recorded as before, else what it was computed from.

        A tensor without an autograd graph may come from anything that the code around it could
        see: the inputs of the call it stands in, and what the modules called there gave back. One
        with a graph may also come from those of them that take no gradients. That is more than
        its true makers, never less, so no consumer of a record is missed.
        """
        sources, parents = self._flow.trace(tensor)
        here = self._scene.here
        if sources:
            return sources, ()
        if parents is None:
            return (), _bounded(here.visible)
        return (), _bounded(sorted({*parents, *here.untraced})) if here.untraced else parents

    def observed(self, tensor: torch.Tensor, number: int) -> None:
        """Remember a record that was made outside the boundary (``dump``)."""
        calls = self._scene.calls
        self._flow.observed(tensor, number, calls[-1].call if calls else -1)
        self._scene.here.sees(number, is_traced(tensor))


def _bounded(numbers: Sequence[int]) -> tuple[int, ...]:
    """All of them, or that they are unknown: a long list would say as little, at a greater price."""
    return tuple(numbers) if len(numbers) <= LISTED else (UNKNOWN,)
