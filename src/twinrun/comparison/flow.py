"""Which record fed which, and which module encloses it, inside one process."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator

from twinrun.comparison.view import View
from twinrun.numerics.bits import same_bits
from twinrun.recorder.record import Record

UNKNOWN = -1
"""In ``Record.parents``: it may have been computed from anything before it."""


class Flow:
    """The data flow that one capture recorded. Positions are those in the capture's `records`."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._at: dict[tuple[int, int], int] = {}
        self._copies: dict[int, list[int]] = defaultdict(list)
        self._children: dict[int, list[int]] = defaultdict(list)
        self._untraced: dict[int, int] = {}
        self._outputs: dict[int, list[tuple[int, int]]] = defaultdict(list)
        for at, record in enumerate(view.records):
            self._at[record.process, record.number] = at
        for at, record in enumerate(view.records):
            self._enter(at, record)
        for outputs in self._outputs.values():
            outputs.sort()

    def _enter(self, at: int, record: Record) -> None:
        for number in record.sources:
            if (source := self._at.get((record.process, number))) is not None:
                self._copies[source].append(at)
        for number in record.parents:
            if (parent := self._at.get((record.process, number))) is not None:
                self._children[parent].append(at)
        if UNKNOWN in record.parents:
            self._untraced[record.process] = max(
                record.order, self._untraced.get(record.process, -1)
            )
        if record.role == "output":
            self._outputs[record.process].append((record.order, at))

    def consumers(self, at: int) -> frozenset[int] | None:
        """Records computed from this one's value; None where some may be unknown.

        Unknown are the consumers of a value that a later untraced record may have come from, and
        of one that had changed by the time it was recorded again.
        """
        record = self._view.records[at]
        if self._untraced.get(record.process, -1) > record.order:
            return None
        alike = self._alike(at, record)
        if not all(self._unchanged(record, self._view.records[one]) for one in alike if one != at):
            return None
        return frozenset(c for one in alike for c in self._children.get(one, ())) - alike

    def enclosing(self, at: int) -> frozenset[int]:
        """The outputs of the nearest recorded module call around this record; empty without one."""
        record = self._view.records[at]
        outputs = self._outputs.get(record.process, [])
        start = bisect_right(outputs, (record.order, at))
        begun = None
        found = []
        for _, one in outputs[start:]:
            other = self._view.records[one]
            if begun is None and other.begun < record.begun and other.module != record.module:
                begun = other.begun
            if begun is not None:
                if other.begun != begun:
                    break
                found.append(one)
        return frozenset(found)

    def _alike(self, at: int, record: Record) -> set[int]:
        """This record and the others of the same value."""
        sources = (self._at.get((record.process, number)) for number in record.sources)
        first = {one for one in sources if one is not None} | {at}
        return first | {copy for one in first for copy in self._copies.get(one, ())}

    def _unchanged(self, one: Record, two: Record) -> bool:
        if not (one.has_payload and two.has_payload):
            return False
        try:
            return same_bits(self._view.tensor(one), self._view.tensor(two))
        finally:
            self._view.release(one)
            self._view.release(two)


def closure(flow: Flow, at: int) -> Iterator[frozenset[int] | None]:
    """Consumers, then theirs, each record once; None where some are unknown."""
    seen: set[int] = set()
    waiting = [at]
    while waiting:
        found = flow.consumers(waiting.pop())
        yield found
        for one in (found or frozenset()) - seen:
            seen.add(one)
            waiting.append(one)
