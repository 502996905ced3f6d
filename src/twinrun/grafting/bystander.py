"""What stands in for a recorder where a program is grafted and nothing is recorded."""

from __future__ import annotations

from typing import Any

from twinrun.recorder.intercept import DumpInterceptor
from twinrun.recorder.options import Options


class Bystander:
    """Counts steps and records nothing: the part of a Recorder that ``tr.step`` and ``tr.dump`` call."""

    def __init__(self) -> None:
        self.marks = 0
        self.options = Options(taps="none")
        self.dump_interceptors: list[DumpInterceptor] = []

    @property
    def step(self) -> int:
        """Only ``tr.step()`` is counted: no module is looked at."""
        return self.marks

    def mark_step(self) -> None:
        """``tr.step()``."""
        self.marks += 1

    def dump(self, name: str, tensor: object, dims: str | None, tags: Any) -> None:
        """``tr.dump()``: for the interceptors alone."""
        for intercept in self.dump_interceptors:
            intercept(name, tensor, dims, tags)

    def observe(self, name: str, tensor: object, **facts: Any) -> None:
        """Nothing is recorded."""

    def note(self, text: str) -> None:
        """Nobody reads it."""
