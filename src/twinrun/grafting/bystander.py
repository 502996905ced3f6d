"""What stands in for a recorder where a program is grafted and nothing is recorded."""

from __future__ import annotations

from typing import Any

from twinrun.recorder.clock import Clock
from twinrun.recorder.steps import Steps


class Bystander:
    """Counts steps and records nothing: the part of a Recorder that ``tr.step`` and ``tr.dump`` call."""

    def __init__(self) -> None:
        self._clock = Clock(Steps.parse(""))

    def mark_step(self) -> None:
        """``tr.step()``."""
        self._clock.mark += 1

    def dump(self, name: str, tensor: object, dims: str | None, tags: Any) -> None:
        """``tr.dump()``; a seam takes its place."""

    def observe(self, name: str, tensor: object, **facts: Any) -> None:
        """Nothing is recorded."""

    def note(self, text: str) -> None:
        """Nobody reads it."""
