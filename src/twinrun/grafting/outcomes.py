"""Which points the ranks of one job took, so that one that only some took can be told."""

from __future__ import annotations

import threading

from twinrun.grafting.point import Point, Rank

_KEPT = 1024


class Outcomes:
    """The last points of this job's ranks, as far as they are known here. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Point, tuple[Rank, str] | None] = {}

    def add(self, point: Point, failure: tuple[Rank, str] | None) -> str:
        """A rank took ``point`` (None), or did not and why; what to tell once both have happened."""
        with self._lock:
            held = self._held
            if point not in held:
                held[point] = failure
                if len(held) > _KEPT:
                    del held[next(iter(held))]
                return ""
            before = held[point]
        if (before is None) == (failure is None):
            return ""
        rank, why = before or failure or (None, "")
        return f"some ranks took it, {rank} did not: {why}"
