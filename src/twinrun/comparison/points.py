"""A run's records gathered by point, in execution order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from twinrun.comparison.view import View
from twinrun.recorder.record import Record


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """What pairs a point with the other run's. ``step`` counts from the first step that is kept.

    ``job`` is 0 unless several processes of one capture claim one rank and hold the same point.
    """

    step: int
    name: str
    occurrence: int
    recompute: bool = False
    job: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """The records of one point, ascending by rank; positions in the capture's `records`."""

    key: Key
    members: tuple[int, ...]
    ranks: tuple[int, ...]


class Points:
    """All points of one run. ``twice`` names the ranks that several processes claim."""

    def __init__(
        self, view: View, *, skip: int = 0, rename: Callable[[Record], str] = lambda r: r.name
    ) -> None:
        self.view = view
        self.skip = skip
        self.steps = 0
        self.skipped = 0
        self.nbytes = 0
        self.twice: tuple[int, ...] = ()
        self._by_key = self._gather(rename)
        self._ordered: tuple[Point, ...] | None = None

    def __iter__(self) -> Iterator[Point]:
        """In execution order."""
        if self._ordered is None:
            self._ordered = tuple(sorted(self._by_key.values(), key=self._when))
        return iter(self._ordered)

    def __len__(self) -> int:
        return len(self._by_key)

    def __contains__(self, key: Key) -> bool:
        return key in self._by_key

    def get(self, key: Key) -> Point | None:
        """The point, if the run has it."""
        return self._by_key.get(key)

    def records(self, point: Point) -> tuple[Record, ...]:
        """The records of a point, ascending by rank."""
        return tuple(self.view.records[at] for at in point.members)

    def first(self, point: Point) -> Record:
        """The record of the lowest rank."""
        return self.view.records[point.members[0]]

    def _gather(self, rename: Callable[[Record], str]) -> dict[Key, Point]:
        held: dict[Key, dict[int, int]] = defaultdict(dict)
        owner: dict[tuple[Key, int], int] = {}
        twice: set[int] = set()
        steps = set()
        for at, record in enumerate(self.view.records):
            self.nbytes += record.nbytes
            if record.step < self.skip:
                self.skipped += 1
                continue
            steps.add(record.step)
            key = Key(record.step - self.skip, rename(record), record.occurrence, record.recompute)
            while owner.setdefault((key, record.rank), record.process) != record.process:
                twice.add(record.rank)
                key = replace(key, job=key.job + 1)
            held[key].setdefault(record.rank, at)
        self.steps, self.twice = len(steps), tuple(sorted(twice))
        return {
            key: Point(key, tuple(ranks[r] for r in sorted(ranks)), tuple(sorted(ranks)))
            for key, ranks in held.items()
        }

    def _when(self, point: Point) -> tuple[int, int, int, int, int, int]:
        """Within a process the order of observation; pipeline stages forward, then backward."""
        record = self.first(point)
        stage, stages = record.mesh.get("pp", (0, 1))
        backward = stages > 1 and record.kind == "gradient"
        return (
            record.step,
            int(backward),
            -stage if backward else stage,
            record.order,
            record.process,
            record.number,
        )


def mesh_text(sizes: Mapping[str, int]) -> str:
    """``tp=2 dp=2`` from axis sizes."""
    return " ".join(f"{axis}={size}" for axis, size in sizes.items())
