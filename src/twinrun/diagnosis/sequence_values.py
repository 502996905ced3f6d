"""What the recorded values say of paired operators: which agree, which part, what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from twinrun.comparison.result import Row
from twinrun.comparison.verdict import K_FIRST_ORDER
from twinrun.comparison.view import View
from twinrun.diagnosis.operator_file import Step
from twinrun.diagnosis.sequence_alignment import Pairs
from twinrun.diagnosis.sequence_calls import Calls
from twinrun.errors import TwinrunError
from twinrun.numerics.distance import distance
from twinrun.numerics.dtypes import coarser
from twinrun.numerics.floor import PER_BLOCK, first_order
from twinrun.recorder.record import Record

_WORDS = {"equal": 0, "close": 1, "healed": 1, "allowed": 1, "undecided": 2, "differs": 3}


class Values:
    """The states of pairs: 0 equal, 1 close, 2 undecided, 3 differs, None unknown.

    From compare's row where both sides recorded the pair under one name, else from the two records of
    the lowest ranks, where they have one shape.
    """

    def __init__(
        self, baseline: View, target: View, calls: Calls, pairs: Pairs, rows: Sequence[Row]
    ) -> None:
        self._views = (baseline, target)
        self._calls = calls
        self._pairs = pairs
        self._rows = {
            row.name: row for row in rows if (row.step, row.occurrence) == (calls.step, calls.nth)
        }
        self._records = tuple(_records(view, calls, side) for side, view in enumerate(self._views))
        self._states = [self._state(a, b) for a, b in pairs]
        self._by_baseline = {a: at for at, (a, _) in enumerate(pairs)}
        self._by_target = {b: at for at, (_, b) in enumerate(pairs)}

    def differs(self, at: int) -> bool:
        """Whether the pair differs for certain."""
        return self._states[at] == 3

    def agrees(self, at: int) -> bool:
        """Whether the pair is known to agree."""
        state = self._states[at]
        return state is not None and state <= 1

    @property
    def exactly(self) -> Exactly:
        """The same, where only equal bits agree."""
        return Exactly(self)

    def holds_same_bits(self, at: int) -> bool:
        """Whether the pair is known to be equal bit for bit."""
        return self._states[at] == 0

    def pair_of(self, side: int, step: int) -> int | None:
        """The pair that a step of one side (0 baseline, 1 target) belongs to."""
        return (self._by_target if side else self._by_baseline).get(step)

    def parting(self) -> Iterator[int]:
        """Pairs that part, in order, where something that is computed from them parts too to the end."""
        live = self._live()
        yield from (at for at in range(len(self._pairs)) if live[at])

    def unequal(self) -> Iterator[int]:
        """Pairs that do not hold the same bits, in order."""
        yield from (at for at, state in enumerate(self._states) if state)

    def end_alike(self) -> bool:
        """Whether all that each side ends with agrees: then nothing of a difference is left."""
        mine, theirs = _ends(self._calls.baseline.steps), _ends(self._calls.target.steps)
        if not mine or len(mine) != len(theirs):
            return False
        states = [self._state(a, b) for a, b in zip(mine, theirs, strict=True)]
        most = 0 if self._exact_only else 1
        return all(state is not None and state <= most for state in states)

    @property
    def _exact_only(self) -> bool:
        """With nothing that parts, rounding placed elsewhere may still be told: only equal bits end it."""
        return all(state is None or state <= 1 for state in self._states)

    def _live(self) -> list[bool]:
        """Whether a pair parts and some way from it leads to the end through pairs that part."""
        steps = self._calls.baseline.steps
        uses: dict[int, list[int]] = {}
        for later, step in enumerate(steps):
            for made in made_by(step):
                uses.setdefault(made, []).append(later)
        reaches = [False] * len(steps)
        live = [False] * len(self._pairs)
        for number in range(len(steps) - 1, -1, -1):
            onward = uses.get(number, [])
            open_end = not onward or any(reaches[one] for one in onward)
            at = self._by_baseline.get(number)
            state = None if at is None else self._states[at]
            reaches[number] = open_end and (state is None or state >= 2)
            if at is not None and state is not None:
                live[at] = reaches[number]
        return live

    def _state(self, a: int, b: int) -> int | None:
        one, two = self._calls.baseline.steps[a], self._calls.target.steps[b]
        if one.is_view or two.is_view or not one.outputs or not two.outputs:
            return None
        module = self._calls.baseline.module
        names = one.record(module), two.record(module)
        row = self._rows.get(names[0]) if names[0] == names[1] else None
        if row is not None:
            known = _WORDS.get(row.verdict)
            return 3 if known is None and row.reason == "nonfinite" else known
        records = self._records[0].get(names[0]), self._records[1].get(names[1])
        return None if None in records else self._measured(*records)  # type: ignore[arg-type]

    def _measured(self, one: Record, two: Record) -> int | None:
        if one.shape != two.shape or not (one.has_payload and two.has_payload):
            return None
        if self._views[0].processes[one.process].world_size != 1 and one.dims is None:
            return None  # parts of something: one rank alone says little
        try:
            tensors = [view.tensor(r) for view, r in zip(self._views, (one, two), strict=True)]
            found = distance(*tensors)
        except (TwinrunError, ValueError):
            return None
        if found.bits_equal:
            return 0
        form = coarser(one.dtype, two.dtype)
        if form.exact or found.one_sided:
            return 3 if found.differing or found.one_sided else 1
        length = 8 * (one.shape[-1] if one.shape else 1)
        floor = first_order(form, depth=PER_BLOCK, reduction=length, elements=found.elements).l2
        if found.relative_l2 <= floor:
            return 1
        return 2 if found.relative_l2 <= K_FIRST_ORDER * floor else 3


class Exactly:
    """The states of pairs where rounding is no agreement."""

    def __init__(self, values: Values) -> None:
        self._values = values

    def agrees(self, at: int) -> bool:
        """Whether the pair is known to be equal bit for bit."""
        return self._values.holds_same_bits(at)

    def pair_of(self, side: int, step: int) -> int | None:
        """As `Values.pair_of`."""
        return self._values.pair_of(side, step)


def made_by(step: Step) -> Iterator[int]:
    """The numbers of the operators whose results a step is given."""
    for one in step.inputs:
        if one.origin.startswith("op:"):
            number = one.origin[3:].partition(".")[0]
            if number.isdecimal():
                yield int(number)


def _records(view: View, calls: Calls, side: int) -> dict[str, Record]:
    wanted = calls.processes[side], calls.step, calls.nth
    return {
        one.name: one
        for one in view.records
        if one.role == "operator" and (one.process, one.step, one.occurrence) == wanted
    }


def _ends(steps: Sequence[Step]) -> list[int]:
    """The operators that give values which no other one of the call is given, past views of them."""
    used: set[int] = set()
    found = []
    for at in range(len(steps) - 1, -1, -1):
        if steps[at].is_view and at not in used:
            continue  # what it shows may still be an end
        if at not in used:
            found.append(at)
        used.update(made_by(steps[at]))
    return found[::-1]
